"""The address of a device, as text and as a value: this machine, a machine reached by ssh or a phone reached by adb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from converters.errors import InputError

DELEGATES = ("xnnpack", "cpu", "gpu", "nnapi")
# No name may begin like an option or contain characters that a shell or a ProxyCommand in ssh_config would interpret.
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
    """A machine reached by OpenSSH's client.

    Attributes:
        host: its name or address, or an alias from ~/.ssh/config.
        user: the user on the device; None is the client's default.
        port: None is the client's default.
        python: the Python on the device: a command, an absolute path, or a path relative to the user's home.
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
    """A phone reached by adb.

    Attributes:
        serial: its serial number; None is the only connected phone.
        delegate: the TFLite delegate that runs the model: one of `DELEGATES`.
    """

    serial: str | None = None
    delegate: str = "xnnpack"

    def __str__(self) -> str:
        return f"adb:{self.serial}" if self.serial else "adb"


Address = Host | Ssh | Adb


def parse(device: str) -> Address:
    """The address in a text of one of the `FORMS`; InputError for any other text."""
    if device == "host":
        return Host()
    if match := _SSH.fullmatch(device):
        user, host, port, query = match.groups()
        if port is not None and not 0 < int(port) < 1 << 16:
            raise InputError(f"a port must be in 1..65535. Received: {device!r}")
        python = _option(device, query, "python") or "python3"
        if not python.isprintable() or python.startswith("-"):
            raise InputError(f"python must be the path of a program. Received: {python!r}")
        return Ssh(host.strip("[]"), user, None if port is None else int(port), python)
    if match := _ADB.fullmatch(device):
        serial, query = match.groups()
        delegate = _option(device, query, "delegate") or DELEGATES[0]
        if delegate not in DELEGATES:
            raise InputError(f"delegate must be one of {', '.join(DELEGATES)}. Received: {delegate!r}")
        return Adb(serial, delegate)
    raise InputError(f"device must be {FORMS}. Received: {device!r}")


def _option(device: str, query: str | None, name: str) -> str | None:
    if not query:
        return None
    key, _, value = query.partition("=")
    if key != name or not value:
        raise InputError(f"the text after ? in device must be {name}=VALUE. Received: {device!r}")
    return unquote(value)
