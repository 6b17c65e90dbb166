"""The Pareto front of several runs, in `report.json`, on the page and in the terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import numpy as np
import pytest

from edge_cv.evaluation.latency import Latency
from edge_cv.recipe import Output
from edge_cv.report import Report, Row, merge
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.page import to_html
from edge_cv.report.pareto import column, front, fronts
from edge_cv.report.terminal import show


def dominated(point, others) -> bool:
    """The definition: another point is as good in both, and better in one."""
    cost, value = point
    return any(c <= cost and v >= value and (c < cost or v > value) for c, v in others)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_beats(seed):
    rng = np.random.default_rng(seed)
    points = [(float(c), float(v)) for c, v in rng.integers(0, 12, (30, 2))]  # with many equal ones
    assert list(front(points)) == [not dominated(point, points) for point in points]
    assert front(points[::-1]) == front(points)[::-1]


def test_of_equal_points_all_are_on_it_and_unknown_ones_on_none():
    assert front([(1.0, 2.0), None, (1.0, 2.0), (1.0, 1.0), (2.0, 2.0)]) == (True, False, True, False, False)
    assert front([]) == ()
    assert front([None]) == (False,)


def row(scheme: str, size: int, top1: float | None, **ms: float) -> Row:
    entries = tuple(Latency(host, "LiteRT", n, value * 2 / n) for host, value in ms.items() for n in (1, 2))
    return Row(
        Output("", "tflite", scheme),
        f"{scheme}.tflite",
        size,
        top1=top1,
        images=400,
        top1_ci95=(0.1, 0.9),
        latency=entries,
    )


SMALL = Report({"name": "small"}, {}, rows=(row("float32", 400, 0.70, PC=3, phone=9), row("int8", 100, 0.69, PC=4)))
LARGE = Report({"name": "large"}, {}, rows=(row("float32", 900, 0.80, PC=9, phone=30), row("int8", 300, 0.79, PC=2)))


def test_each_machine_has_a_front_at_its_fewest_threads_and_the_size_has_one():
    found = {one.host: one for one in fronts(merge([SMALL, LARGE]).rows)}
    assert list(found) == ["PC", "phone", None]
    assert {one.threads for host, one in found.items() if host} == {1}
    assert found["PC"].on == (False, False, True, True)
    assert found["PC"].costs == (6, 8, 18, 4)
    assert found["phone"].on == (True, False, True, False)
    assert found[None].on == (False, True, True, True)
    assert column(merge([SMALL, LARGE]).rows) == [
        "latency on phone", "size", "latency on PC, latency on phone, size", "latency on PC, size",
    ]  # fmt: skip


def test_the_report_of_several_runs_shows_it_in_json_page_and_terminal():
    merged = merge([SMALL, LARGE])
    fields = json.loads(json.dumps(to_dict(merged)))
    assert {one["host"]: one["rows"] for one in fields["fronts"]} == {
        "PC": ["large: int8", "large: float32"],
        "phone": ["small: float32", "large: float32"],
        None: ["small: int8", "large: int8", "large: float32"],
    }
    assert from_dict(fields) == merged
    page = to_html(merged)
    assert ">Pareto front</h2>" in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert page.count("Up and to the left is better; the line is the front.") == 3
    assert (
        "Top-1 against latency on PC with 1 thread: large: int8 (79.0 %, 4.00 ms) and large: float32"
        in page.replace("\u00a0", " ")
    )
    printed = io.StringIO()
    show(merged, printed)
    assert "Pareto front" in printed.getvalue()


def test_one_run_or_no_labels_have_no_front():
    unlabelled = [
        dataclasses.replace(report, rows=tuple(dataclasses.replace(r, top1=None, top1_ci95=None) for r in report.rows))
        for report in (SMALL, LARGE)
    ]
    for report in (SMALL, merge(unlabelled)):
        assert fronts(report.rows) == ()
        assert not any(column(report.rows))
        assert to_dict(report)["fronts"] == []
        assert ">Pareto front</h2>" not in to_html(report)
        printed = io.StringIO()
        show(report, printed)
        assert "Pareto" not in printed.getvalue()


def test_runs_on_other_numbers_of_photos_are_named():
    other = dataclasses.replace(LARGE, rows=tuple(dataclasses.replace(r, images=50) for r in LARGE.rows))
    assert "different numbers of photos (50 and 400)" in to_html(merge([SMALL, other]))
