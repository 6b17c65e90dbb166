"""A Ray cluster of this machine, with two nodes: whole tasks one a node, and an evaluation equal to the local one."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters import Preprocessing, to_tflite
from converters.errors import InputError

pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # a cluster takes ten seconds to start


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with two processors each, one with a simulated GPU."""
    from ray import cloudpickle
    from ray.cluster_utils import Cluster as Nodes

    from edge_cv.parallel.ray_cluster import connected

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import it
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=2)
    nodes.wait_for_nodes()
    with connected(nodes.address) as cluster:
        yield cluster
    nodes.shutdown()


def slowly(number: int) -> tuple[str, int, float, float]:
    import ray

    start = time.monotonic()
    time.sleep(0.5)
    return ray.get_runtime_context().get_node_id(), os.getpid(), start, time.monotonic()


def gpus(number: int) -> list:
    import ray

    return ray.get_gpu_ids()


def test_only_a_task_that_trains_sees_the_gpus_of_its_node(cluster):
    assert sorted(node.gpus for node in cluster.nodes) == [0, 1]
    assert {len(seen) for _, seen in cluster.one_a_node(gpus, [(n,) for n in range(4)], [True] * 4)} == {0, 1}
    assert {len(seen) for _, seen in cluster.one_a_node(gpus, [(n,) for n in range(4)], [False] * 4)} == {0}


def fail(number: int) -> int:
    if number == 1:
        raise InputError("task 1 must be another")
    if number == 2:
        os._exit(3)
    return number


def test_each_task_has_a_node_to_itself_and_a_fresh_process(cluster):
    assert [node.cpus for node in cluster.nodes] == [2, 2]
    found = dict(cluster.one_a_node(slowly, [(n,) for n in range(5)], [False] * 5))
    assert sorted(found) == list(range(5))
    assert len({pid for _, pid, _, _ in found.values()}) == 5
    by_node: dict[str, list[tuple[float, float]]] = {}
    for node, _, start, end in found.values():
        by_node.setdefault(node, []).append((start, end))
    assert set(by_node) == {node.id for node in cluster.nodes}
    for spans in by_node.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_task_that_fails_or_dies_does_not_stop_the_others(cluster):
    found = dict(cluster.one_a_node(fail, [(n,) for n in range(4)], [False] * 4))
    assert (found[0], found[3]) == (0, 3)
    assert isinstance(found[1], InputError)
    assert "died" in str(found[2])
    assert list(cluster.one_a_node(fail, [], [])) == []


@pytest.fixture(scope="module")
def artifacts(small_model, pixels, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        scheme: to_tflite(small_model, scheme, calibration=[pixels], preprocessing=Preprocessing(32)).save(
            folder / f"small_{scheme}.tflite"
        )
        for scheme in ("float32", "int8")
    }


@pytest.fixture(scope="module")
def photos(pixels, tmp_path_factory):
    from edge_cv import data

    folder = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(pixels):
        path = folder / f"n{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photo).resize((50, 60)).save(path)
    (folder / "n3" / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    return data.open_samples(str(folder))


def test_an_evaluation_on_the_cluster_equals_the_local_one_exactly(cluster, artifacts, photos):
    from edge_cv.evaluation import evaluate

    local = evaluate(artifacts, photos, reference="float32")
    there = evaluate(artifacts, photos, reference="float32", cluster=cluster)
    assert (there.images, there.skipped, there.runtimes) == (local.images, local.skipped, local.runtimes)
    assert len(there.skipped) == 1
    for name in ("labels", "indices", "probabilities"):
        np.testing.assert_array_equal(getattr(there.predictions, name), getattr(local.predictions, name))
    assert there.predictions.files == local.predictions.files
    assert there.temperatures == local.temperatures
    for name, score in local.scores.items():
        other = there.scores[name]
        assert [getattr(other, f) for f in ("top1", "top5", "agreement", "sqnr_db", "top1_ci95")] == [
            getattr(score, f) for f in ("top1", "top5", "agreement", "sqnr_db", "top1_ci95")
        ]


def test_the_workers_need_none_of_the_callers_files(cluster, artifacts, photos):
    """As on another machine: the files are gone when the workers run."""
    from edge_cv.data import with_content
    from edge_cv.evaluation import worker
    from edge_cv.evaluation.open_model import io_metadata

    task = worker.Task(
        tuple((f"/elsewhere/{name}.tflite", io_metadata(path)) for name, path in artifacts.items()),
        0,
        Preprocessing(32),
    )
    sent = with_content(photos.chunk(0, 4))
    assert all(photo.place.content == photo.path.read_bytes() for photo in sent)
    contents = {f"/elsewhere/{name}.tflite": path.read_bytes() for name, path in artifacts.items()}
    pool = cluster.pool(worker.provide, (contents,))
    pixels, reasons = pool.submit(worker.decode, task, sent).result()
    assert reasons == (None,) * 4
    outputs, _ = pool.submit(worker.classify, task, pixels, sent).result()
    assert [values.shape for values in outputs] == [(4, 10)] * 2


def test_a_file_that_kills_its_process_is_named(cluster, photos, tmp_path):
    from edge_cv.evaluation import evaluate

    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"\0\0\0\0TFL3" + bytes(200))
    with pytest.raises(InputError, match=r"broken\.tflite"):
        evaluate({"broken": broken}, photos, Preprocessing(32), cluster=cluster)
