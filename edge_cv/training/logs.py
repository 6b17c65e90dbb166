"""Logs of a training: `history.csv` and TensorBoard's event files."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.files import write_atomic
from converters.packages import require
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
    writer = csv.DictWriter(text, (*COLUMNS, KEPT), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    kept = kept_epoch(history)
    writer.writerows({**entry, KEPT: int(entry is kept)} for entry in history)
    write_atomic(path, text.getvalue())


class TensorBoard:
    """Event files of a training. After resuming they start with the epochs of the history.

    The writer of tensorboardX's `SummaryWriter` is a thread: a full disk ends it, and then the training waits for ever.
    """

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]) -> None:
        require("training with logs", "train")
        from tensorboardX.event_file_writer import EventsWriter

        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        for entry in history:
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write the values of one epoch. Raises InputError if the file cannot be written."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with self._writing():
            for name in COLUMNS[2:]:
                if entry.get(name) is not None:
                    summary = scalar(name, entry[name])
                    self._writer.write_event(Event(wall_time=time.time(), step=entry["epoch"], summary=summary))
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        with contextlib.suppress(OSError):  # what `add` could not write
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written: {error.strerror or error}") from error
