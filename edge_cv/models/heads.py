"""The end of a Keras model: what its outputs mean, and the logits of classes that a loss takes."""

from __future__ import annotations

from typing import Any

from converters.decisions import SIGMOID, SOFTMAX, OutputMeaning, class_count

_SMALLEST = 1e-7  # of a probability whose logit is computed


def output_meaning(model: Any) -> OutputMeaning:
    """What the outputs of a Keras 3 or tf_keras model mean, by its last layer."""
    last = model.layers[-1]
    while hasattr(last, "layers"):
        last = last.layers[-1]
    last = getattr(last, "layer", last)  # of a wrapper
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if type(last).__name__ == "Softmax":
        activation = SOFTMAX
    sigmoid = activation == SIGMOID or int(model.outputs[0].shape[-1]) == 1
    return OutputMeaning(activation in (SOFTMAX, SIGMOID), SIGMOID if sigmoid else SOFTMAX)


def fits(outputs: int, classes: int, multi_label: bool) -> bool:
    """Whether a model with so many outputs can be trained on images of so many classes: two for one output."""
    return classes == (outputs if multi_label else class_count(outputs))


def class_logits(outputs: Any, meaning: OutputMeaning, multi_label: bool) -> Any:
    """The logits of the classes.

    Args:
        outputs: of the model, `(batch, outputs)`.
        meaning: of the outputs.
        multi_label: whether each class is a decision of its own; if not, a single output decides between two classes.

    Returns:
        `(batch, classes)`. A single output becomes the logits 0 and z, whose softmax is the sigmoid of z.
    """
    from keras import ops

    single = outputs.shape[-1] == 1 and not multi_label
    if meaning.probabilities:
        p = ops.clip(outputs, _SMALLEST, 1 - _SMALLEST)
        outputs = ops.log(p) - ops.log(1 - p) if single or multi_label else ops.log(p)
    return ops.concatenate([ops.zeros_like(outputs), outputs], axis=-1) if single else outputs
