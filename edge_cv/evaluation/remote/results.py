"""From a runner's events to a measurement."""

from __future__ import annotations

from converters.errors import InputError
from edge_cv.evaluation.measurement import Golden, Measurement, outputs_of
from edge_cv.evaluation.remote.golden import DescribedModel, GoldenInputs
from edge_cv.evaluation.runner_events import RunnerEvents

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


def measurement_of(
    model: DescribedModel, events: RunnerEvents, golden: GoldenInputs | None, error: str | None
) -> Measurement:
    """The measurement of a model.

    Args:
        model: the model that ran.
        events: what the runner reported.
        golden: the golden inputs that it was given.
        error: why the events are incomplete, or None.
    """
    device = {name: events.model[name] for name in ("host", "system", "machine", "python", "runtime")}
    throttled = [reading["throttled"] for reading in events.sensors]
    if throttled and throttled[-1] is not None:
        device["throttled"] = describe_throttled(int(throttled[-1]))
    outputs = None
    if golden is not None and events.golden is not None:
        try:
            outputs = Golden(golden.sha256, outputs_of(events.golden, "golden's outputs"))
        except InputError as reason:  # the latencies are kept
            error = error or str(reason)
    return Measurement(
        file=model.path.name,
        sha256=model.sha256,
        device=device,
        latency=events.latency,
        peak_memory_bytes=events.peak_memory_bytes,
        temperature_c=_before_and_after(events, "temperature_c"),
        clock_mhz=_before_and_after(events, "clock_mhz"),
        golden=outputs,
        error=error,
    )


def describe_throttled(bits: int) -> str:
    """The bits of a Raspberry Pi's `vcgencmd get_throttled` in words."""
    return ", ".join(words for bit, words in _THROTTLED.items() if bits >> bit & 1) or "no"


def _before_and_after(events: RunnerEvents, sensor: str) -> tuple[float, float] | None:
    """Both readings; None for an interrupted measurement, which has no second one."""
    values = [value for reading in events.sensors if (value := reading[sensor]) is not None]
    return (values[0], values[1]) if len(values) == 2 else None
