"""Logs of a training: `history.csv` and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.files import write_atomic
from edge_cv.training.kept_epoch import kept_epoch

COLUMNS = (
    "epoch",
    "phase",
    "learning_rate",
    "loss",
    "score",
    "validation_loss",
    "validation_score",
    "validation_images",
    "images_per_second",
    "seconds",
)
KEPT = "kept"  # the last column: 1 for the epoch whose weights are kept, else 0


def write_csv(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write one line per epoch, with `COLUMNS` and `KEPT`. The file is replaced as a whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*COLUMNS, KEPT), lineterminator="\n")
    writer.writeheader()
    kept = kept_epoch(history)
    writer.writerows({**entry, KEPT: int(entry is kept)} for entry in history)
    write_atomic(path, text.getvalue())


class TensorBoard:
    """Event files of a training. After resuming they start with the epochs of the history."""

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        for entry in history:
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write the values of one epoch."""
        for name in COLUMNS[2:]:
            if entry.get(name) is not None:
                self._writer.add_scalar(name, entry[name], entry["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
