"""The other end of an ssh connection: receives files into a fresh folder, runs Python scripts in it, cleans up.

It comes through the connection itself and runs under the Python of the device, 3.8 or later, with the standard library
alone:

    python3 -c 'read so many bytes of stdin and execute them' SIZE PYTHON

Requests come on stdin, one JSON object a line, and are answered by JSON lines on stdout:

    {"do": "file", "name", "size"} and as many bytes -> {"event": "file", "sha256": of what lies on the disk}
    {"do": "run", "script", "arguments"}             -> what the script says on stdout; then {"event": "exit", "code"}

The script has this process's stdin for itself while it runs. Where something fails there is {"event": "failed",
"message"}. The folder is removed when stdin ends, however it ends: a host that vanished leaves nothing behind.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

CHUNK = 1 << 16


def read_line() -> bytes:
    """One line of stdin, not a byte more: what follows is a file, or belongs to a script."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def say(**event: object) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def receive(path: str, size: int) -> str:
    """The SHA-256 of the file as it was written; all of its bytes are taken from stdin even where the disk is full."""
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
    """The script's exit code; below 0 the signal that ended it. Arguments that begin with `./` are in the folder."""
    command = [python, os.path.join(folder, script)]
    command += [os.path.join(folder, word[2:]) if word.startswith("./") else word for word in arguments]
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def main(python: str) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    folder = None
    try:
        try:
            folder = tempfile.mkdtemp(prefix="edge-cv-")
        except OSError as error:
            say(event="failed", message=f"no folder can be made: {error}")
            return
        say(event="agent")
        while True:
            line = read_line()
            if not line:
                return
            request = json.loads(line.decode())
            try:
                if request["do"] == "file":
                    say(event="file", sha256=receive(os.path.join(folder, request["name"]), request["size"]))
                else:
                    say(event="exit", code=run(python, folder, request["script"], request["arguments"]))
            except OSError as error:
                say(event="failed", message=error.strerror or str(error))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[2])
