"""The latency of a model on one machine: the value that `measure` returns and that reports and measurements hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from converters import strict_json
from converters.errors import InputError

BUSY_SHARE = 0.9  # of wall time; a lower `cpu_share` means that other programs used the processor


@dataclass(frozen=True)
class Latency:
    """Single inferences (batch 1), one after the other, on one machine with one number of threads.

    Attributes:
        host: the machine: its CPU's name and its number of cores.
        runtime: the program that ran the model, such as "ai-edge-litert 2.3.0 XNNPACK".
        threads: threads that the runtime was given; 0 where a phone's app left the number to the runtime.
        p50_ms, p90_ms, p99_ms: percentiles of the samples in milliseconds, with linear interpolation. Latencies from
            other programs may have no p90_ms and p99_ms (None).
        runs: number of inferences; None where it is not known.
        samples_ms: duration of every inference in milliseconds, in the order of execution; empty where only the
            percentiles are known.
        cpu_share: processor time divided by (wall time x threads), 0..1. With one thread, a value clearly below 1 means
            that other programs used the processor, and that the latencies are too high.
    """

    host: str
    runtime: str
    threads: int
    p50_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    runs: int | None = None
    samples_ms: tuple[float, ...] = ()
    cpu_share: float = 1.0

    @classmethod
    def from_samples(
        cls, host: str, runtime: str, threads: int, samples_ms: Sequence[float], cpu_share: float = 1.0
    ) -> Latency:
        """The latency with the percentiles of `samples_ms`, at least one duration."""
        samples = tuple(samples_ms)
        return cls(host, runtime, threads, *percentiles(samples), len(samples), samples, round(cpu_share, 3))

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return {**asdict(self), "samples_ms": list(self.samples_ms)}

    @classmethod
    def from_json(cls, fields: Any, what: str = "a latency") -> Latency:
        """The latency that `to_json` wrote. Percentiles and `runs` are computed again from the samples, if any.

        Args:
            fields: a JSON object; only `p50_ms` or `samples_ms` is required, and unknown keys are ignored.
            what: its name in an error message.

        Raises:
            InputError: a field has a wrong type or is out of range.
        """
        fields = strict_json.mapping(fields, what)
        samples = tuple(strict_json.milliseconds(fields.get("samples_ms") or (), f"{what}'s samples_ms"))
        p50, p90, p99 = (_percentile(fields, name, what) for name in ("p50_ms", "p90_ms", "p99_ms"))
        runs = fields.get("runs")
        if runs is not None:
            runs = strict_json.integer(runs, f"{what}'s runs", 1, strict_json.MAX_ITEMS)
        if samples:
            if runs not in (None, len(samples)):
                raise InputError(f"{what} must have as many runs as samples. Received: {runs} and {len(samples)}")
            runs, (p50, p90, p99) = len(samples), percentiles(samples)
        if p50 is None:
            raise InputError(f"{what} must have a p50_ms. Received: {', '.join(map(str, fields))!r:.80}")
        return cls(
            host=strict_json.text(fields.get("host", ""), f"{what}'s host") or "unknown host",
            runtime=strict_json.text(fields.get("runtime", ""), f"{what}'s runtime") or "unknown runtime",
            threads=strict_json.integer(fields.get("threads", 1), f"{what}'s threads", 0, 4096),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            runs=runs,
            samples_ms=samples,
            cpu_share=float(strict_json.number(fields.get("cpu_share", 1.0), f"{what}'s cpu_share", 0, 1)),
        )


def percentiles(samples_ms: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 90th and 99th percentile, with linear interpolation."""
    import numpy as np

    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, (50, 90, 99)))
    return p50, p90, p99


def _percentile(fields: Any, name: str, what: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    return float(strict_json.number(value, f"{what}'s {name}", 0, strict_json.MAX_MILLISECONDS))
