"""From a model's outputs to its decisions: the likeliest class, or a yes or no at a probability of 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import InputError
from converters.printable import encodable

SIGMOID, SOFTMAX = "sigmoid", "softmax"


@dataclass(frozen=True)
class OutputMeaning:
    """What the outputs of a model mean.

    Attributes:
        probabilities: whether they are probabilities; else they are logits.
        activation: the function from logits to probabilities, `softmax` or `sigmoid`. With several sigmoids each class
            is a decision of its own. A single output is always that of a sigmoid.
    """

    probabilities: bool = False
    activation: str = SOFTMAX

    @property
    def independent(self) -> bool:
        """Whether each of several outputs decides alone."""
        return self.activation == SIGMOID

    def decisions(self, outputs: np.ndarray) -> np.ndarray:
        """The decisions of each image.

        Args:
            outputs: `(n, outputs)`.

        Returns:
            The index of the largest output `(n, 1)`; for sigmoids whether each probability is over 0.5, `(n, outputs)`.
        """
        if self.independent or outputs.shape[1] == 1:
            return outputs > self.threshold
        return outputs.argmax(axis=1)[:, None]

    @property
    def threshold(self) -> float:
        """The output of a sigmoid at a probability of 0.5."""
        return 0.5 if self.probabilities else 0.0

    def class_outputs(self, outputs: np.ndarray) -> np.ndarray:
        """One output for each class `(n, classes)`: a single output `(n, 1)` becomes those of two classes.

        The softmax of the logits 0 and z is the sigmoid of z, so all that holds for two classes holds for the result.
        """
        if outputs.shape[1] != 1:
            return outputs
        return np.concatenate([1 - outputs if self.probabilities else np.zeros_like(outputs), outputs], axis=1)


LOGITS = OutputMeaning()


def agreeing(reference: np.ndarray, other: np.ndarray, meaning: OutputMeaning) -> np.ndarray:
    """On which images two models decide alike, bool `(n,)`, from their outputs `(n, outputs)`."""
    return (meaning.decisions(reference) == meaning.decisions(other)).all(axis=1)


def class_count(outputs: int) -> int:
    """The number of classes between which a model with so many outputs decides: two for one output."""
    return 2 if outputs == 1 else outputs


def check_labels(labels: Sequence[str], outputs: int) -> tuple[str, ...]:
    """The labels, in which what UTF-8 cannot encode is escaped.

    Raises:
        InputError: they do not name the classes of a model with so many outputs, each in one line.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InputError(
            f"labels must be a list of {class_count(outputs)} class names. Received: {type(labels).__name__}"
        )
    if len(labels) not in (outputs, class_count(outputs)):
        expected = f"{outputs} class names, one for each output"
        if outputs == 1:
            expected = "2 class names, of the class whose output is 0 and of the class whose output is 1"
        raise InputError(f"labels must be {expected}. Received: {len(labels)}")
    wrong = [label for label in labels if not isinstance(label, str) or not label.strip() or "\n" in label]
    if wrong:
        raise InputError(f"labels must be names of one line. Received: {wrong[0]!r:.80}")
    return tuple(map(encodable, labels))
