"""Batches: their order, steps, hosts, arrays and backends."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from image_batches import EVERYTHING, MIXED, Memory, by_pillow, make, same, scene, stored, taken
from PIL import Image

from converters.errors import InputError
from edge_cv import data
from edge_cv.data import Preprocessing
from edge_cv.data.input_pipeline.batches import array_batches, evaluation_batches, sample_batches
from edge_cv.recipe import Augment

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_batch_depends_on_seed_epoch_and_step_alone(memory, monkeypatch):
    first = taken(make(memory, EVERYTHING), 1)
    images, targets = first[0]
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert targets.dtype == np.float32
    assert np.allclose(np.concatenate([t for _, t in first]).sum(1), 1)
    monkeypatch.setattr("edge_cv.data.input_pipeline.tf_pipeline.available_cores", lambda: 5)
    again = make(memory, EVERYTHING)
    assert same(taken(again, 1), first)
    assert not same(taken(again, 2), first)
    assert same(taken(again, 1), first)


@pytest.mark.parametrize("first_step", [1, 4, 6])
def test_an_epoch_can_start_at_any_step(memory, first_step):
    batches = make(memory)
    assert same(taken(batches, 1, first_step), taken(batches, 1)[first_step:])


def test_skipped_steps_are_not_read(memory):
    class Counting(Memory):
        read: list[int] = []  # noqa: RUF012

        def encoded(self, index: int) -> bytes:
            self.read.append(index)
            return super().encoded(index)

    batches = make(Counting(memory.contents, memory.labels))
    rest = taken(batches, 0, len(batches) - 1)
    assert len(rest) == 1
    assert sorted(Counting.read) == sorted(batches.plan.sampler.indices(0, len(batches) - 1).tolist())


def test_an_unfinished_epoch_can_be_followed_by_another(memory):
    batches = make(memory)
    whole = taken(batches)
    for images, _ in batches.epoch(0):
        assert (np.asarray(images) == whole[0][0]).all()
        break
    one, other = iter(batches.epoch(0)), iter(batches.epoch(1))
    pairs = list(zip(one, other, strict=True))
    assert same([(np.asarray(i), np.asarray(t)) for (i, t), _ in pairs], whole)


@pytest.mark.slow  # imports TensorFlow again
def test_a_program_with_an_unfinished_epoch_exits():
    code = """
import numpy as np
import image_batches as tests
samples = tests.Memory(tuple(tests.stored(tests.scene(n, 400, 300)) for n in range(8)) * 100, np.zeros(800, np.int32))
batches = tests.make(samples, tests.Augment(), batch_size=16)
epoch = batches.epoch(0)
next(epoch)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=600).returncode == 0


@pytest.mark.slow
def test_the_batches_of_several_hosts_are_those_of_one(memory):
    parts = [taken(make(memory, shard_index=index, shard_count=2)) for index in range(2)]
    one = taken(make(memory, batch_size=8))
    assert len(parts[0]) == len(parts[1]) == len(one)
    for left, right, whole in zip(*parts, one, strict=True):
        assert (np.concatenate([left[0], right[0]]) == whole[0]).all()
        assert np.allclose(np.concatenate([left[1], right[1]]), whole[1])


def test_several_labels_an_image_stay_multi_hot(memory):
    labels = (np.random.default_rng(0).random((22, 3)) < 0.5).astype(np.int32)
    batches = make(Memory(memory.contents, labels), Augment())
    assert batches.multi_label
    order = batches.plan.sampler
    for step, (_, targets) in enumerate(taken(batches)):
        assert (targets == labels[order.indices(0, step)]).all()


def test_balanced_batches_have_all_classes_alike(memory):
    labels = np.where(np.arange(22) < 18, 0, 1).astype(np.int32)
    batches = make(Memory(memory.contents, labels), Augment(), batch_size=2, balanced=True)
    assert all((targets.sum(0) == [1, 1, 0]).all() for _, targets in taken(batches))


class Mallinfo2(ctypes.Structure):
    """What glibc's `mallinfo2` returns: the fifth number is the bytes in mappings, the eighth those on the heap."""

    _fields_ = (("numbers", ctypes.c_size_t * 10),)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 counts the bytes in use")
def test_memory_stays_flat(memory):
    count = ctypes.CDLL(None).mallinfo2
    count.restype = Mallinfo2

    def bytes_in_use() -> int:  # not resident pages: those depend on what other tests have left in the process
        gc.collect()
        numbers = count().numbers
        return numbers[4] + numbers[7]

    batches = sample_batches(memory, image_size=224, batch_size=11, seed=1, augment=Augment())
    in_use = []
    for epoch in range(15):
        for _ in batches.epoch(epoch):
            pass
        in_use.append(bytes_in_use())
    images_of_an_epoch = 22 * 224 * 224 * 3
    assert in_use[14] - in_use[2] < 4 * images_of_an_epoch, in_use  # 12 epochs


def test_arrays_are_unchanged_without_augmentation():
    images = np.random.default_rng(0).random((10, 8, 8, 3)).astype(np.float32)
    batches = array_batches(images, np.arange(10) % 3, classes="abc", batch_size=4, seed=1)
    (first, targets), *_ = batches.epoch(0)
    indices = batches.plan.sampler.indices(0, 0)
    assert (first == images[indices]).all()
    assert (targets.argmax(1) == indices % 3).all()


def test_arrays_are_augmented_as_files_are(memory):
    photos = np.stack([np.asarray(scene(n)) for n in range(6)])
    labels = np.arange(6) % 3
    arrays = array_batches(photos, labels, classes="abc", batch_size=2, seed=3, augment=MIXED, image_size=32)
    files = make(Memory(tuple(stored(Image.fromarray(p), "PNG") for p in photos), labels), batch_size=2)
    assert same(taken(arrays), taken(files))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.zeros((4, 8), np.uint8)}, "images must be"),
        ({"images": np.zeros((4, 8, 8, 3))}, "images must be"),
        ({"images": np.zeros((4, 8, 8, 3), np.float32), "augment": Augment()}, "must be uint8 to be augmented"),
        ({"labels": np.arange(3)}, "one label an image"),
        ({"labels": np.arange(4)}, r"0\.\.2 to train on. Received: 3"),
        ({"labels": np.array([0, 1, -1, 0])}, "Received: -1"),
        ({"labels": np.full((4, 3), 2)}, "must be 0 and 1"),
        ({"labels": np.zeros((4, 3), int), "balanced": True}, "balanced"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3, "shard_count": 2, "augment": Augment(mixup=0.2)}, "must be even"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(changed, message):
    arguments = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 2, 0]), "classes": "abc"}
    with pytest.raises(InputError, match=message):
        array_batches(**{**arguments, "batch_size": 2, "seed": 1, **changed})


def test_evaluation_batches_have_the_pixels_of_samples(tmp_path, memory, caplog):
    preprocessing = Preprocessing(24, resize_to=27)
    for index, content in enumerate(memory.contents[:7]):
        (tmp_path / f"{index}.jpg").write_bytes(content)
    expected = np.stack([pixels for pixels, _ in data.open_samples(tmp_path).pixels(preprocessing)])
    contents = (*memory.contents[:3], b"broken", *memory.contents[3:7])
    batches = evaluation_batches(Memory(contents, np.array([0, 1, 2, 0, -1, 1, 2, 0], np.int32)), preprocessing, 3)
    assert len(batches) == 3
    for _ in range(2):
        images, targets = zip(*batches, strict=True)
        assert [len(i) for i in images] == [3, 3, 1]
        assert (np.concatenate(images) == expected).all()
        assert np.concatenate(targets).argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert np.concatenate(targets).sum(1).tolist() == [1, 1, 1, 0, 1, 1, 1]
    assert "image 3 of memory is left out" in caplog.text
    with pytest.raises(InputError, match="none of the 2 images"):
        list(evaluation_batches(Memory((b"", b""), np.zeros(2, np.int32)), preprocessing, 3))


WITHOUT_TENSORFLOW = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tf_keras"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import image_batches as tests
from edge_cv.data.input_pipeline.batches import array_batches

memory = tests.Memory(tuple(tests.stored(tests.scene(n, 70 + n, 90 - n)) for n in range(22)), np.arange(22) % 3)
np.savez(sys.argv[1], **{
    f"{name}_{step}_{part}": value
    for name, augment in (("crops", tests.Augment()), ("everything", tests.EVERYTHING))
    for step, batch in enumerate(tests.taken(tests.make(memory, augment)))
    for part, value in zip(("images", "targets"), batch)
})
photos = np.stack([np.asarray(tests.scene(n)) for n in range(6)])
arrays = array_batches(photos, np.arange(6) % 3, classes="abc", batch_size=2, seed=3, augment=tests.EVERYTHING)
first, second = tests.taken(arrays), tests.taken(arrays, 0, 1)
assert tests.same(first[1:], second)
import keras
print(json.dumps({"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}))
"""


@pytest.mark.slow  # compiles for JAX in a process without TensorFlow
@pytest.mark.skipif(find_spec("jax") is None or find_spec("grain") is None, reason="jax and grain are an extra")
def test_without_tensorflow_jax_and_grain_make_the_same_batches(tmp_path, memory):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "batches.npz")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"backend": "jax", "tensorflow": False}
    with np.load(tmp_path / "batches.npz") as theirs:
        for name, augment in (("crops", Augment()), ("everything", EVERYTHING)):
            for step, (images, targets) in enumerate(by_pillow(make(memory, augment))):
                difference = np.abs(theirs[f"{name}_{step}_images"].astype(int) - images)
                assert (difference > 2).mean() < 0.001  # two backends round differently at a few borders
                assert np.allclose(theirs[f"{name}_{step}_targets"], targets, atol=1e-6)


@pytest.mark.slow  # starts processes
def test_grains_processes_make_the_same_batches(memory):
    pytest.importorskip("grain")
    batches = make(memory, Augment())
    assert same(by_pillow(batches, workers=2), by_pillow(batches))
