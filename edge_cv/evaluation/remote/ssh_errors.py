"""Why an ssh connection failed: the message for each kind of refusal, with what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from converters.errors import InputError
from edge_cv.evaluation.remote.address import Ssh


def refusal(address: Ssh, code: int, lines: Sequence[str]) -> InputError:
    """The error for a connection that ended before the agent answered.

    Args:
        address: the device.
        code: exit code of the ssh client.
        lines: the last lines of its stderr.
    """
    text, last = "\n".join(lines), lines[-1] if lines else "no message"
    if old := re.search(r"edge-cv: Python (\d+\.\d+)|Unknown option: -I", text):
        version = old[1] or "2"
        return InputError(f"{address} must have Python 3.8 or later; choose one with ?python=PATH. Received: {version}")
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return InputError(
            f"{address} has a different host key than before: the connection is intercepted, or the device was "
            f"reinstalled. If it was reinstalled: ssh-keygen -R {shlex.quote(_known_hosts_entry(address))}, "
            "then accept the new key"
        )
    if "Host key verification failed" in text or "host key is known" in text:
        return InputError(
            f"{address} has an unknown host key: connect once by hand, ssh {_destination(address)}, and accept its "
            "fingerprint after comparing it with the device's own"
        )
    if "Permission denied" in text and code == 255:
        return InputError(
            f"{address} refuses the login ({last}). Passwords are not supported; install your key with "
            f"ssh-copy-id {_destination(address)}"
        )
    if code == 255:
        return InputError(f"{address} cannot be reached: {last}")
    if code in (126, 127):
        return InputError(
            f"{address} must have {address.python}: sudo apt install python3, or choose another with ?python=PATH. "
            f"Received: {last}"
        )
    return InputError(f"{address}: {address.python} does not start (exit code {code}): {last}")


def _destination(address: Ssh) -> str:
    port = f"-p {address.port} " if address.port else ""
    return port + (f"{address.user}@" if address.user else "") + address.host


def _known_hosts_entry(address: Ssh) -> str:
    return f"[{address.host}]:{address.port}" if address.port and address.port != 22 else address.host
