"""The conclusions of a report as sentences: the verdict, slower models, and what the measurements can show."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.report import formats
from edge_cv.report.comparison import latency_on, main_rows, reference_of, settings, size_ratio, speed_up
from edge_cv.report.values import ProbeResult, Row

SIGN_TEST_PHOTOS = 6
"""Fewest photos that two models must judge differently, all in favour of one, for a two-sided exact sign test
(McNemar's) at 95 %: 2 x 0.5^6 = 0.03, while 2 x 0.5^5 = 0.06."""

SAME = 1.05
"""Ratios of sizes and latencies below this count as equal: repeated measurements differ by as much."""

_WHY_SLOWER = {
    "dynamic_int8": " dynamic_int8 quantizes the activations of every layer while it runs; for a convolutional network "
    "on x86 this takes more time than integer arithmetic saves.",
    "int16x8": " Most processors have no fast kernels for 16-bit activations.",
}


def headline(rows: Sequence[Row]) -> str:
    """The verdict on the first run's int8 model (or the smallest one) against its float model, in one sentence."""
    reference, row = main_rows(rows)
    runs = list(dict.fromkeys(r.run for r in rows))
    if not rows:
        return "Nothing was measured."
    if len(runs) > 1:
        return _best_of_runs(rows, len(runs))
    if row is None or reference is None:
        return _alone(row or reference or rows[0])
    better, worse, equal = _size_and_speed(row, reference)
    verdict = " but ".join(" and ".join(part) for part in (better, worse) if part)
    if verdict:
        verdict = f"is {verdict} than {reference.short_name}"
        verdict += f" and {' and '.join(equal)}" if equal else ""
    elif equal:
        verdict = f"is {' and '.join(equal)} as {reference.short_name}"
    predicate = ", and ".join(part for part in (verdict, _accuracy(row, reference)) if part)
    return f"{row.short_name} {predicate or 'has no measurements to compare with ' + reference.short_name}."


def verdicts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The name and the headline of each run, if there are several runs."""
    runs = list(dict.fromkeys(r.run for r in rows))
    return [(run, headline([r for r in rows if r.run == run])) for run in runs] if len(runs) > 1 else []


def beside_probe(probe: ProbeResult | None) -> list[str]:
    """The fine-tuned model beside the linear probe, and what to try if it ends below; nothing without a probe."""
    if probe is None:
        return []
    share = f"{formats.percent(probe.top1, probe.images)}{_interval(probe.top1_ci95, probe.images)}"
    if probe.fine_tuned is None:
        folds = ""
        if probe.cross_validated is not None:
            folds = f"; cross-validated on its {probe.training_images:,} training photos it has "
            folds += formats.percent(probe.cross_validated, probe.training_images)
        return [
            f"The model is a linear probe on frozen features: top-1 {share} on {probe.images:,} test photos{folds}."
        ]
    tuned = f"{formats.percent(probe.fine_tuned, probe.images)}{_interval(probe.fine_tuned_ci95, probe.images)}"
    points = 100 * (probe.fine_tuned - probe.top1)
    verdict = f"{abs(points):.1f} points {'above' if points > 0 else 'below'}" if abs(points) >= 0.05 else "equal to"
    text = (
        f"The fine-tuned model has a top-1 of {tuned} on {probe.images:,} test photos, {verdict} that of a linear "
        f"probe on the frozen features, {share}."
    )
    if points > -0.05:
        return [text]
    return [
        text,
        "Fine-tuning is worse than the probe: it damaged the pretrained features or stopped too early. Try the "
        "probe itself (--probe), a lower rate (--set fit.learning_rate=1e-4), more epochs (--set fit.epochs=30), or "
        "more photos per class.",
    ]


def agreement(row: Row) -> str:
    """`predicts the same class on 19 of 20 photos (95 % interval 76–99 %)`; an empty text if it was not measured."""
    if row.agreement is None or not row.images:
        return ""
    same = round(row.agreement * row.images)
    on = f"all {row.images:,}" if same == row.images else f"{same:,} of {row.images:,}"
    what = "predicts the same class" if row.multi_label is None else "makes the same decisions"
    return f"{what} on {on} photos{_interval(row.agreement_ci95, row.images)}"


def top1_against_labels(rows: Sequence[Row]) -> str:
    """Top-1 of both models of the headline, in one sentence; an empty text for several runs or without labels."""
    reference, row = main_rows(rows)
    if row is None or reference is None or row.top1 is None or reference.top1 is None or len({r.run for r in rows}) > 1:
        return ""
    own, other = (f"{formats.percent(one.top1, one.images)} for {one.name}" for one in (row, reference))
    ends = formats.interval(reference.top1_ci95, reference.images)
    own += _interval(row.top1_ci95, row.images)
    text = f"Top-1 accuracy is {own} and {other}" + (f" ({ends})" if ends else "")
    points = 100 * (row.top1 - reference.top1)
    if not row.images or not round(points * row.images / 100):
        return f"{text}."
    difference = f"{formats.points(abs(points))} points"
    if decidable([row.top1, reference.top1], row.images):
        return f"{text}; {row.name} is {difference} {'higher' if points > 0 else 'lower'}."
    return f"{text}; a difference of {difference} on {formats.photos(row.images)} may be chance."


def best_files(rows: Sequence[Row]) -> str:
    """The smallest and the fastest file, in one sentence."""
    if len(rows) < 2:
        return _alone(rows[0]) if rows else "Nothing was measured."
    if (runs := len({row.run for row in rows})) > 1:
        hosts = list(dict.fromkeys(host for host, _ in settings(rows)))
        return f"{len(rows)} files of {runs} runs" + (f", measured on {formats.joined(hosts)}." if hosts else ".")
    best: dict[str, list[str]] = {}
    if sized := [row for row in rows if row.size_bytes]:
        row = min(sized, key=lambda one: one.size_bytes or 0)
        best.setdefault(row.name, []).append(f"the smallest ({formats.size(row.size_bytes)})")
    on = settings(rows)
    for host, number in on[:1]:
        timed = [(entry.p50_ms, row.name) for row in rows if (entry := latency_on(row, host, number))]
        if len(timed) > 1:
            ms, name = min(timed)
            where = f" on {host}" if len({one for one, _ in on}) > 1 else ""
            what = f"the fastest{where} ({formats.milliseconds(ms)} with {formats.threads(number)})"
            best.setdefault(name, []).append(what)
    parts = [f"{name} is {' and '.join(what)}" for name, what in best.items()]
    return f"Of {len(rows)} files, {formats.joined(parts)}." if parts else f"{len(rows)} files were compared."


def slower(rows: Sequence[Row]) -> list[str]:
    """A sentence for each row that is slower than its float model on some machine, with the reason if it is known."""
    sentences: list[str] = []
    explained = set()
    for row in rows:
        reference = reference_of(row, rows)
        slow = [
            (1 / times, host, number)
            for host, number in settings(rows)
            if row is not reference and (times := speed_up(row, reference, host, number)) and times < 1 / SAME
        ]
        if slow and reference is not None:
            times, host, number = slow[0]
            scheme = row.output.scheme
            why = "" if scheme in explained else _WHY_SLOWER.get(scheme, "")
            explained.add(scheme)
            is_smaller = (size_ratio(row, reference) or 0) > SAME
            saved = "it is smaller, but not faster." if is_smaller else "it is neither smaller nor faster."
            sentences.append(
                f"{row.name} is {formats.ratio(times)} slower than {reference.name} on {host} "
                f"({formats.threads(number)}): {saved}{why}"
            )
    return sentences


def accuracy_details(rows: Sequence[Row]) -> list[str]:
    """At most one sentence: further accuracy figures of the rows of the headline, for the terminal."""
    pair = [row for row in main_rows(rows) if row is not None]
    several = [f"{row.multi_label.mean_average_precision:.3f} for {row.name}" for row in pair if row.multi_label]
    if several:
        return [f"Mean average precision (mAP): {', '.join(several)}."]
    figures = [
        f"{formats.percent(row.classes.balanced_accuracy, row.images)} and {row.confidence.ece:.3f} for {row.name}"
        for row in pair
        if row.classes is not None and row.confidence is not None
    ]
    return [f"Balanced accuracy and expected calibration error (ECE): {', '.join(figures)}."] if figures else []


def least_difference(rows: Sequence[Row]) -> str:
    """The difference of top-1 that the photos can show, in one short sentence; empty if no photos were measured."""
    images = min((row.images for row in rows if row.images), default=0)
    if not images:
        return ""
    on = formats.photos(images)
    if images < SIGN_TEST_PHOTOS:
        return f"{on} cannot show which model is more accurate."
    return f"On {on}, a difference of less than {_shown_points(images)} points between two models may be chance."


def _shown_points(images: int) -> str:
    return formats.points(100 * SIGN_TEST_PHOTOS / images)


def sample_size(rows: Sequence[Row]) -> list[str]:
    """What the number of photos can show: one or two sentences for each number of photos among the rows."""
    sentences = []
    for images in sorted({row.images for row in rows if row.images}):
        step = f"{100 / images:.{1 if images < 1000 else 2}f}".removesuffix(".0")
        text = (
            f"Accuracy and agreement were measured on {formats.photos(images)} (n = {images:,}), so one photo is "
            f"{step} points. "
        )
        if images < SIGN_TEST_PHOTOS:
            text += "These are too few to compare models; use the figures only to check that the files work."
        else:
            text += (
                "The smallest difference in top-1 between two models that these photos can show is "
                f"{_shown_points(images)} points: {SIGN_TEST_PHOTOS} photos that only one of "
                "the models classifies correctly (two-sided exact sign test, p < 0.05). Photos of another kind may "
                "give other results."
            )
        sentences.append(text)
    if any(row.top1 is None and row.multi_label is None and row.images for row in rows):
        sentences.append(
            "Accuracy needs photos with labels. Without them, agreement shows how often a model predicts the same "
            "class as the float model, whether this class is correct or not."
        )
    return sentences


def latency_conditions(rows: Sequence[Row]) -> list[str]:
    """How latency was measured: a sentence or two for each machine."""
    sentences = []
    for host in dict.fromkeys(host for host, _ in settings(rows)):
        entries = [entry for row in rows for entry in row.latency if entry.host == host]
        runtimes = ", ".join(dict.fromkeys(entry.runtime for entry in entries))
        runs = sorted({entry.runs for entry in entries if entry.runs})
        times = f"{runs[0]:,}" if len(runs) == 1 else f"{runs[0]:,} to {runs[-1]:,}" if runs else "several"
        numbers = formats.joined([str(number) for number in sorted({entry.threads for entry in entries})])
        plural = "" if numbers == "1" else "s"
        sentences.append(
            f"Latency is the time of one inference (batch size 1, without decoding and resizing the photo). It was "
            f"measured {times} times after warm-up on {host} with {runtimes} and {numbers} thread{plural}. p50 is the "
            "median; 90 % of the inferences take no longer than p90. On another processor, another model may be the "
            "fastest: measure on the target device."
        )
    return sentences


def decidable(values: Sequence[float], images: int | None) -> bool:
    """Whether that number of photos can show a difference between the highest and the lowest of these shares."""
    if not images or len(values) < 2:
        return False
    return round((max(values) - min(values)) * images) >= SIGN_TEST_PHOTOS


def _interval(ends: tuple[float, float] | None, images: int | None) -> str:
    text = formats.interval(ends, images)
    return f" (95 % interval {text})" if text else ""


def _size_and_speed(row: Row, reference: Row) -> tuple[list[str], list[str], list[str]]:
    better, worse, equal = [], [], []
    timed = [speed_up(row, reference, host, number) for host, number in settings([row, reference])]
    faster = next((times for times in timed if times is not None), None)
    for times, more, less, same in (
        (size_ratio(row, reference), "smaller", "larger", "about as large"),
        (faster, "faster", "slower", "about as fast"),
    ):
        if times is None:
            continue
        if times >= SAME:
            better.append(f"{formats.ratio(times)} {more}")
        elif times <= 1 / SAME:
            worse.append(f"{formats.ratio(1 / times)} {less}")
        else:
            equal.append(same)
    return better, worse, equal


def _accuracy(row: Row, reference: Row) -> str:
    if text := agreement(row):
        return text
    if row.top1 is None:
        return ""
    text = f"reaches {formats.percent(row.top1, row.images)} top-1{_interval(row.top1_ci95, row.images)}"
    if reference.top1 is not None:
        text += f", {reference.short_name} {formats.percent(reference.top1, reference.images)}"
    return text


def _best_of_runs(rows: Sequence[Row], runs: int) -> str:
    """The smallest, the fastest, and the most accurate model of several runs, the last if the photos can show it."""
    parts = []
    if sized := [row for row in rows if row.size_bytes]:
        best = min(sized, key=lambda row: row.size_bytes or 0)
        parts.append(f"the smallest is {best.name} with {formats.size(best.size_bytes)}")
    for host, number in settings(rows)[:1]:
        timed = [(entry.p50_ms, row.name) for row in rows if (entry := latency_on(row, host, number))]
        if len(timed) > 1:
            ms, name = min(timed)
            parts.append(f"the fastest is {name} with {formats.milliseconds(ms)} ({formats.threads(number)}, {host})")
    judged = [row for row in rows if row.top1 is not None]
    if len({row.images for row in judged}) == 1 and decidable([row.top1 or 0 for row in judged], judged[0].images):
        best = max(judged, key=lambda row: row.top1 or 0)
        parts.append(f"the most accurate is {best.name} with {formats.percent(best.top1, best.images)} top-1")
    return f"Of {len(rows)} models from {runs} runs, {formats.joined(parts)}." if parts else f"{runs} runs compared."


def _alone(row: Row) -> str:
    parts = [formats.size(row.size_bytes)] if row.size_bytes else []
    if row.latency:
        entry = min(row.latency, key=lambda entry: entry.threads)
        parts.append(f"{formats.milliseconds(entry.p50_ms)} median latency with {formats.threads(entry.threads)}")
    if row.top1 is not None:
        parts.append(f"top-1 {formats.percent(row.top1, row.images)}{_interval(row.top1_ci95, row.images)}")
    elif text := agreement(row):
        parts.append(text)
    return f"{row.name}: {', '.join(parts) or 'nothing was measured'}."
