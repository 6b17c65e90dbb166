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


def features(model: Any) -> Any:
    """The features that a model's last layer classifies.

    Args:
        model: a functional or sequential Keras 3 model.

    Returns:
        The tensor `(batch, features)` before dropout and the last dense layer; None if the model does not end in a
        dense layer on a vector, perhaps with an activation behind it.
    """
    if not getattr(model, "outputs", None):  # a subclassed model
        return None
    tensor = model.outputs[0]
    while (kind := type(_layer(tensor)).__name__) in ("Activation", "Softmax"):
        tensor = _input(tensor)
    if kind != "Dense" or len(_input(tensor).shape) != 2:
        return None
    tensor = _input(tensor)
    while type(_layer(tensor)).__name__ == "Dropout":
        tensor = _input(tensor)
    return tensor


def _layer(tensor: Any) -> Any:
    return tensor._keras_history.operation


def _input(tensor: Any) -> Any:
    operation, node, _ = tensor._keras_history
    return operation._inbound_nodes[node].input_tensors[0]


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
