"""A Ray cluster: whole runs on its nodes, one a node, or the photos of an evaluation on all its processors.

Ray is an extra (`pip install 'edge-cv[ray]'`). The address `local` starts a cluster of this one machine and ends it
again.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from converters.errors import InputError
from converters.packages import require

LOCAL = "local"
CONNECT_SECONDS = 10
_LOCAL_STORE_BYTES = 512 * 2**20  # of objects in a local cluster: chunks of photos in transit


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: its id, and how many processors and GPUs it has."""

    id: str
    cpus: int
    gpus: int


class RayCluster:
    """A connected cluster.

    Attributes:
        nodes: its machines with at least one processor.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
        self.nodes = tuple(
            Node(name, int(has["CPU"]), int(has.get("GPU", 0))) for name, has in alive if has.get("CPU", 0) >= 1
        )

    @property
    def cpus(self) -> int:
        """Processors of all nodes."""
        return sum(node.cpus for node in self.nodes)

    def one_a_node(
        self, work: Callable[..., Any], tasks: Sequence[tuple], gpu: Sequence[bool]
    ) -> Iterator[tuple[int, Any]]:
        """Run `work(*task)` for each task, each in a fresh process that has a whole node to itself.

        Args:
            work: a function of a module; its result is sent back.
            tasks: the arguments of each call.
            gpu: for each task, whether it may use the node's GPUs; other processes do not see them.

        Yields:
            The place of each task and its result, or the exception that ended it, as they finish.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self._ray.remote(max_calls=1, max_retries=0)(work)
        pending = list(range(len(tasks)))[::-1]
        running: dict[Any, tuple[int, Node]] = {}

        def start(node: Node) -> None:
            place = pending.pop()
            chosen = remote.options(
                num_cpus=node.cpus,
                num_gpus=node.gpus if gpu[place] else 0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            running[chosen.remote(*tasks[place])] = place, node

        for node in self.nodes[: len(tasks)]:
            start(node)
        while running:
            (done,), _ = self._ray.wait(list(running))
            place, node = running.pop(done)
            try:
                yield place, self._ray.get(done)
            except Exception as error:  # from the work, or from Ray if a process or a node died
                yield place, getattr(error, "cause", None) or error
            if pending:
                start(node)

    def pool(self, start: Callable[..., None], given: tuple) -> Pool:
        """An executor on all processors of the cluster.

        Args:
            start: called with `given` in a worker before each task; it must do its work only once in a process.
            given: its arguments, which are sent to each node once.
        """
        return Pool(self._ray, start, given)


class Pool:
    """An executor with `submit` and `shutdown`, on all processors of a cluster."""

    def __init__(self, ray: Any, start: Callable[..., None], given: tuple) -> None:
        self._ray, self._start, self._given = ray, start, ray.put(given)
        self._call = ray.remote(num_cpus=1, max_retries=1)(_started)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        """Run `work(*arguments)` on some processor."""
        return Future(self._ray, self._call.remote(self._start, self._given, work, *arguments))

    def shutdown(self, **_: Any) -> None:
        """Do nothing: the tasks end with the connection."""


@dataclass(frozen=True)
class Future:
    """The result of a task, once it has finished."""

    ray: Any
    reference: Any

    def result(self) -> Any:
        """Wait for the result; raises what the work raised, or BrokenProcessPool if its process died."""
        from loky.process_executor import BrokenProcessPool

        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise BrokenProcessPool(" ".join(str(error).split())) from error


def _started(start: Callable[..., None], given: tuple, work: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: call `start(*given)`, then do the work."""
    start(*given)
    return work(*arguments)


def _check_reachable(address: str) -> None:
    """Raise InputError if no process listens at the address; Ray itself would try for minutes."""
    if address in (LOCAL, "auto"):
        return
    parts = re.fullmatch(r"(?:ray://)?(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5})", address)
    why = "no HOST:PORT"
    if parts is not None:
        try:
            socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), CONNECT_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            why = str(error)
    raise _no_cluster(address, why)


def _no_cluster(address: str, why: str) -> InputError:
    return InputError(
        f"the address of a Ray cluster must be HOST:PORT of a running one, or {LOCAL}. Received: {address} ({why})"
    )


@contextlib.contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Context after which SIGTERM has its handler again: Ray installs one that exits with code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def connected(address: str) -> Iterator[RayCluster]:
    """Connect to a cluster.

    Args:
        address: such as `10.0.0.5:6379` or `ray://10.0.0.5:10001`; `local` starts a cluster of this machine.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics for Ray's authors
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    require("a cluster", "ray")
    import loky
    import ray

    _check_reachable(address)
    options: dict[str, Any] = {"address": address, "logging_level": "error"}
    if address == LOCAL:
        options |= {
            "num_cpus": loky.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": _LOCAL_STORE_BYTES,
        }
    try:
        with _kept_sigterm():
            ray.init(**options)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, errors of grpc ...
        raise _no_cluster(address, " ".join(str(error).split())[:200]) from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()
