"""What a device can do, however it is reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from edge_cv.evaluation.inference import Classifier
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.remote.golden import DescribedModel


class RemoteDevice(ABC):
    """A machine that runs artifacts and is not this one.

    Attributes:
        images_at_once: how many photos an evaluation sends at a time.
    """

    images_at_once: int

    @abstractmethod
    def measure(
        self,
        artifact: DescribedModel,
        golden: tuple[str, bytes] | None,
        *,
        threads: Sequence[int],
        runs: int,
        warmup: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> Measurement:
        """Runs the artifact over there; what was measured before a failure is in the result, with its `error`.

        Args:
            artifact: the file.
            golden: SHA-256 and content of the golden inputs.
            threads, runs, warmup, on_progress: as `edge_cv.evaluation.measure` takes them.

        Raises:
            InputError: nothing could be measured.
        """

    @abstractmethod
    def classifiers(self, artifacts: Sequence[DescribedModel]) -> AbstractContextManager[list[Classifier]]:
        """Each artifact open over there.

        Raises:
            InputError: one cannot be opened; also while it is used, when the device goes away.
        """
