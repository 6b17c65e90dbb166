"""Commands on one Android phone through adb's client."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from converters import strict_json
from converters.errors import InputError
from edge_cv.evaluation.remote.address import Adb

_COMMAND_SECONDS, _TRANSFER_SECONDS = 60, 600
MAX_OUTPUT = 1 << 20  # bytes of a command's output
MAX_FILE = 1 << 26  # bytes of a file from the phone: a measurement
# states in the output of `adb devices` in which a phone cannot be used, and what to do
_STATES = {
    "unauthorized": "has not authorized this computer: unlock it and accept the USB debugging prompt",
    "authorizing": "is still asking whether to authorize this computer: unlock it and accept",
    "offline": "does not answer: disconnect and reconnect it, or run `adb reconnect`",
    "no permissions": "may not be opened by this user: see https://developer.android.com/tools/device.html",
}
_DISCONNECTED = re.compile(r"(adb: )?error: .*(device offline|device .* not found|no devices|closed)")


class AdbClient:
    """adb's client for one phone.

    Attributes:
        name: the phone's address, for messages.
    """

    def __init__(self, address: Adb) -> None:
        """Find the phone. Raises InputError if adb is not installed or the phone cannot be used."""
        program = shutil.which("adb")
        if program is None:
            raise InputError("adb must be installed (apt-get install adb). Received: no such program")
        self._command, self.name = [program], str(address)
        self._command = [program, "-s", self._serial(address)]

    def shell(self, *words: str) -> str:
        """The stdout of a command on the phone. The words are the caller's own and are not quoted."""
        return self._run("shell", *words, seconds=_COMMAND_SECONDS, most=MAX_OUTPUT).stdout

    def read(self, *words: str) -> str:
        """As `shell`, for a command that prints a file."""
        return self._run("shell", *words, seconds=_TRANSFER_SECONDS, most=MAX_FILE).stdout

    def transfer(self, *words: str) -> None:
        """`push` or `pull` a file. Raises InputError if that fails."""
        process = self._run(*words, seconds=_TRANSFER_SECONDS, most=MAX_FILE)
        if process.returncode:
            raise InputError(f"{self.name} cannot {words[0]} {Path(words[-1]).name}: {_error_line(process)}")

    def _serial(self, address: Adb) -> str:
        process = self._run("devices", seconds=_COMMAND_SECONDS)
        if process.returncode:
            raise InputError(f"adb does not start: {_error_line(process)}")
        lines = [line.split("\t", 1) for line in process.stdout.splitlines() if "\t" in line]
        phones = dict(lines)
        connected = ", ".join(phones) or "none"
        if address.serial is None:
            if not phones:
                raise InputError("a phone must be connected, with USB debugging on. Received: none in `adb devices`")
            if len(phones) > 1:
                raise InputError(f"device must be one of the connected phones, adb:SERIAL. Received: {connected}")
        serial = address.serial or next(iter(phones))
        if serial not in phones:
            raise InputError(f"adb:{serial} must be connected. Received: {connected} in `adb devices`")
        self.name, state = f"adb:{serial}", phones[serial]
        if state != "device":
            remedy = next((words for name, words in _STATES.items() if state.startswith(name)), f"is in state {state}")
            raise InputError(f"{self.name} {remedy}")
        return serial

    def _run(self, *words: str, seconds: float, most: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run adb; `most` is the largest size in bytes of its output, and of a file that it writes."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([*self._command, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            try:
                if most is not None:  # not of `adb devices`, whose server keeps the limit for its log
                    with contextlib.suppress(ProcessLookupError):  # it has ended
                        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                received = f"adb {words[0]} took more than {seconds:.0f} s"
                raise InputError(f"{self.name} does not answer: {received}") from None
            finally:
                process.kill()
                process.wait()
            if process.returncode == -signal.SIGXFSZ:
                raise InputError(f"{self.name} must answer adb {words[0]} with at most {most:,} bytes. Received: more")
            texts = []
            for stream in (output, errors):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        done = subprocess.CompletedProcess(process.args, process.returncode, *texts)
        if done.returncode and _DISCONNECTED.match(_error_line(done)):
            raise InputError(f"{self.name} disconnected before it finished: {_error_line(done)}")
        return done


def _error_line(process: subprocess.CompletedProcess[str]) -> str:
    """adb's error message, which may be on either stream, or else the last line of output."""
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "adb: error:"))]
    return strict_json.message((errors or lines or [f"exit code {process.returncode}"])[-1])
