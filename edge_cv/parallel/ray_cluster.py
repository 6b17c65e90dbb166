"""A Ray cluster: whole runs on its nodes, one a node, or an evaluation's photos on all its processors.

Ray is an extra (`pip install 'edge-cv[ray]'`). `local` starts a cluster of this one machine and ends it again.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from converters.errors import InputError

LOCAL = "local"
CONNECT_SECONDS = 10
_LOCAL_STORE_BYTES = 512 * 2**20  # of objects in a cluster of our own: chunks of photos on their way


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: its id, and what it has of processors and GPUs."""

    id: str
    cpus: int
    gpus: int


class RayCluster:
    """A cluster that is connected.

    Attributes:
        nodes: its machines that have processors to give.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        found = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
        self.nodes = tuple(
            Node(name, int(has["CPU"]), int(has.get("GPU", 0))) for name, has in found if has.get("CPU", 0) >= 1
        )

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    def one_a_node(
        self, work: Callable[..., Any], tasks: Sequence[tuple], gpu: Sequence[bool]
    ) -> Iterator[tuple[int, Any]]:
        """`work(*task)` for each task, each in a fresh process that has a whole node to itself.

        Args:
            work: a function of a module; its result is sent back.
            tasks: its arguments.
            gpu: whether each may use the node's GPUs, which other processes do not see.

        Yields:
            The place of each task and its result, or the exception that it ended with, as they come.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self._ray.remote(max_calls=1, max_retries=0)(work)
        following, running = list(range(len(tasks)))[::-1], {}

        def start(node: Node) -> None:
            place = following.pop()
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
            except Exception as error:  # of the work or of Ray: a process or a node that died
                yield place, getattr(error, "cause", None) or error
            if following:
                start(node)

    def pool(self, start: Callable[..., None], given: tuple) -> Pool:
        """An executor on all processors of the cluster.

        Args:
            start: called with `given` in a worker before each task; it must do its work only once in a process.
            given: its arguments, which are sent to each node once.
        """
        return Pool(self._ray, start, given)


class Pool:
    """An executor on all processors of a cluster, with the methods of loky's that are used."""

    def __init__(self, ray: Any, start: Callable[..., None], given: tuple) -> None:
        self._ray, self._start, self._given = ray, start, ray.put(given)
        self._call = ray.remote(num_cpus=1, max_retries=1)(_started)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        return Future(self._ray, self._call.remote(self._start, self._given, work, *arguments))

    def shutdown(self, **_: Any) -> None:
        """Nothing: tasks end with the connection."""


@dataclass(frozen=True)
class Future:
    """A result to come."""

    ray: Any
    reference: Any

    def result(self) -> Any:
        from loky.process_executor import BrokenProcessPool

        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise BrokenProcessPool(" ".join(str(error).split())) from error


def _started(start: Callable[..., None], given: tuple, work: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: `work(*arguments)` after `start(*given)`."""
    start(*given)
    return work(*arguments)


def _check_reachable(address: str) -> None:
    """Raise InputError for an address where nobody answers; Ray itself would try for minutes."""
    if address in (LOCAL, "auto"):
        return
    found = re.fullmatch(r"(?:ray://)?(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5})", address)
    why = "no HOST:PORT"
    if found is not None:
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            why = str(error)
    raise InputError(f"--ray must be the address of a Ray cluster that runs, or {LOCAL}. Received: {address} ({why})")


@contextlib.contextmanager
def connected(address: str) -> Iterator[RayCluster]:
    """The cluster at an address such as `10.0.0.5:6379` or `ray://10.0.0.5:10001`; `local` is one of this machine.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would tell its makers
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(f"a cluster needs Ray: pip install 'edge-cv[ray]'. Received: {error}") from error
    import loky

    _check_reachable(address)
    options: dict[str, Any] = {"address": address, "logging_level": "error"}
    if address == LOCAL:
        options |= {
            "num_cpus": loky.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": _LOCAL_STORE_BYTES,
        }
    try:
        ray.init(**options)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, grpc's own ...
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray must be the address of a Ray cluster that runs, or {LOCAL}. Received: {address} ({why})"
        ) from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()
