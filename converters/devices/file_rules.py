"""Rules about a file as a whole, which files of other converters break: metadata, custom operators and free sizes."""

from __future__ import annotations

from collections.abc import Iterator

from converters.devices.diagnostics import ERROR, WARNING, Diagnostic
from converters.tflite.graph import Graph, Operator
from converters.tflite.standard_metadata import StandardMetadata, read_standard
from converters.tflite.state import stateful_operators

CUSTOM = "CUSTOM"
_FLEX = "Flex"  # the prefix of TensorFlow's own operators


def mediapipe_metadata(content: bytes, graph: Graph) -> Iterator[Diagnostic]:
    """What MediaPipe 1.2.2's ImageClassifier refuses in a file's standard metadata; found out by running it."""
    found = read_standard(content, graph) or StandardMetadata()
    tensor = graph.inputs[0]
    if str(graph.dtype(tensor)) == "float32":
        where = (graph.name(tensor),)
        if found.mean is None or found.std is None:
            yield Diagnostic(
                ERROR,
                "a float32 input must have NormalizationOptions in the standard metadata. Found: none",
                "convert the model with edge-cv and its preprocessing, which writes them, or use uint8 input",
                where,
            )
        elif len(set(found.mean)) > 1 or len(set(found.std)) > 1:
            yield Diagnostic(
                ERROR,
                "mean and std must be the same for all channels: MediaPipe has no normalization by channel. "
                f"Found: mean {_numbers(found.mean)}, std {_numbers(found.std)}",
                "put the normalization into the model as a Rescaling or Normalization layer, so that it takes pixels",
                where,
            )
    outputs = graph.shape(graph.outputs[0])[-1:]
    if found.labels is not None and outputs and len(found.labels) != outputs[0]:
        yield Diagnostic(
            ERROR,
            f"the label file must have a line for each of the {outputs[0]} outputs. Found: {len(found.labels)}",
            "convert with one label an output",
        )


def custom_operators(graph: Graph, operators: list[Operator], target: str) -> Iterator[Diagnostic]:
    """Operators that are no part of TensorFlow Lite: those of TensorFlow itself (Flex), and custom ones."""
    where: dict[str, list[Operator]] = {}
    for operator in operators:
        if operator.name == CUSTOM:
            where.setdefault(custom_name(graph, operator), []).append(operator)
    for name, found in where.items():
        layers = tuple(graph.name(operator.outputs[0]) for operator in found if operator.outputs)
        if name.startswith(_FLEX):
            yield Diagnostic(
                ERROR,
                f"{target} alone does not run TensorFlow's operator {name.removeprefix(_FLEX)} (Flex). "
                f"Found: {len(found)} of {len(operators)} operators",
                "convert without SELECT_TF_OPS after replacing these layers, or link the Flex delegate "
                "(tensorflow-lite-select-tf-ops) on a phone or a PC",
                layers,
            )
        else:
            yield Diagnostic(
                ERROR,
                f"the custom operator {name} needs a kernel that {target} does not have. Found: {len(found)} of "
                f"{len(operators)} operators",
                "replace these layers in the model, or register the operator's kernel in the app",
                layers,
            )


def states(graph: Graph, _operators: list[Operator], _target: object) -> Iterator[Diagnostic]:
    """Operators that keep a state, with which a classifier's answer depends on the images before."""
    found = stateful_operators(graph)
    if found:
        yield Diagnostic(
            WARNING,
            "a classifier must give one answer for an image, whichever came before. Found: "
            f"{', '.join(dict.fromkeys(operator.name for operator in found))} with a state",
            "build a recurrent layer with unroll=True, or take the variable out of the model, and convert it again",
            tuple(graph.name(op.outputs[0] if op.outputs else op.inputs[0]) for op in found),
        )


def free_sizes(graph: Graph, operators: list[Operator], target: str, *, static: bool) -> Iterator[Diagnostic]:
    """Tensors with a free size; `static` is whether the target plans its memory ahead."""
    tensor = graph.inputs[0]
    signature = _signature(graph, tensor)
    if any(size < 0 for size in signature[1:]):
        yield Diagnostic(
            ERROR if static else WARNING,
            f"the input must have one size. Found: {_written(signature)}, which runs as "
            f"{_written(graph.shape(tensor))} unless the app resizes it",
            "convert the model with a fixed size (--input-size)",
            (graph.name(tensor),),
        )
    elif signature[:1] and signature[0] < 0 and static:
        yield Diagnostic(
            WARNING,
            f"the batch must be fixed for {target}, which plans its memory ahead. Found: {_written(signature)}",
            "convert the model with a batch of 1, as edge-cv does",
            (graph.name(tensor),),
        )
    later = [op for op in operators if any(min(_signature(graph, out)[1:], default=0) < 0 for out in op.outputs)]
    if later and not any(size < 0 for size in signature[1:]):
        yield Diagnostic(
            ERROR if static else WARNING,
            f"tensors must have fixed sizes. Found: {len(later)} of {len(operators)} operators whose output size is "
            "known only while they run",
            "replace the layers that compute a shape (a Reshape or resize to a computed size)",
            tuple(graph.name(operator.outputs[0]) for operator in later),
        )


def custom_name(graph: Graph, operator: Operator) -> str:
    """The name of a custom operator's kernel."""
    code = graph.model.operatorCodes[graph.subgraph.operators[operator.index].opcodeIndex]
    return (code.customCode or b"").decode(errors="replace")


def _signature(graph: Graph, tensor: int) -> tuple[int, ...]:
    """The tensor's shape with -1 for each free size."""
    sizes = graph.tensors[tensor].shapeSignature
    return graph.shape(tensor) if sizes is None or not len(sizes) else tuple(int(n) for n in sizes)


def _written(sizes: tuple[int, ...]) -> str:
    return "(" + ", ".join("free" if size < 0 else str(size) for size in sizes) + ")"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
