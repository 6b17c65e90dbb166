"""What is found out about a file before a device runs it: light values, which reports read without numpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnostic:
    """One rule that a file breaks.

    Attributes:
        level: `error`: it is refused or computes nonsense; `warning`: it runs, but slowly or in part elsewhere.
        what: the rule and what was found.
        remedy: what to do.
        layers: the names of the tensors that the operators in question make; empty where the whole file is meant.
    """

    level: str
    what: str
    remedy: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """What a file needs of a microcontroller.

    Attributes:
        activations_bytes: of the arena, for what the operators compute and for their scratch, as the runtime's planner
            places it.
        records_bytes: of the arena, for the runtime's records; an upper bound.
        flash_bytes: of the file.
        widest: the name of the tensor during whose computation the activations are at their largest.
    """

    activations_bytes: int
    records_bytes: int
    flash_bytes: int
    widest: str

    @property
    def arena_bytes(self) -> int:
        """What `tensor_arena` must have at least."""
        return self.activations_bytes + self.records_bytes
