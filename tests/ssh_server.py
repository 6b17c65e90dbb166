"""An OpenSSH server on loopback, and a proxy in front of it whose connections can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
ALIAS = "device-under-test"  # the name of the server in known_hosts, for every port


class Server:
    """sshd, run by the current user with new keys and its own TMPDIR until `stop`.

    Args:
        folder: an empty folder for keys and configuration.
        path: PATH of the sessions on the server, whose home folder is then empty; None keeps sshd's defaults.

    Attributes:
        port: its port on 127.0.0.1.
        tmp: TMPDIR of the programs that it runs.
        search_path: a PATH whose first `ssh` reads `config` instead of ~/.ssh/config.
        config, known_hosts: the client's files; `raspberrypi` is an alias of the server.
    """

    def __init__(self, folder: Path, *, path: str | None = None) -> None:
        self.tmp, self.config, self.known_hosts = folder / "tmp", folder / "ssh_config", folder / "known_hosts"
        self.tmp.mkdir()
        for name in ("host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        self.host_key = (folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"{ALIAS} {self.host_key}")
        self.port = free_port()
        self.config.write_text(
            f"Host raspberrypi\n HostName 127.0.0.1\n Port {self.port}\n"
            f"Host *\n IdentityFile {folder}/client_key\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.known_hosts}\n GlobalKnownHostsFile /dev/null\n HostKeyAlias {ALIAS}\n"
        )
        tools = folder / "bin"
        tools.mkdir()
        (tools / "ssh").write_text(f'#!/bin/sh\nexec "{SSH}" -F "{self.config}" "$@"\n')
        (tools / "ssh").chmod(0o755)
        self.search_path = f"{tools}:{os.environ['PATH']}"
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv TMPDIR={self.tmp}{f' PATH={path} HOME={self.tmp}' if path else ''}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # which sshd requires and only its service creates
        self._log = (folder / "sshd.log").open("wb")
        command = [SSHD, "-D", "-e", "-f", folder / "sshd_config"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise RuntimeError((folder / "sshd.log").read_text())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def left(self, seconds: float = 60) -> list[str]:
        """Names in `tmp`; waits at most `seconds` for it to become empty."""
        end = time.monotonic() + seconds
        while (names := os.listdir(self.tmp)) and time.monotonic() < end:
            time.sleep(0.1)
        return names


class Wire:
    """A proxy of the server that forwards at most `carries` bytes to it, until `cut` or `freeze`."""

    def __init__(self, port: int, *, carries: int = 1 << 40) -> None:
        self.sent, self._carries, self._target, self._frozen = 0, carries, port, False
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for end in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def freeze(self) -> None:
        """Stop forwarding without closing any connection."""
        self._frozen = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                device = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, device]
                for source, target, counted in ((client, device, True), (device, client, False)):
                    threading.Thread(target=self._carry, args=(source, target, counted), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 14):
                if self._frozen:
                    continue
                self.sent += len(content) if counted else 0
                if self.sent > self._carries:
                    break
                target.sendall(content)
            if not self._frozen:
                for end in (source, target):
                    end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
