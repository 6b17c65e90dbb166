"""What every remote device can do: measure a model, and run it on given inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.open_model import Classifier
from edge_cv.evaluation.remote.golden import DescribedModel, GoldenInputs
from edge_cv.evaluation.runner_events import Repetitions


class RemoteDevice(ABC):
    """Another machine that runs models.

    Attributes:
        images_at_once: number of images that an evaluation sends at a time.
    """

    images_at_once: int

    @abstractmethod
    def measure(
        self,
        model: DescribedModel,
        golden: GoldenInputs | None,
        repetitions: Repetitions,
        on_progress: Callable[[int, int], None] | None,
    ) -> Measurement:
        """Measure a model on the device.

        Args:
            model: the file.
            golden: the golden inputs; None to send none.
            repetitions: threads and numbers of inferences.
            on_progress: called with the numbers of finished and of all timed inferences.

        Returns:
            The measurement. If the device fails before the end, it holds the results until then, and an `error`.

        Raises:
            InputError: nothing could be measured.
        """

    @abstractmethod
    def classifiers(self, models: Sequence[DescribedModel]) -> AbstractContextManager[Sequence[Classifier]]:
        """Open the models on the device.

        Raises:
            InputError: a model cannot be opened; also from the classifiers, when the device disconnects.
        """
