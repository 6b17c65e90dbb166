"""One ssh connection to a device, with the agent (`agent.py`) at its other end.

The user's own ssh configuration, keys, ssh-agent and known hosts are used, and no question is asked. One ssh process
transfers everything: the agent's source, the files, the requests and the answers. The agent removes its folder when the
connection ends, whichever side ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from converters import strict_json
from converters.errors import InputError
from edge_cv.evaluation.remote.address import Ssh
from edge_cv.evaluation.remote.ssh_errors import refusal

AGENT = Path(__file__).with_name("agent.py")
OPTIONS = {
    "BatchMode": "yes",  # never ask a question
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",  # with the next option: a lost connection is noticed after 15 to 20 seconds
    "ServerAliveCountMax": "3",
    "ControlPath": "none",  # a shared connection would have other settings
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",
}
# Must run in any Python and pass any shell: no line breaks, and only characters that shlex can quote.
BOOT = (
    "import os,sys;sys.version_info<(3,8) and sys.exit('edge-cv: Python %d.%d'%sys.version_info[:2]);"
    "exec(compile(b''.join(os.read(0,1) for _ in range(int(sys.argv[1]))),'agent.py','exec'),{'__name__':'__main__'})"
)
MAX_LINE = 1 << 26  # bytes
MAX_NOISE_LINES = 200  # output of the login shell's profile before the agent's first event
CONNECT_SECONDS = 120.0  # until the agent's first event
SILENCE_SECONDS = 300.0  # between two events: opening a large model on a slow board takes minutes
LEAST_BYTES_PER_SECOND = 10_000
_CHUNK = 1 << 16
_ERROR_BYTES = 8192  # the end of stderr that is kept
_RUNNING = "before it finished"


class Session:
    """A connection to an agent on the device; a context manager.

    Raises:
        InputError: ssh is not installed, the device cannot be reached, or its Python cannot run the agent.
    """

    _process: subprocess.Popen[bytes]
    _stdin: IO[bytes]
    _stdout: IO[bytes]
    _errors: IO[bytes]
    _drain: threading.Thread

    def __init__(self, address: Ssh) -> None:
        self.address, self._error_end = address, b""

    def __enter__(self) -> Session:
        agent = AGENT.read_bytes()
        command = _command(self.address, len(agent))
        # In a session of its own, so that Ctrl-C interrupts this process, which then ends the connection.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)  # a pipe, as the line above asks
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._errors = cast("IO[bytes]", self._process.stderr)
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()
        try:
            with self._within(CONNECT_SECONDS):
                with contextlib.suppress(BrokenPipeError):
                    self._send(agent)
                self._wait_for_agent()
        except BaseException as error:
            self.__exit__(error)
            raise
        return self

    def __exit__(self, failed: object = None, *_: object) -> None:
        if failed is not None:
            self._process.kill()  # a full pipe would block; the agent sees the end of the connection
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # for the agent to clean up
        self._process.kill()
        self._process.wait()
        self._stdout.close()
        self._drain.join(1)

    def send(self, name: str, content: bytes) -> None:
        """Store a file in the agent's folder and check its hash there.

        Raises:
            InputError: the file cannot be stored or arrives changed, or the device disconnects.
        """
        when = f"while {name} was sent"
        with self._within(SILENCE_SECONDS + len(content) / LEAST_BYTES_PER_SECOND):
            try:
                self._request(do="file", name=name, size=len(content))
                for start in range(0, len(content), _CHUNK):
                    self._send(content[start : start + _CHUNK])
            except BrokenPipeError:
                raise self._disconnected(when) from None
            event = self._next_event(when)
        if event["event"] == "failed":
            reason = strict_json.message(event.get("message"))
            raise InputError(f"{self.address} cannot store {name} ({len(content):,} bytes): {reason}")
        digest = hashlib.sha256(content).hexdigest()
        if event.get("sha256") != digest:
            raise InputError(
                f"{name} must arrive unchanged on {self.address}, with SHA-256 {digest[:12]}; try again. "
                f"Received there: {event.get('sha256')!r:.14}"
            )

    def start(self, script: str, arguments: Sequence[object]) -> None:
        """Run a script that was sent. `arguments` that begin with `./` are files that were sent."""
        try:
            self._request(do="run", script=script, arguments=list(map(str, arguments)))
        except BrokenPipeError:
            raise self._disconnected(_RUNNING) from None

    def events(self) -> Iterator[dict[str, Any]]:
        """The script's events until it ends.

        Raises:
            InputError: the script reports an error or dies, or the device disconnects.
        """
        while True:
            event = self.event()
            if event["event"] == "exit":
                code = strict_json.integer(event.get("code"), "an exit code", -1000, 1000)
                if code:
                    raise InputError(f"the runtime on {self.address} ended with {self._cause(code)}")
                return
            yield event

    def event(self) -> dict[str, Any]:
        """The script's next event. Raises InputError as `events` does."""
        with self._within(SILENCE_SECONDS):
            event = self._next_event(_RUNNING)
        if event["event"] in ("error", "failed"):
            raise InputError(f"{self.address}: {strict_json.message(event.get('message'))}")
        return event

    def write(self, content: bytes) -> None:
        """Write to the script's stdin. Raises InputError if the device disconnected."""
        with self._within(SILENCE_SECONDS + len(content) / LEAST_BYTES_PER_SECOND):
            try:
                self._send(content)
            except BrokenPipeError:
                raise self._disconnected(_RUNNING) from None

    def read(self, size: int) -> bytes:
        """The `size` bytes that follow an event. Raises InputError if the device disconnects."""
        with self._within(SILENCE_SECONDS + size / LEAST_BYTES_PER_SECOND):
            content = self._stdout.read(size)
            if len(content) < size:
                raise self._disconnected(_RUNNING)
            return content

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """A context in which the device must do its part in time; else the connection is closed.

        Raises:
            InputError: the time is over.
        """
        late = threading.Event()

        def close() -> None:
            late.set()
            self._process.kill()  # what waits for the device sees the end of the connection

        timer = threading.Timer(seconds, close)
        timer.daemon = True
        timer.start()
        try:
            yield
        except InputError as error:
            if late.is_set():
                raise InputError(f"{self.address} must answer within {seconds:.0f} s. Received: no answer") from error
            raise
        finally:
            timer.cancel()

    def _wait_for_agent(self) -> None:
        for _ in range(MAX_NOISE_LINES):
            line = self._stdout.readline(MAX_LINE)
            if not line:
                break
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "failed":
                    raise InputError(f"{self.address}: {strict_json.message(event.get('message'))}")
                if isinstance(event, dict) and event.get("event") == "agent":
                    return
        raise refusal(self.address, self._exit_code(), self._error_lines())

    def _next_event(self, when: str) -> dict[str, Any]:
        line = self._stdout.readline(MAX_LINE)
        if len(line) == MAX_LINE:
            raise InputError(
                f"{self.address} must answer with lines of at most {MAX_LINE:,} bytes. Received: a longer one"
            )
        if not line.endswith(b"\n"):
            raise self._disconnected(when)
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise InputError(f"{self.address} must answer with events. Received: {line[:60]!r}")
        return event

    def _request(self, **fields: object) -> None:
        self._send(json.dumps(fields).encode() + b"\n")

    def _send(self, content: bytes) -> None:
        self._stdin.write(content)
        self._stdin.flush()

    def _cause(self, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{name}: the file is corrupt, or memory ran out"
        lines = self._error_lines()
        return f"exit code {code}" + (f": {lines[-1]}" if lines else "")

    def _exit_code(self) -> int:
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _read_errors(self) -> None:
        """Keep the end of stderr, in a thread of its own: a device may write without end."""
        with self._errors:
            while content := os.read(self._errors.fileno(), _CHUNK):
                self._error_end = (self._error_end + content)[-_ERROR_BYTES:]

    def _error_lines(self) -> list[str]:
        """The last lines of stderr, from ssh and from the device."""
        self._drain.join(1)
        lines = self._error_end.decode(errors="replace").splitlines()
        return [strict_json.message(line[:250]) for line in lines if line.strip()]

    def _disconnected(self, when: str) -> InputError:
        self._exit_code()
        lines = self._error_lines()
        return InputError(f"{self.address} disconnected {when}" + (f": {lines[-1]}" if lines else ""))


def _command(address: Ssh, agent_bytes: int) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise InputError("ssh must be installed (apt-get install openssh-client). Received: no such program")
    command = [program, "-T", *(word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}"))]
    command += ["-p", str(address.port)] if address.port else []
    command += ["-l", address.user] if address.user else []
    return [
        *command,
        "--",
        address.host,
        shlex.join([address.python, "-I", "-c", BOOT, str(agent_bytes), address.python]),
    ]
