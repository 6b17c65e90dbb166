"""Progress: times in words, lines without a terminal, and bars within bars."""

from __future__ import annotations

import io
import re

import pytest

from edge_cv import progress
from edge_cv.progress import duration, shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (599.6, "10 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (47.9 * 3600, "2 d 0 h"),
        (71 * 3600, "2 d 23 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_a_step_ends_with_its_last_note_and_its_time(capsys):
    with shown("training") as update:
        update(1, 2, "first")
        with shown("expected time") as tell:
            tell(1, 1, "2 h 5 min")
        update(2, 2, "last")
    assert re.fullmatch(r"expected time: 2 h 5 min\ntraining: last( \(0\.\d s\))?\n", capsys.readouterr().err)


def test_a_bar_within_a_bar_shares_its_display(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with shown("training") as update:
        update(1, 2, "first")
        (outer,) = progress._displays
        with shown("expected time") as tell:
            tell(1, 1, "2 h 5 min")
            assert progress._displays == [outer]
            assert len(outer.tasks) == 2
        assert [task.description for task in outer.tasks] == ["training"]
    assert progress._displays == []
    assert "expected time: 2 h 5 min" in terminal.getvalue()
    assert "training: first" in terminal.getvalue()
