"""Addresses of devices, and the scripts that are copied to them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv.evaluation import runner
from edge_cv.evaluation.remote import Ssh, agent, parse


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=touch",
        "ssh://-l@host",
        "ssh://a b",
        "ssh://host;ls",
        "ssh://$(x)@host",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host?python=-c",
        "ssh://host?config=x",
        "ssh://",
        "adb:-s",
        "adb:a b",
        "adb?delegate=npu",
        "phone",
        "",
    ],
)
def test_invalid_addresses_are_refused(text):
    with pytest.raises(InputError, match=r"(must be|Received)"):
        parse(text)


def test_addresses_are_parsed():
    assert parse("ssh://pi@raspberrypi.local") == Ssh("raspberrypi.local", "pi")
    assert parse("ssh://MyPi:2222?python=venv/bin/python3") == Ssh("MyPi", None, 2222, "venv/bin/python3")
    assert parse("ssh://pi@[fe80::1%eth0]:22") == Ssh("fe80::1%eth0", "pi", 22)
    assert str(parse("ssh://pi@[::1]:22")) == "ssh://pi@[::1]:22"
    assert str(parse("adb:192.168.0.2:5555?delegate=gpu")) == "adb:192.168.0.2:5555"


def test_copied_scripts_are_python_3_8():
    for module in (agent, runner):
        ast.parse(Path(module.__file__).read_text(), feature_version=(3, 8))
