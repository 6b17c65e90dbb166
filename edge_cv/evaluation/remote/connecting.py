"""From an address to the device."""

from __future__ import annotations

from edge_cv.evaluation.remote.address import Adb, Ssh
from edge_cv.evaluation.remote.board import Board
from edge_cv.evaluation.remote.device import RemoteDevice
from edge_cv.evaluation.remote.phone import Phone


def connect(address: Ssh | Adb) -> RemoteDevice:
    """The device at the address. The connection is opened when the device is first used."""
    return Board(address) if isinstance(address, Ssh) else Phone(address)
