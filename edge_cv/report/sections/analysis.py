"""The sections of the page about the answers themselves: which classes, how sure, how far off, for whom, and why."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.evaluation.groups import Group, Grouping
from edge_cv.evaluation.per_class import WORST_PAIRS, ClassScores
from edge_cv.report import plots, sentences
from edge_cv.report.comparison import main_rows
from edge_cv.report.sections.section import Figure, Picture, Section, Strip, Table
from edge_cv.report.values import Report, Row

EVERY_CLASS = 25
WORST_CLASSES, BEST_CLASSES = 20, 5
"""Up to 25 classes all are shown; of more, the 20 with the lowest recall and the 5 with the highest."""

SHOWN_PAIRS = 12
FEW_PHOTOS, LISTED_PHOTOS = 10, 3
"""Where no class has 10 photos the page says that they are few; where none has 3, it lists no class."""

SIGNIFICANT = 0.05


def classes(report: Report) -> Section | None:
    """Accuracy class by class, and the pairs that are confused."""
    rows = [row for row in report.rows if row.classes is not None]
    if not rows:
        return None
    summary = Table(
        "",
        (("Model", ""), ("Balanced", "accuracy"), ("F1", "macro"), ("Precision", "macro"), ("F1", "weighted")),
        tuple(
            (
                row.name,
                sentences.percent(row.classes.balanced_accuracy, row.images),
                *(
                    f"{value:.3f}"
                    for value in (row.classes.macro_f1, row.classes.macro_precision, row.classes.weighted_f1)
                ),
            )
            for row in rows
        ),
    )
    shown = _pair(rows)
    first = shown[0].classes
    fewest, most = min(first.images), max(first.images)
    said = f"The photos are of {len(first.names):,} classes, "
    said += f"{_photos(most)} each." if fewest == most else f"{fewest:,} to {_photos(most)} each."
    if most < FEW_PHOTOS:
        said += " So few say little about any one class"
        said += "." if most >= LISTED_PHOTOS else ", and none is listed."
    figures = tuple(
        Figure(
            f"What {row.name} takes for what",
            "Rows: true classes; columns: answers; the darker, the larger the share of the row's photos.",
            f"Confusion matrix of {row.name}. "
            + (
                "; ".join(f"{c.label} taken for {c.answer}: {c.photos}" for c in row.classes.confusions[:5])
                or "No error"
            )
            + ".",
            svg,
        )
        for row in shown
        if (svg := plots.confusion_matrix(row))
    )
    listed = _class_table(shown) if most >= LISTED_PHOTOS else None
    tables = [table for table in (summary, _confusions(shown), listed) if table is not None]
    notes = (
        "Recall is the share of a class's photos that were recognized, precision the share of the photos taken for a "
        "class that are of it, F1 their harmonic mean. Balanced accuracy is the mean recall; macro means count every "
        "class the same, weighted ones by its photos. Classes without photos do not count.",
    )
    return Section("Class by class", (said,), tuple(tables), figures, notes=notes)


def multi_label(report: Report) -> Section | None:
    """Average precision, where a photo may show several classes."""
    rows = [row for row in report.rows if row.multi_label is not None]
    if not rows:
        return None
    shown = _pair(rows)
    summary = Table(
        "",
        (("Model", ""), ("mAP", "")),
        tuple((row.name, f"{row.multi_label.mean_average_precision:.3f}") for row in rows),
    )
    first = shown[0].multi_label
    order = sorted(range(len(first.names)), key=lambda n: first.average_precision[n])
    values = [dict(zip(row.multi_label.names, row.multi_label.average_precision, strict=True)) for row in shown]
    every = Table(
        _worst_and_best(len(order), "average precision"),
        (("Class", ""), ("Photos", ""), *((row.name, "average precision") for row in shown)),
        tuple(
            (
                first.names[n],
                f"{first.positives[n]:,}",
                *(f"{of[first.names[n]]:.3f}" if first.names[n] in of else "–" for of in values),
            )
            for n in _ends(order)
        ),
    )
    note = (
        "mAP is the mean over the classes of the average precision: a class's photos are ranked by the model's score, "
        "and the precision is averaged over the ranks of those that show it. Chance gives the share of its photos."
    )
    return Section("Class by class, several a photo", (), (summary, every), notes=(note,))


def confidence(report: Report) -> Section | None:
    """Whether the confidence is what it says."""
    rows = [row for row in report.rows if row.confidence is not None]
    if not rows:
        return None
    table = Table(
        "",
        (
            ("Model", ""),
            ("ECE", ""),
            ("ECE", "by chance"),
            ("Confidence", "mean"),
            ("Accuracy", ""),
            ("Temperature", "and ECE with it"),
        ),
        tuple(
            (
                row.name,
                f"{row.confidence.ece:.3f}",
                f"{row.confidence.ece_by_chance:.3f}\nup to {row.confidence.ece_by_chance_95:.3f}",
                sentences.percent(row.confidence.confidence, row.confidence.images),
                sentences.percent(row.confidence.accuracy, row.confidence.images),
                "–" if (mend := row.confidence.temperature) is None else f"{mend.value:.2f}\n{mend.ece:.3f}",
            )
            for row in rows
        ),
    )
    shown = _pair(rows)
    figures: tuple[Figure, ...] = ()
    if svg := plots.reliability(shown):
        said = "; ".join(f"{row.name}: ECE {row.confidence.ece:.3f}" for row in shown)
        figures = (
            Figure(
                "Accuracy against confidence",
                "On the dotted line a confidence is what it says; below it the model is overconfident. The larger a "
                "point, the more photos it stands for.",
                f"Reliability curve. {said}.",
                svg,
            ),
        )
    note = (
        "The expected calibration error (ECE) is the mean distance between confidence and accuracy, over 15 bins of "
        "equal width weighted by their photos (Guo et al. 2017). Few photos make it large by chance alone: beside it "
        "stands what a perfectly calibrated model of the same confidences would show, on average and in all "
        "but 5 % of cases. Temperature: what the logits would have to be divided by for the confidences to be right; "
        "its ECE is of one half of the photos with what was fitted on the other, and the reverse."
    )
    return Section(
        "Can its confidence be trusted?", tuple(_trust(row) for row in shown), (table,), figures, notes=(note,)
    )


def mistakes(report: Report) -> Section | None:
    """How far off the wrong answers are, by WordNet."""
    rows = [row for row in report.rows if row.mistakes is not None and row.mistakes.wrong]
    if not rows:
        return None
    tables = [
        Table(
            "",
            (
                ("Model", ""),
                ("Wrong", "photos"),
                ("Height", "of the common ancestor"),
                ("Height", "of random answers"),
                ("Steps", "apart"),
            ),
            tuple(
                (
                    row.name,
                    f"{row.mistakes.wrong:,}",
                    *(f"{v:.1f}" for v in (row.mistakes.height, row.mistakes.height_by_chance, row.mistakes.steps)),
                )
                for row in rows
            ),
        )
    ]
    for row in _pair(rows):
        tables.append(
            Table(
                f"The farthest mistakes of {row.name}",
                (("True class", ""), ("Answer", ""), ("Both are", ""), ("Height", ""), ("Photos", "")),
                tuple((c.label, c.answer, c.ancestor, str(c.height), f"{c.photos:,}") for c in row.mistakes.worst),
                texts=3,
            )
        )
    note = (
        "Distances are those of WordNet 3.0, of whose nouns ImageNet's classes are. Height: that of the lowest common "
        "ancestor of the true class and the answer, the longest way from it down to one of the 1000 classes (two "
        "breeds of retriever: 1, a retriever and a fire engine: 15, the most: 18), the hierarchical error of the "
        "ImageNet challenge. Steps: the shortest way from one to the other through their hypernyms. Random answers: "
        "for the same photos any other class, each as likely."
    )
    return Section("How far off the wrong answers are", (), tuple(tables), notes=(note,))


def groups(report: Report) -> Section | None:
    """Accuracy by the columns of a table."""
    rows = [row for row in report.rows if row.groups]
    if not rows:
        return None
    shown = _pair(rows)
    tables, said = [], []
    for grouping in shown[0].groups:
        same = [next((g for g in row.groups if g.column == grouping.column), None) for row in shown]
        by_name = [{group.name: group for group in of.groups} if of else {} for of in same]
        tables.append(
            Table(
                f"By {grouping.column}",
                ((grouping.column, ""), ("Photos", ""), *((row.name, "top-1, 95 % interval") for row in shown)),
                tuple(
                    (
                        group.name,
                        f"{group.images:,}",
                        *(_share(of.get(group.name)) for of in by_name),
                    )
                    for group in grouping.groups
                ),
            )
        )
        said += [gaps(row.name, of) for row, of in zip(shown, same, strict=True) if of]
    notes = (
        "A gap counts as beyond chance where Fisher's exact test of a group against the rest gives p < 0.05 after "
        "Holm's correction for the number of groups and columns looked at. A gap that is not may still be real and the "
        "photos too few; and one that is may have another cause, such as other classes in the group.",
        *(
            f"{_photos(grouping.without)} without a value in “{grouping.column}” are left out there."
            for grouping in shown[0].groups
            if grouping.without
        ),
    )
    return Section("Group by group", tuple(said), tuple(tables), notes=notes)


def gaps(name: str, grouping: Grouping) -> str:
    """Which groups an artifact serves better or worse than chance explains, in a sentence."""
    found = grouping.groups
    if len(found) < 2:
        only = f"all {found[0].images:,} photos are “{found[0].name}”" if found else "no photo has a value"
        return f"{name}, by {grouping.column}: {only}; there is nothing to compare."
    beyond = [group for group in found if group.p is not None and group.p < SIGNIFICANT]
    if not beyond:
        shares = [group.accuracy for group in found]
        gap = 100 * (max(shares) - min(shares))
        return (
            f"{name}, by {grouping.column}: no gap is beyond chance; the largest, of "
            f"{sentences.digits_of_points(gap)} points, may be luck."
        )
    parts = [
        f"“{group.name}” {sentences.percent(group.accuracy, group.images)} against "
        f"{sentences.percent(group.others, group.images)} on the rest (p {_p(group.p)})"
        for group in (beyond[:1] if len(found) == 2 else beyond)
    ]
    return f"{name}, by {grouping.column}: beyond chance is {'; '.join(parts)}."


def robustness(report: Report) -> Section | None:
    """What is left under the common corruptions."""
    rows = [row for row in report.rows if row.robustness is not None]
    if not rows:
        return None
    images = rows[0].robustness.images
    summary = Table(
        "",
        (
            ("Model", ""),
            ("Clean", "top-1"),
            *((f"Severity {n}", "") for n in range(1, 6)),
            ("Corruption error", "mean"),
            ("Cost", "against clean"),
        ),
        tuple(
            (
                row.name,
                *(sentences.percent(row.robustness.at_severity(n), row.robustness.images) for n in range(6)),
                sentences.percent(row.robustness.mean_corruption_error, row.robustness.images),
                f"{100 * row.robustness.relative_corruption_error:.1f} points",
            )
            for row in rows
        ),
    )
    shown = _pair(rows)
    first = shown[0].robustness
    means = [[sum(shares) / len(shares) for shares in row.robustness.accuracy] for row in shown]
    order = sorted(range(len(first.corruptions)), key=lambda n: means[0][n])
    each = Table(
        "By corruption, the hardest first",
        (("Corruption", ""), *((row.name, "top-1, mean of 5 severities") for row in shown)),
        tuple(
            (first.corruptions[n].replace("_", " "), *(sentences.percent(of[n], images) for of in means)) for n in order
        ),
    )
    figures: tuple[Figure, ...] = ()
    if svg := plots.against_severity(shown):
        said = "; ".join(
            f"{row.name}: {', '.join(sentences.percent(row.robustness.at_severity(n), images) for n in range(6))}"
            for row in shown
        )
        caption = "Top-1, mean of the 15 corruptions; severity 0: the photos as they are."
        figures = (Figure("Accuracy under corruption", caption, f"Top-1 at severity 0 to 5. {said}.", svg),)
    note = (
        f"Measured on {_photos(images)}, each under 15 corruptions at five severities (Hendrycks and Dietterich 2019): "
        "noise, blur, weather and digital damage of what the model sees. The corruption error is 1 - top-1, averaged "
        "over severities and corruptions; unlike the paper's it is not divided by AlexNet's."
    )
    return Section("How robust it is", (), (summary, each), figures, notes=(note,))


def attention(report: Report) -> Section | None:
    """Where the model looks."""
    if not report.explained:
        return None
    strips = []
    for photo in report.explained:
        wrong = photo.answer != photo.label
        pictures = [Picture(photo.jpeg, "what the model saw")]
        pictures += [
            Picture(overlay.jpeg, ("looking for: " if len(photo.overlays) > 1 else "") + overlay.name)
            for overlay in photo.overlays
        ]
        sure = f"{100 * photo.probability:.0f} %"
        title = f"{photo.label}, taken for {photo.answer} ({sure})" if wrong else f"{photo.label} ({sure})"
        strips.append(Strip(title, photo.photo, wrong, tuple(pictures)))
    lead = (
        "Coloured is what raises the logit of a class most (Grad-CAM, Selvaraju et al. 2017), in the float model; "
        "confident mistakes first, then photos that it gets right. A model that looks at the background may have "
        "learned it."
    )
    return Section("Where it looks", (lead,), strips=tuple(strips))


def _pair(rows: Sequence[Row]) -> list[Row]:
    """The float row and the quantized one that the verdict is about; of several runs the first's."""
    pair = [row for row in main_rows(rows) if row is not None]
    return pair or list(rows[:1])


def _class_table(rows: Sequence[Row]) -> Table:
    first = rows[0].classes
    order = sorted(range(len(first.names)), key=lambda n: (first.recall[n], first.f1[n], -first.images[n]))
    by_name = [{name: n for n, name in enumerate(row.classes.names)} for row in rows]
    cells = []
    for n in _ends(order):
        name = first.names[n]
        cell = [name, f"{first.images[n]:,}"]
        for row, places in zip(rows, by_name, strict=True):
            scores, place = row.classes, places.get(name)
            cell += (
                ["–", "–", "–"]
                if place is None
                else [
                    sentences.percent(scores.recall[place], scores.images[place]),
                    sentences.percent(scores.precision[place], scores.images[place]),
                    f"{scores.f1[place]:.2f}",
                ]
            )
        cells.append(tuple(cell))
    heads = [(title, row.name) for row in rows for title in ("Recall", "Precision", "F1")]
    return Table(_worst_and_best(len(order), "recall"), (("Class", ""), ("Photos", ""), *heads), tuple(cells))


def _worst_and_best(count: int, what: str) -> str:
    if count <= EVERY_CLASS:
        return f"Every class, the lowest {what} first"
    return f"The {WORST_CLASSES} classes of lowest {what} and the {BEST_CLASSES} of highest, of {count:,}"


def _ends(order: list[int]) -> list[int]:
    return order if len(order) <= EVERY_CLASS else [*order[:WORST_CLASSES], *order[-BEST_CLASSES:]]


def _confusions(rows: Sequence[Row]) -> Table | None:
    counts = [{(c.label, c.answer): c for c in row.classes.confusions} for row in rows]
    every = {key: c for of in reversed(counts) for key, c in of.items()}
    order = sorted(every, key=lambda key: -max(of[key].photos if key in of else 0 for of in counts))[:SHOWN_PAIRS]
    if not order:
        return None
    return Table(
        "What is taken for what most often",
        (("True class", ""), ("Answer", ""), ("Photos", "of the class"), *((row.name, "times") for row in rows)),
        tuple(
            (
                *key,
                f"{every[key].of:,}",
                *(_times_confused(row.classes, *key) for row in rows),
            )
            for key in order
        ),
        texts=2,
    )


def _times_confused(scores: ClassScores, label: str, answer: str) -> str:
    if scores.matrix and {label, answer} <= set(scores.matrix_names):
        return f"{scores.matrix[scores.matrix_names.index(label)][scores.matrix_names.index(answer)]:,}"
    found = {(c.label, c.answer): c.photos for c in scores.confusions}
    if (label, answer) in found or len(found) < WORST_PAIRS:
        return f"{found.get((label, answer), 0):,}"
    return f"≤ {min(found.values()):,}"  # it may have happened as often as the rarest pair that was kept


def _trust(row: Row) -> str:
    found = row.confidence
    gap = found.confidence - found.accuracy
    if found.ece <= found.ece_by_chance_95:
        return (
            f"{row.name}: its ECE of {found.ece:.3f} is no larger than {_photos(found.images)} make it by chance; "
            "nothing speaks against its confidence."
        )
    said = "overconfident" if gap > 0 else "underconfident"
    if abs(gap) < found.ece / 2:
        said = "too sure of some answers and not sure enough of others"
    return (
        f"{row.name} is {said}: it is {sentences.percent(found.confidence, found.images)} sure on average and right on "
        f"{sentences.percent(found.accuracy, found.images)} (ECE {found.ece:.3f}, beyond chance)."
    )


def _share(group: Group | None) -> str:
    if group is None:
        return "–"
    return f"{sentences.percent(group.accuracy, group.images)}\n{sentences.interval(group.accuracy_ci95, group.images)}"


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count:,} photos"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
