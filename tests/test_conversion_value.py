"""A Conversion on the disk: whole or not at all, and never at another file's cost."""

from __future__ import annotations

import hashlib
import json
import resource

import pytest

from converters import InputError, read_metadata, to_onnx, to_tflite


@pytest.fixture(scope="module")
def conversion(small_model, pixels):
    return to_tflite(small_model, "int8", calibration=pixels, labels=[f"class {i}" for i in range(10)])


def test_save_writes_the_file_and_its_sidecar(conversion, tmp_path):
    path = conversion.save(tmp_path / "new" / "model_int8.tflite")
    assert path.read_bytes() == conversion.content
    sidecar = json.loads((tmp_path / "new" / "model_int8.json").read_text())
    assert sidecar["file"] == "model_int8.tflite"
    assert sidecar["sha256"] == hashlib.sha256(conversion.content).hexdigest()
    assert sidecar["size_bytes"] == len(conversion.content)
    assert {"scheme", "labels", "preprocessing", "input", "output", "parity", "versions", "date"} <= set(sidecar)
    assert sorted(p.name for p in path.parent.iterdir()) == ["model_int8.json", "model_int8.tflite"]


def test_save_twice_replaces_its_own(conversion, tmp_path):
    conversion.save(str(tmp_path / "m.tflite"))
    conversion.save(str(tmp_path / "m.tflite"))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.tflite.txt", "m.json"])
def test_the_ending_must_be_the_formats(conversion, tmp_path, name):
    with pytest.raises(InputError, match=r"must end in \.tflite"):
        conversion.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ['{"file": "m.onnx"}', '{"classes": []}', "[1]", "not json"])
def test_another_files_sidecar_is_not_overwritten(conversion, tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match="must not belong to another file"):
        conversion.save(tmp_path / "m.tflite")
    assert (tmp_path / "m.json").read_text() == content
    assert not (tmp_path / "m.tflite").exists()


def test_a_folder_that_cannot_be_written_is_rejected(conversion, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for target in (tmp_path / "file" / "m.tflite", "/proc/m.tflite"):
        with pytest.raises(InputError, match="cannot be written"):
            conversion.save(target)


def test_a_full_disk_leaves_the_old_files(conversion, tmp_path):
    path = conversion.save(tmp_path / "m.tflite")
    old = path.read_bytes(), (tmp_path / "m.json").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(conversion.content) // 2, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written") as error:
            conversion.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert (path.read_bytes(), (tmp_path / "m.json").read_bytes()) == old
    assert len(list(tmp_path.iterdir())) == 2


def test_metadata_comes_from_inside_a_tflite_file(conversion, tmp_path):
    path = conversion.save(tmp_path / "m.tflite")
    (tmp_path / "m.json").unlink()
    record = read_metadata(path)
    assert record["scheme"] == "int8"
    assert record["labels"][3] == "class 3"
    assert record["input"]["pixel_offset"] == -128


def test_metadata_of_an_onnx_file_comes_from_its_sidecar_and_stands_in_the_file(small_model, pixels, tmp_path):
    import onnx

    path = to_onnx(small_model, calibration=pixels).save(tmp_path / "m.onnx")
    record = read_metadata(path)
    assert (record["scheme"], record["format"]) == ("float32", "onnx")
    (entry,) = [p for p in onnx.load(path).metadata_props if p.key == "EDGE_CV_METADATA"]
    assert json.loads(entry.value)["source_sha256"] == record["source_sha256"]
    path.rename(tmp_path / "other.onnx")
    assert read_metadata(tmp_path / "other.onnx") is None


def test_what_is_not_a_converted_file_is_rejected_or_has_no_metadata(conversion, tmp_path):
    with pytest.raises(InputError, match="must be a file that exists"):
        read_metadata(tmp_path / "none.tflite")
    for content in (b"", b"junk" * 100, conversion.content[4:]):
        (tmp_path / "bad.tflite").write_bytes(content)
        with pytest.raises(InputError, match="TFL3"):
            read_metadata(tmp_path / "bad.tflite")
    (tmp_path / "bad.tflite").write_bytes(conversion.content[:200])
    assert read_metadata(tmp_path / "bad.tflite") is None
