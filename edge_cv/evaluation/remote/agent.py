"""The device's end of an ssh connection: it stores files in a new folder, runs Python scripts there, and cleans up.

The host sends this source through the connection and the device's Python runs it, version 3.8 or later, with the
standard library only:

    python3 -c 'read SIZE bytes from stdin and execute them' SIZE PYTHON

Requests arrive on stdin, one JSON object a line. Answers are JSON lines on stdout:

    {"do": "file", "name", "size"} and `size` bytes  -> {"event": "file", "sha256": of the stored file}
    {"do": "run", "script", "arguments"}             -> the script's stdout; then {"event": "exit", "code"}

While a script runs, stdin belongs to it; it is killed when the connection ends. A failed request is answered by
{"event": "failed", "message"}. The folder is removed when stdin ends for any reason, so that nothing is left behind if
the host disconnects.
"""

import errno
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

CHUNK = 1 << 16


def read_line() -> bytes:
    """One line of stdin, and no byte more: the next bytes belong to a file or to a script."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def emit(**event: object) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def receive(path: str, size: int) -> str:
    """Store a file and return its SHA-256 as written. All bytes are read from stdin even if the disk is full."""
    failed = file = None
    while size:
        content = os.read(0, min(CHUNK, size))
        if not content:
            sys.exit()
        size -= len(content)
        if failed is None:
            try:
                file = file or open(path, "wb", buffering=0)  # noqa: SIM115
                if file.write(content) < len(content):
                    failed = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                failed = error
    if file is not None:
        file.close()
    if failed is not None:
        raise failed
    digest = hashlib.sha256()
    with open(path, "rb") as written:
        for content in iter(lambda: written.read(CHUNK), b""):
            digest.update(content)
    return digest.hexdigest()


def run(python: str, folder: str, script: str, arguments: list) -> int:
    """Run a script and return its exit code, or the negative number of the signal that ended it.

    Arguments that begin with `./` are files in the folder.
    """
    command = [python, os.path.join(folder, script)]
    command += [os.path.join(folder, word[2:]) if word.startswith("./") else word for word in arguments]
    process = subprocess.Popen(command)
    threading.Thread(target=end_with_connection, args=(process,), daemon=True).start()
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def end_with_connection(process: subprocess.Popen) -> None:
    """Kill a script when nobody reads stdout any more: one that writes nothing would not notice."""
    connection = select.poll()
    connection.register(1, 0)
    connection.poll()
    process.kill()


def main(python: str) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    folder = None
    try:
        try:
            folder = tempfile.mkdtemp(prefix="edge-cv-")
        except OSError as error:
            emit(event="failed", message=f"cannot create a temporary folder: {error}")
            return
        emit(event="agent")
        while True:
            line = read_line()
            if not line:
                return
            request = json.loads(line.decode())
            try:
                if request["do"] == "file":
                    emit(event="file", sha256=receive(os.path.join(folder, request["name"]), request["size"]))
                else:
                    emit(event="exit", code=run(python, folder, request["script"], request["arguments"]))
            except OSError as error:
                emit(event="failed", message=error.strerror or str(error))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[2])
