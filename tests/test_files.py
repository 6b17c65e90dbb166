from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converters import strict_json
from converters.errors import InputError
from converters.files import check_writable, remove_temporary, write_atomic, write_together
from edge_cv.data.formats.directories import read_text
from edge_cv.data.label_files import read_label_file
from edge_cv.models.torch_files import read_torch


def test_content_is_written_and_nothing_is_left_beside_it(tmp_path):
    path = write_atomic(tmp_path / "deep" / "a.txt", "text")
    assert path.read_text() == "text"
    assert os.listdir(path.parent) == ["a.txt"]


def test_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert write_atomic(tmp_path / "a", b"").stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/a\.bin cannot be written"):
        write_atomic(tmp_path / "file" / "a.bin", b"x")


def test_what_can_be_written_passes_the_check_and_nothing_is_left(tmp_path):
    for path in (tmp_path, tmp_path / "new", tmp_path / "new" / "deep"):
        check_writable(path, is_folder=True)
        check_writable(path / "a.bin", is_folder=False)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "is_folder", "message"),
    [
        ("file", True, "file must be a folder. Received: the file .*/file$"),
        ("file/a/b", True, "a/b must be a folder. Received: the file .*/file$"),
        ("file/a.bin", False, "a.bin must be in a folder. Received: the file .*/file$"),
        ("link", True, "link must be a folder"),
        ("folder", False, "folder must be a file to write. Received: a folder"),
        ("x" * 300, True, "x cannot be written: File name too long"),
        ("/proc/x", True, "/proc/x cannot be written"),
        ("/sys/x/a.bin", False, "/sys/x/a.bin cannot be written"),
        ("locked/a", True, "locked/a cannot be written: Permission denied"),
        ("locked/a.bin", False, "locked/a.bin cannot be written: Permission denied"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason(tmp_path, path, is_folder, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "none")
    (tmp_path / "locked").mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0 and path.startswith("locked"):  # root may write anywhere
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=message):
            check_writable(tmp_path / path, is_folder=is_folder)
    finally:
        os.seteuid(user)


def test_a_full_disk_leaves_the_old_content_of_all_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(InputError, match="b cannot be written"):
            write_together({tmp_path / "a": b"new", tmp_path / "b": b"n" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [(tmp_path / name).read_bytes() for name in ("a", "b")] == [b"old", b"old"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_process_that_is_killed_while_writing_leaves_the_old_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = (
        "import os, sys, signal\n"
        "from converters import files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomic(sys.argv[1], b'new' * 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "writing", ["files.write_atomic(place, b'new' * 1000)", "with files.beside(place) as temporary: os.fsync(0)"]
)
def test_temporary_files_of_a_killed_process_are_removed_and_no_others(tmp_path, writing):
    place = tmp_path / "training" / "key" / "checkpoint.npz"
    code = (
        "import os, pathlib, sys, signal\n"
        "from converters import files\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "os.fsync = lambda handle: (place.parent / '.part.checkpoint.npz').touch() or os.kill(os.getpid(), 9)\n"
        f"{writing}\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(place)]).returncode == -signal.SIGKILL
    assert os.listdir(place.parent)
    others = {"a.json", ".part", ".hidden", ".a.part", "b.part", ".lock"}
    for name in others:
        (tmp_path / name).write_text("kept")
    remove_temporary(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == others


def _read_saved_model(path: Path) -> None:
    from converters.sources import open_source

    path.rename(path.with_name("saved_model.pb.kept"))  # the pipe is any other file of the folder
    (path.parent / "saved_model.pb").write_bytes(b"")
    open_source(path.parent)


def _read_model(path: Path) -> None:
    from converters.sources import open_source

    open_source(path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("m.tflite", _read_model),
        ("saved_model.pb", _read_saved_model),
        ("m.json", lambda path: strict_json.read(path, "a sidecar")),
        ("labels.txt", read_label_file),
        ("wnids.txt", read_text),
        ("weights.pth", read_torch),
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(name, read, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"regular file|must be a file that exists"):
        read(tmp_path / name)
