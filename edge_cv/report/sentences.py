"""What the figures mean, in plain words and no more digits than they carry."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.report.comparison import latency_on, main_rows, reference_of, settings, size_ratio, speed_up
from edge_cv.report.values import Row

SIGN_TEST_PHOTOS = 6
"""Fewest photos that two models must judge differently, all in favour of one, for a two-sided exact sign test
(McNemar's) at 95 %: 2 x 0.5^6 = 0.03, while 2 x 0.5^5 = 0.06."""

SAME = 1.05
"""Ratios of sizes and latencies under this are called equal: repeated measurements differ by as much."""


def size(bytes_: float | None) -> str:
    """A size in MB or kB of 1000, three digits."""
    if bytes_ is None:
        return "–"
    if bytes_ < 999.5:
        return f"{bytes_:.0f} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if bytes_ < 999.5 * scale or unit == "GB":
            return f"{digits(bytes_ / scale)} {unit}"
    return "–"


def count(number: float | None) -> str:
    """A count with M or G, three digits."""
    if number is None:
        return "–"
    for unit, scale in (("", 1), (" k", 1e3), (" M", 1e6), (" G", 1e9)):
        if number < 999.5 * scale or scale == 1e9:
            return f"{digits(number / scale)}{unit}" if scale > 1 else f"{number:.0f}"
    return "–"


def digits(number: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{number:.2f}" if abs(number) < 9.995 else f"{number:.1f}" if abs(number) < 99.95 else f"{number:.0f}"


def milliseconds(ms: float | None) -> str:
    return "–" if ms is None else f"{digits(ms)} ms"


def decibels(db: float | None) -> str:
    return "–" if db is None else f"{db:.1f} dB"


def percent(share: float | None, images: int | None) -> str:
    """A share in percent, with a decimal only where a single photo is less than a point."""
    return "–" if share is None else f"{100 * share:.{_decimals(images)}f} %"


def interval(ends: tuple[float, float] | None, images: int | None) -> str:
    """A 95 % interval such as `76–99 %`."""
    if ends is None:
        return ""
    low, high = (f"{100 * end:.{_decimals(images)}f}" for end in ends)
    return f"{low}–{high} %"


def ratio(times: float) -> str:
    """`3.9×`, `12×`."""
    return f"{times:.1f}×" if times < 9.95 else f"{times:.0f}×"


def threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def headline(rows: Sequence[Row]) -> str:
    """The verdict on the int8 model (or the smallest) of the first run against its float model, in one sentence."""
    reference, row = main_rows(rows)
    runs = list(dict.fromkeys(r.run for r in rows))
    if not rows:
        return "Nothing was measured."
    if len(runs) > 1:
        return _extremes(rows, len(runs))
    if row is None or reference is None:
        return _alone(row or reference or rows[0])
    good, bad, equal = _size_and_speed(row, reference)
    verdict = " but ".join(" and ".join(part) for part in (good, bad) if part)
    if verdict:
        verdict = f"is {verdict} than {_scheme(reference)}" + (f", {' and '.join(equal)}" if equal else "")
    elif equal:
        verdict = f"is {' and '.join(equal)} as {_scheme(reference)}"
    joint = ", and " if bad or (equal and (good or bad)) else " and "
    said = joint.join(part for part in (verdict, _accuracy(row, reference)) if part)
    return f"{_scheme(row)} {said or 'was made from ' + _scheme(reference)}."


def verdicts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The headline of each run, by the run's name, where there are several."""
    runs = list(dict.fromkeys(r.run for r in rows))
    return [(run, headline([r for r in rows if r.run == run])) for run in runs] if len(runs) > 1 else []


def agreement(row: Row) -> str:
    """`the same top-1 on 19 of 20 photos (95 % interval 76–99 %)`, or nothing when it was not measured."""
    if row.agreement is None or not row.images:
        return ""
    same = round(row.agreement * row.images)
    ends = interval(row.agreement_ci95, row.images)
    on = f"all {row.images:,}" if same == row.images else f"{same:,} of {row.images:,}"
    return f"the same top-1 on {on} photos" + (f" (95 % interval {ends})" if ends else "")


def slower(rows: Sequence[Row]) -> list[str]:
    """A sentence for each row that is slower than its float model somewhere, with the reason where it is known."""
    found: list[str] = []
    explained = set()
    for row in rows:
        reference = reference_of(row, rows)
        worst = [
            (1 / times, host, number)
            for host, number in settings(rows)
            if row is not reference and (times := speed_up(row, reference, host, number)) and times < 1 / SAME
        ]
        if worst and reference is not None:
            times, host, number = worst[0]
            why = {
                "dynamic_int8": " Its activations stay floats and are quantized anew in every layer; on x86 this "
                "costs a convolutional network more than integer arithmetic saves.",
                "int16x8": " Runtimes have no fast kernels for 16-bit activations on most processors.",
            }.get("" if row.scheme in explained else row.scheme, "")
            explained.add(row.scheme)
            found.append(
                f"{row.name} is {ratio(times)} slower than {reference.name} on {host} ({threads(number)}): "
                + (
                    "it saves size there, not time."
                    if (size_ratio(row, reference) or 0) > SAME
                    else "it saves no time there."
                )
                + why
            )
    return found


def answers(rows: Sequence[Row]) -> list[str]:
    """What the terminal tells of the answers of the rows that the verdict is about, in one sentence at most."""
    pair = [row for row in main_rows(rows) if row is not None]
    several = [f"{row.multi_label.mean_average_precision:.3f} for {row.name}" for row in pair if row.multi_label]
    if several:
        return [f"Mean average precision (mAP): {', '.join(several)}."]
    found = [
        f"{percent(row.classes.balanced_accuracy, row.images)} and {row.confidence.ece:.3f} for {row.name}"
        for row in pair
        if row.classes is not None and row.confidence is not None
    ]
    return [f"Balanced accuracy and expected calibration error (ECE): {', '.join(found)}."] if found else []


def limits_of(rows: Sequence[Row]) -> list[str]:
    """What the number of photos can show and what it cannot, a sentence or two for each number."""
    found = []
    for images in sorted({row.images for row in rows if row.images}):
        photo = f"{100 / images:.{1 if images < 1000 else 2}f}".removesuffix(".0")
        text = (
            f"Accuracy and agreement were measured on {images:,} photos (n = {images:,}): one photo is {photo} points. "
        )
        if images < SIGN_TEST_PHOTOS:
            text += "So few cannot tell any two models apart; take the figures as a check that the files work."
        else:
            least = 100 * SIGN_TEST_PHOTOS / images
            text += (
                "They cannot tell differences in top-1 between two models smaller than "
                f"{digits_of_points(least)} points "
                f"({SIGN_TEST_PHOTOS} photos, all in favour of one model, by an exact sign test at 95 %)"
            )
            text += ", nor how either does on photos of another kind."
        found.append(text)
    if any(row.top1 is None and row.multi_label is None and row.images for row in rows):
        found.append(
            "Where the photos have no labels there is no accuracy: agreement says only how often the float model is "
            "followed, right or wrong."
        )
    return found


def digits_of_points(points: float) -> str:
    return f"{points:.0f}" if points >= 10 else f"{points:.1f}".removesuffix(".0") if points >= 0.1 else f"{points:.2f}"


def how_timed(rows: Sequence[Row]) -> list[str]:
    """How latency was measured, and on which machine, a sentence a host."""
    found = []
    for host in dict.fromkeys(host for host, _ in settings(rows)):
        entries = [entry for row in rows for entry in row.latency if entry["host"] == host]
        runtimes = ", ".join(dict.fromkeys(entry["runtime"] for entry in entries))
        runs = sorted({round(entry["runs"]) for entry in entries if entry["runs"]})
        times = f"{runs[0]:,}" if len(runs) == 1 else f"{runs[0]:,} to {runs[-1]:,}" if runs else "repeated"
        numbers = " and ".join(map(str, sorted({entry["threads"] for entry in entries})))
        plural = "" if numbers == "1" else "s"
        found.append(
            f"Latency is that of single inferences (batch 1, without decoding and resizing), {times} of them after a "
            f"warm-up, on {host} with {runtimes}, {numbers} thread{plural}. p50 is the median; p90 is not exceeded by "
            "nine in ten. Another processor ranks the models differently: measure on the target itself."
        )
    return found


def decidable(values: Sequence[float], images: int | None) -> bool:
    """Whether the best of these shares can be told from the worst on that many photos."""
    return bool(images) and len(values) > 1 and round((max(values) - min(values)) * images) >= SIGN_TEST_PHOTOS


def _decimals(images: int | None) -> int:
    return 0 if not images or images <= 100 else 1 if images < 10_000 else 2


def _scheme(row: Row) -> str:
    return row.name.removeprefix(f"{row.run}: ") if row.run else row.name


def _size_and_speed(row: Row, reference: Row) -> tuple[list[str], list[str], list[str]]:
    good, bad, equal = [], [], []
    smaller = size_ratio(row, reference)
    timed = [
        (host, number)
        for host, number in settings([row, reference])
        if speed_up(row, reference, host, number) is not None
    ]
    faster = speed_up(row, reference, *timed[0]) if timed else None
    for times, better, worse, same in (
        (smaller, "smaller", "larger", "about as large"),
        (faster, "faster", "slower", "about as fast"),
    ):
        if times is None:
            continue
        if times >= SAME:
            good.append(f"{ratio(times)} {better}")
        elif times <= 1 / SAME:
            bad.append(f"{ratio(1 / times)} {worse}")
        else:
            equal.append(same)
    return good, bad, equal


def _accuracy(row: Row, reference: Row) -> str:
    if text := agreement(row):
        return f"gives {text}"
    if row.top1 is None:
        return ""
    ends = interval(row.top1_ci95, row.images)
    text = f"is right on {percent(row.top1, row.images)} of the photos" + (f" (95 % interval {ends})" if ends else "")
    return text + (
        f", {reference.scheme} on {percent(reference.top1, reference.images)}" if reference.top1 is not None else ""
    )


def _extremes(rows: Sequence[Row], runs: int) -> str:
    """Which model of several runs is the smallest, which the fastest, and which the most accurate if n can tell."""
    parts = []
    if sized := [row for row in rows if row.size_bytes]:
        best = min(sized, key=lambda row: row.size_bytes or 0)
        parts.append(f"the smallest is {best.name} with {size(best.size_bytes)}")
    for host, number in settings(rows)[:1]:
        timed = [(entry["p50_ms"], row.name) for row in rows if (entry := latency_on(row, host, number))]
        if len(timed) > 1:
            ms, name = min(timed)
            parts.append(f"the fastest is {name} with {milliseconds(ms)} ({threads(number)}, {host})")
    judged = [row for row in rows if row.top1 is not None]
    if len({row.images for row in judged}) == 1 and decidable([row.top1 or 0 for row in judged], judged[0].images):
        best = max(judged, key=lambda row: row.top1 or 0)
        parts.append(f"the most accurate is {best.name} with {percent(best.top1, best.images)} top-1")
    return f"Of {len(rows)} models from {runs} runs, {joined(parts)}." if parts else f"{runs} runs compared."


def joined(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _alone(row: Row) -> str:
    parts = [size(row.size_bytes)] if row.size_bytes else []
    if row.latency:
        entry = min(row.latency, key=lambda e: e["threads"])
        parts.append(f"{milliseconds(entry['p50_ms'])} median latency with {threads(entry['threads'])}")
    if row.top1 is not None:
        ends = interval(row.top1_ci95, row.images)
        parts.append(f"top-1 {percent(row.top1, row.images)}" + (f" (95 % interval {ends})" if ends else ""))
    elif text := agreement(row):
        parts.append(text)
    return f"{row.name}: {', '.join(parts) or 'nothing was measured'}."
