"""The results of checking a file for a device: light values, which reports read without numpy."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Diagnostic:
    """One rule of a target that a file breaks.

    Attributes:
        level: `error`: the target rejects the file or computes wrong results; `warning`: it runs it slowly, or
            partly on the CPU.
        what: the rule, and what was found.
        remedy: what to do.
        layers: the names of the output tensors of the operators concerned; empty for the whole file.
    """

    level: str
    what: str
    remedy: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """The memory that a file needs on a microcontroller.

    Attributes:
        activations_bytes: of the arena, for tensors and scratch buffers, as the runtime's planner places them.
        records_bytes: of the arena, for the runtime's own structures; an upper bound.
        flash_bytes: the size of the file.
        widest: the name of the tensor during whose computation the activations are largest.
    """

    activations_bytes: int
    records_bytes: int
    flash_bytes: int
    widest: str

    @property
    def arena_bytes(self) -> int:
        """The least size of `tensor_arena`."""
        return self.activations_bytes + self.records_bytes
