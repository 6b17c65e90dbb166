"""`--device` as text and as a value: this machine, one reached by ssh, or a phone reached by adb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from converters.errors import InputError

DELEGATES = ("xnnpack", "cpu", "gpu", "nnapi")
# No name may begin like an option, nor hold what a shell or the proxy command of somebody's ssh_config would obey.
_NAME = r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"
_SSH = re.compile(
    rf"ssh://(?:({_NAME})@)?({_NAME}|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])(?::(\d{{1,5}}))?/?(?:\?(.*))?"
)
_ADB = re.compile(r"adb(?::([A-Za-z0-9_.][A-Za-z0-9_.:-]*))?(?:\?(.*))?")
FORMS = "host, ssh://[user@]host[:port][?python=PATH] or adb[:serial][?delegate=gpu]"


@dataclass(frozen=True)
class Host:
    """This machine."""

    def __str__(self) -> str:
        return "host"


@dataclass(frozen=True)
class Ssh:
    """A machine that OpenSSH's client reaches; `host` may be an alias of ~/.ssh/config.

    Attributes:
        python: the Python to use over there: a command, an absolute path, or one relative to the user's home.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Adb:
    """A phone that adb reaches; without a serial number the only one. `delegate` is what runs the artifact there."""

    serial: str | None = None
    delegate: str = "xnnpack"

    def __str__(self) -> str:
        return f"adb:{self.serial}" if self.serial else "adb"


Address = Host | Ssh | Adb


def parse(device: str) -> Address:
    """The device that the text stands for; InputError for anything else."""
    if device == "host":
        return Host()
    if match := _SSH.fullmatch(device):
        user, host, port, query = match.groups()
        if port is not None and not 0 < int(port) < 1 << 16:
            raise InputError(f"a port must be in 1..65535. Received: {device!r}")
        python = _option(device, query, "python") or "python3"
        if not python.isprintable() or python.startswith("-"):
            raise InputError(f"python must be the path of a program. Received: {python!r}")
        return Ssh(host.strip("[]"), user, port and int(port), python)
    if match := _ADB.fullmatch(device):
        serial, query = match.groups()
        delegate = _option(device, query, "delegate") or DELEGATES[0]
        if delegate not in DELEGATES:
            raise InputError(f"delegate must be one of {', '.join(DELEGATES)}. Received: {delegate!r}")
        return Adb(serial, delegate)
    raise InputError(f"--device must be {FORMS}. Received: {device!r}")


def _option(device: str, query: str | None, name: str) -> str | None:
    if not query:
        return None
    key, _, value = query.partition("=")
    if key != name or not value:
        raise InputError(f"what follows the ? of a device must be {name}=... Received: {device!r}")
    return unquote(value)
