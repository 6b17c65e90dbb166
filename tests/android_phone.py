"""A fake Android phone for the real adb: it implements adb's protocol over TCP, and an app behind `am start`.

The transport and the services are described in adb's protocol.txt, SERVICES.TXT and SYNC.TXT of the Android Open Source
Project. Shell commands run on this machine, with /data/local/tmp mapped to a folder; am, pm, pidof and run-as, which
runs in the app's data folder, are replacements. The app runs model files with the project's runner and writes the same
measurement as the demo app's benchmark mode.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PACKAGE = "dev.edgecv.demo"
HOST = "Fake phone, Android 15, 2 cores"
VERSION, MAX_PAYLOAD, AUTH_TOKEN, AUTH_SIGNATURE = 0x01000001, 256 * 1024, 1, 2
BANNER = b"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;features=shell_v2,cmd"


class Phone:
    """Listens on `serial`, an address for `adb connect`, until `stop`.

    Attributes:
        authorized: whether it accepts adb's key.
        installed: whether the app is installed.
        free_bytes: largest size of a pushed file.
        corrupts: whether a byte of each pushed file is changed.
        on_start: called when the app is started.
    """

    def __init__(self, folder: Path) -> None:
        self.authorized, self.installed, self.corrupts, self.free_bytes = True, True, False, 1 << 40
        self.on_start: Callable[[], None] = lambda: None
        self.storage, self.pid_file, self._tools = folder / "storage", folder / "pid", folder / "tools"
        (self.storage / "app").mkdir(parents=True)
        (self.storage / "tmp").mkdir()
        self._tools.mkdir()
        for name in ("am", "pm", "pidof", "run-as"):
            (self._tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
            (self._tools / name).chmod(0o755)
        self._connections: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Close all connections, as when the cable is disconnected."""
        for end in (self._server, *self._connections):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @property
    def files(self) -> list[str]:
        """All files on the phone."""
        return sorted(str(path.relative_to(self.storage)) for path in self.storage.rglob("*") if path.is_file())

    def path(self, name: str) -> str:
        return name.replace("/data/local/tmp", str(self.storage / "tmp"))

    def shell(self, command: str) -> subprocess.CompletedProcess[bytes]:
        if command.startswith("am start"):
            self.on_start()
        settings = {"PHONE_PID": str(self.pid_file), "PHONE_APP": str(self.storage / "app")}
        settings["PHONE_INSTALLED"] = "1" if self.installed else ""
        search = f"{self._tools}:{os.environ['PATH']}"
        environment = {**os.environ, **settings, "PATH": search}
        return subprocess.run(["sh", "-c", self.path(command)], env=environment, capture_output=True, check=False)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=_Transport(self, connection).talk, daemon=True).start()


class _Transport:
    def __init__(self, phone: Phone, connection: socket.socket) -> None:
        self.phone, self._connection, self._lock = phone, connection, threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
        magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
        with self._lock:
            self._connection.sendall(
                command + struct.pack("<IIIII", first, second, len(payload), sum(payload) & 0xFFFFFFFF, magic) + payload
            )

    def talk(self) -> None:
        try:
            while True:
                header = self._receive(24)
                first, second, size, _, _ = struct.unpack("<IIIII", header[4:])
                self._message(header[:4], first, second, self._receive(size))
        except OSError:
            for stream in self._streams.values():
                stream.arrived.put(None)

    def _receive(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            part = self._connection.recv(size - len(content))
            if not part:
                raise ConnectionError
            content += part
        return content

    def _message(self, command: bytes, first: int, second: int, payload: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self.phone.authorized:
                self.send(b"CNXN", VERSION, MAX_PAYLOAD, BANNER)
            elif command == b"CNXN" or first == AUTH_SIGNATURE:
                self.send(b"AUTH", AUTH_TOKEN, 0, bytes(20))
        elif command == b"OPEN":
            stream = _Stream(self, len(self._streams) + 1, first)
            self._streams[stream.ours] = stream
            self.send(b"OKAY", stream.ours, stream.theirs)
            threading.Thread(target=stream.serve, args=(payload.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == b"WRTE":
            self._streams[second].arrived.put(payload)
            self.send(b"OKAY", second, first)
        elif command == b"OKAY":
            self._streams[second].ready.set()
        elif command == b"CLSE" and second in self._streams:
            self._streams[second].arrived.put(None)


class _Stream:
    def __init__(self, transport: _Transport, ours: int, theirs: int) -> None:
        self.transport, self.ours, self.theirs = transport, ours, theirs
        self.arrived: queue.Queue[bytes | None] = queue.Queue()
        self.ready = threading.Event()
        self._rest = b""

    def serve(self, service: str) -> None:
        try:
            if service.startswith("shell"):
                self._shell(service.partition(":")[2])
            elif service.startswith("sync:"):
                self._sync()
            self.transport.send(b"CLSE", self.ours, self.theirs)
        except OSError:
            return

    def write(self, content: bytes) -> None:
        for start in range(0, len(content), 1 << 16):
            self.ready.clear()
            self.transport.send(b"WRTE", self.ours, self.theirs, content[start : start + (1 << 16)])
            if not self.ready.wait(10):
                raise ConnectionError

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            part = self.arrived.get()
            if part is None:
                raise ConnectionError
            self._rest += part
        content, self._rest = self._rest[:size], self._rest[size:]
        return content

    def _shell(self, command: str) -> None:
        done = self.transport.phone.shell(command)
        for kind, content in ((1, done.stdout), (2, done.stderr), (3, bytes([done.returncode & 0xFF]))):
            if content:
                self.write(struct.pack("<BI", kind, len(content)) + content)

    def _sync(self) -> None:
        phone = self.transport.phone
        while True:
            kind, size = struct.unpack("<4sI", self.read(8))
            if kind == b"QUIT":
                return
            name = self.read(size).decode()
            path = Path(phone.path(name.rpartition(",")[0] if kind == b"SEND" else name))
            if kind == b"STAT":
                status = path.stat() if path.exists() else None
                values = (status.st_mode, status.st_size, int(status.st_mtime)) if status else (0, 0, 0)
                self.write(b"STAT" + struct.pack("<III", *values))
            elif kind == b"SEND":
                self._store(path)
            elif kind == b"RECV":
                content = path.read_bytes()
                parts = [content[start : start + (1 << 16)] for start in range(0, len(content), 1 << 16)]
                data = b"".join(b"DATA" + struct.pack("<I", len(part)) + part for part in parts)
                self.write(data + b"DONE" + struct.pack("<I", 0))

    def _store(self, path: Path) -> None:
        phone, content = self.transport.phone, b""
        while True:
            kind, size = struct.unpack("<4sI", self.read(8))
            if kind == b"DONE":
                break
            content += self.read(size)
        if phone.corrupts:
            content = content[:-1] + bytes([content[-1] ^ 1])
        try:
            if len(content) > phone.free_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            path.write_bytes(content)
            self.write(b"OKAY" + struct.pack("<I", 0))
        except OSError as error:
            message = f"couldn't write file: {error.strerror}".encode()
            self.write(b"FAIL" + struct.pack("<I", len(message)) + message)


# ------------------------------------------------------------------------------------------- am, pm, pidof and the app


def _option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def _am(words: list[str]) -> None:
    pid_file = Path(os.environ["PHONE_PID"])
    if words[0] == "force-stop":
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        return
    folder = Path(os.environ["PHONE_APP"]) / "files/benchmark" / _option(words, "folder")
    options = [_option(words, name) for name in ("runs", "warmup", "threads", "delegate")]
    app = subprocess.Popen(
        [sys.executable, __file__, "app", str(folder), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pid_file.write_text(str(app.pid))
    print("Status: ok")


def _app(folder: Path, runs: str, warmup: str, threads: str, delegate: str) -> None:
    try:
        result = _measured(folder, runs, warmup, threads, delegate)
    except Exception as error:
        result = {"schema": 1, "kind": "measurement", "error": str(error)}
    time.sleep(0.1)
    (folder / "part").write_text(json.dumps(result))
    (folder / "part").rename(folder / "measurement.json")


def _measured(folder: Path, runs: str, warmup: str, threads: str, delegate: str) -> dict:
    from edge_cv.evaluation import runner

    model, golden = folder / "model.tflite", folder / "golden.bin"
    command = [sys.executable, runner.__file__, str(model), "--runs", runs, "--warmup", warmup, "--threads", threads]
    command += ["--golden", str(golden)] if golden.exists() else []
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode < 0:
        os.kill(os.getpid(), -done.returncode)  # a native crash ends the app
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if events[-1]["event"] == "error":
        raise ValueError(events[-1]["message"])
    latency, samples = [], []
    for event in events:
        if event["event"] == "progress":
            samples += event["samples_ms"]
        elif event["event"] == "latency":
            middle = sorted(samples)[len(samples) // 2]
            entry = {"host": HOST, "runtime": f"tensorflow-lite 2.16.1 {delegate.upper()}", "threads": event["threads"]}
            percentiles = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms"), middle)
            latency.append({**entry, **percentiles, "runs": len(samples), "samples_ms": samples})
            samples = []
    outputs = next(event["outputs"] for event in events if event["event"] == "golden")
    described = {"sha256": hashlib.sha256(golden.read_bytes()).hexdigest(), "images": len(outputs), "outputs": outputs}
    return {
        "schema": 1,
        "kind": "measurement",
        "artifact": {"file": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "device": {"host": HOST, "app": "0.1.0"},
        "latency": latency,
        "peak_memory_bytes": 12_345_678,
        "temperature_c": [31.0, 33.5],
        "clock_mhz": None,
        "golden": described,
    }


def _main(tool: str, words: list[str]) -> int:
    if tool == "am":
        _am(words)
    elif tool == "app":
        _app(Path(words[0]), *words[1:])
    elif tool == "pm" and words == ["path", PACKAGE] and os.environ["PHONE_INSTALLED"]:
        print("package:/data/app/base.apk")
    elif tool == "run-as" and words[0] == PACKAGE:
        return subprocess.run(words[1:], cwd=os.environ["PHONE_APP"], check=False).returncode
    elif tool == "pidof":
        pid = Path(os.environ["PHONE_PID"])
        if pid.exists() and Path(f"/proc/{pid.read_text()}/exe").exists():
            print(pid.read_text())
            return 0
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
