"""From what a runner told to a measurement."""

from __future__ import annotations

from edge_cv.evaluation.measurement import Golden, Measurement, outputs_of
from edge_cv.evaluation.remote.golden import DescribedModel
from edge_cv.evaluation.runner_events import RunnerEvents


def measurement_of(
    artifact: DescribedModel, gathered: RunnerEvents, golden: tuple[str, bytes] | None, error: str | None
) -> Measurement:
    """The measurement of an artifact; `golden` is the SHA-256 and content of the inputs that it answered to."""
    told = gathered.model
    device = {name: told[name] for name in ("host", "system", "machine", "python", "runtime")}
    throttled = [reading["throttled"] for reading in gathered.sensors]
    if throttled and throttled[-1] is not None:
        device["throttled"] = _throttled(int(throttled[-1]))
    answers = None
    if golden is not None and gathered.golden is not None:
        answers = Golden(golden[0], outputs_of(gathered.golden, "golden's outputs"))
    return Measurement(
        file=artifact.path.name,
        sha256=artifact.sha256,
        device=device,
        latency=gathered.latency,
        peak_memory_bytes=gathered.peak_memory_bytes,
        temperature_c=_readings(gathered, "temperature_c"),
        clock_mhz=_readings(gathered, "clock_mhz"),
        golden=answers,
        error=error,
    )


def _readings(gathered: RunnerEvents, name: str) -> tuple[float, float] | None:
    """Before and after; a measurement that was broken off has no second one."""
    values = [reading[name] for reading in gathered.sensors]
    return (values[0], values[1]) if len(values) == 2 and None not in values else None


# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_THROTTLED = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage has occurred",
    17: "clock capping has occurred",
    18: "throttling has occurred",
    19: "the soft temperature limit was reached",
}


def _throttled(bits: int) -> str:
    return ", ".join(words for bit, words in _THROTTLED.items() if bits >> bit & 1) or "no"
