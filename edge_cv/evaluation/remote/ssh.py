"""One connection by OpenSSH's client to a device, and the agent at its other end.

The user's own ssh configuration, keys, agent and known hosts are used; nothing is asked for. One process of ssh carries
everything: the agent's source, the files, the requests and the answers. The agent removes its folder when the
connection ends, whichever side ended it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from converters.errors import InputError
from edge_cv import strict_json
from edge_cv.evaluation.remote.address import Ssh

AGENT = Path(__file__).with_name("agent.py")
OPTIONS = {
    "BatchMode": "yes",  # no question that nobody answers
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",  # with the next: a device that vanished is noticed after 15 to 20 seconds
    "ServerAliveCountMax": "3",
    "ControlPath": "none",  # a connection shared with others would have their settings
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",
}
# Runs under any Python, and in any shell: no line breaks, and nothing but what shlex quotes.
BOOT = (
    "import os,sys;sys.version_info<(3,8) and sys.exit('edge-cv: Python %d.%d'%sys.version_info[:2]);"
    "exec(compile(b''.join(os.read(0,1) for _ in range(int(sys.argv[1]))),'agent.py','exec'),{'__name__':'__main__'})"
)
MAX_LINE = 1 << 26
MAX_NOISE_LINES = 200  # what a login shell's profile may print before the agent speaks
_CHUNK = 1 << 16


class Session:
    """A connection with an agent behind it; a context manager.

    Raises:
        InputError: there is no ssh, no connection or no Python over there that will do.
    """

    def __init__(self, address: Ssh) -> None:
        self.address = address

    def __enter__(self) -> Session:
        program = shutil.which("ssh")
        if program is None:
            raise InputError("ssh must be installed (apt-get install openssh-client). Received: no such program")
        agent = AGENT.read_bytes()
        address = self.address
        remote = shlex.join([address.python, "-I", "-c", BOOT, str(len(agent)), address.python])
        command = [program, "-T", *(word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}"))]
        command += ["-p", str(address.port)] if address.port else []
        command += ["-l", address.user] if address.user else []
        self._errors = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches this process, which then ends the connection.
        self._process = subprocess.Popen(
            [*command, "--", address.host, remote],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            with contextlib.suppress(BrokenPipeError):
                self._write(agent)
            self._greet()
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, failed: object = None, *_: object) -> None:
        if failed is not None:
            self._process.kill()  # a pipe that nobody reads would block; the agent sees the end of the connection
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # the agent cleans up and ends
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def send(self, name: str, content: bytes) -> None:
        """Writes a file into the folder over there and checks that it arrived whole.

        Raises:
            InputError: it cannot be written there, is not the same there, or the device went away.
        """
        try:
            self._request(do="file", name=name, size=len(content))
            for start in range(0, len(content), _CHUNK):
                self._write(content[start : start + _CHUNK])
        except BrokenPipeError:
            raise self._lost(f"while {name} was sent") from None
        event = self._answer(f"while {name} was sent")
        if event["event"] == "failed":
            why = _text(event.get("message"))
            raise InputError(f"{self.address} cannot store {name} ({len(content):,} bytes): {why}")
        if event.get("sha256") != hashlib.sha256(content).hexdigest():
            raise InputError(f"{name} must arrive whole on {self.address}. Received there: other bytes; try again")

    def start(self, script: str, arguments: Sequence[object]) -> None:
        """Runs a script that was sent; words of `arguments` that begin with `./` are files that were sent."""
        try:
            self._request(do="run", script=script, arguments=list(map(str, arguments)))
        except BrokenPipeError:
            raise self._lost("before it was done") from None

    def events(self) -> Iterator[dict[str, Any]]:
        """What the script tells, until it ends.

        Raises:
            InputError: the script reports an error or dies, or the device went away.
        """
        while True:
            event = self.event()
            if event["event"] == "exit":
                code = strict_json.integer(event.get("code"), "an exit code", -1000, 1000)
                if code:
                    raise InputError(f"the runtime on {self.address} ended with {self._how(code)}")
                return
            yield event

    def event(self) -> dict[str, Any]:
        """The next one; raises as `events` does."""
        event = self._answer("before it was done")
        if event["event"] in ("error", "failed"):
            raise InputError(f"{self.address}: {_text(event.get('message'))}")
        return event

    def exchange(self, request: bytes) -> None:
        """Sends bytes to the script's own stdin; InputError when the device went away."""
        try:
            self._write(request)
        except BrokenPipeError:
            raise self._lost("before it was done") from None

    def read(self, size: int) -> bytes:
        """So many bytes that the script writes behind an event; InputError when the device went away."""
        content = self._process.stdout.read(size)
        if len(content) < size:
            raise self._lost("before it was done")
        return content

    def _greet(self) -> None:
        for _ in range(MAX_NOISE_LINES):
            line = self._process.stdout.readline(MAX_LINE)
            if not line:
                break
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "failed":
                    raise InputError(f"{self.address}: {_text(event.get('message'))}")
                if isinstance(event, dict) and event.get("event") == "agent":
                    return
        raise self._refused()

    def _answer(self, when: str) -> dict[str, Any]:
        line = self._process.stdout.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise self._lost(when)
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise InputError(f"{self.address} must answer with events. Received: {line[:60]!r}")
        return event

    def _request(self, **fields: object) -> None:
        self._write(json.dumps(fields).encode() + b"\n")

    def _write(self, content: bytes) -> None:
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _how(self, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{name}: the file must be corrupt, or memory ran out"
        said = self._said()
        return f"exit code {code}" + (f": {said[-1]}" if said else "")

    def _ended(self) -> int:
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _said(self) -> list[str]:
        """The last lines on stderr, ssh's own and the device's."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 8192))
        lines = self._errors.read().decode(errors="replace").splitlines()
        return [_text(line[:250]) for line in lines if line.strip()]

    def _lost(self, when: str) -> InputError:
        self._ended()
        said = self._said()
        return InputError(f"{self.address} vanished {when}" + (f": {said[-1]}" if said else ""))

    def _refused(self) -> InputError:
        """Why there is no agent, in words that help."""
        code, said, address = self._ended(), self._said(), self.address
        whole, last = "\n".join(said), said[-1] if said else "nothing was said"
        where = ("-p " + str(address.port) + " " if address.port else "") + (f"{address.user}@" if address.user else "")
        where += address.host
        entry = f"[{address.host}]:{address.port}" if address.port and address.port != 22 else address.host
        if old := re.search(r"edge-cv: Python (\d+\.\d+)|Unknown option: -I", whole):
            had = old[1] or "2"
            return InputError(f"{address} must have Python 3.8 or later; name one: ?python=PATH. Received: {had}")
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in whole:
            return InputError(
                f"{address} has another host key than the known one: somebody may be in between, or it was set up "
                f"anew. If you know that it was: ssh-keygen -R {shlex.quote(entry)}, then accept the new key"
            )
        if "Host key verification failed" in whole or "host key is known" in whole:
            return InputError(
                f"{address} has a host key that is not known: connect once by hand, ssh {where}, and accept its "
                "fingerprint after comparing it with the device's own"
            )
        if "Permission denied" in whole and code == 255:
            return InputError(
                f"{address} refuses the login ({last}): passwords are not asked for; let your key in by "
                f"ssh-copy-id {where}"
            )
        if code == 255:
            return InputError(f"{address} cannot be reached: {last}")
        if code in (126, 127):
            return InputError(
                f"{address} must have {address.python}: sudo apt install python3, or name another by ?python=PATH. "
                f"Received: {last}"
            )
        return InputError(f"{address}: {address.python} does not start (exit code {code}): {last}")


def _text(value: Any) -> str:
    return strict_json.message(value)
