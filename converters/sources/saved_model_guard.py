"""The operations that a SavedModel may hold: an allow-list, checked before anything of it is loaded.

TensorFlow runs whatever a graph holds, and an operation can read or write any file that its user can. So a graph may
hold what a classifier needs (operations that have a TFLite form, variables, control flow and the random numbers of
augmentation) and nothing else: a new or an unknown operation is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from converters.errors import InputError

_ARITHMETIC = """
Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh BiasAdd BiasAddV1 Ceil ClipByValue Complex ComplexAbs Cos
Cosh Div DivNoNan Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Imag Inv Log Log1p Maximum Minimum Mod Mul
MulNoNan Neg Pow RFFT2D Real RealDiv Reciprocal Rint Round Rsqrt Sign Sin Sinh Sqrt Square SquaredDifference Sub Tan
Tanh TruncateDiv TruncateMod Xdivy Xlogy
"""
_ACTIVATIONS = "Elu LeakyRelu LogSoftmax Relu Relu6 Selu Sigmoid Softmax Softplus Softsign"
_LAYERS = """
AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 Conv2D Conv2DBackpropInput DepthwiseConv2dNative Einsum FusedBatchNorm
FusedBatchNormV2 FusedBatchNormV3 L2Loss LRN MatMul MaxPool MaxPoolV2 XlaConvV2 XlaDotV2
"""
_REDUCTIONS = """
All Any ArgMax ArgMin Bucketize Cumprod Cumsum CumulativeLogsumexp EuclideanNorm InTopK InTopKV2 Max Mean Min Prod
SegmentSum Sum TopK TopKV2 UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum
"""
_SHAPES = """
BatchToSpace BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatV2 DepthToSpace EnsureShape ExpandDims Fill Gather
GatherNd GatherV2 MatrixDiag MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad OneHot
Pack Pad PadV2 Range Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd Shape ShapeN Size Slice
SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice Tile Transpose Unpack Where
"""
_SELECTION = """
ApproximateEqual BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterEqual Invert LeftShift Less LessEqual LogicalAnd
LogicalNot LogicalOr LogicalXor NotEqual RightShift Select SelectV2
"""
_IMAGES = """
AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize ExtractImagePatches HSVToRGB ImageProjectiveTransformV2
ImageProjectiveTransformV3 RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
"""
_VALUES = """
Bitcast Cast CheckNumerics Const DeepCopy Empty Identity IdentityN IsFinite IsInf IsNan LinSpace NoOp OnesLike
Placeholder PlaceholderWithDefault PreventGradient Snapshot StopGradient ZerosLike
"""
_QUANTIZATION = """
FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2
QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
"""
_VARIABLES = """
AssignAddVariableOp AssignSubVariableOp AssignVariableOp DisableCopyOnRead ReadVariableOp ResourceGather
ResourceGatherNd VarHandleOp VarIsInitializedOp VariableShape
"""
_CONTROL = """
Assert Case Enter Exit If LoopCond Merge NextIteration PartitionedCall StatefulPartitionedCall StatelessCase
StatelessIf StatelessWhile Switch While
"""
_RANDOM = """
GetAlg Multinomial ParameterizedTruncatedNormal RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
RngReadAndSkip RngSkip StatefulStandardNormalV2 StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt
StatefulUniformInt StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg
StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformFullInt
StatelessRandomUniformFullIntV2 StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2
StatelessShuffle StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
"""
_LISTS = """
EmptyTensorList TensorListConcatV2 TensorListFromTensor TensorListGetItem TensorListLength TensorListPushBack
TensorListReserve TensorListSetItem TensorListStack
"""
ALLOWED = frozenset(
    f"{_ARITHMETIC} {_ACTIVATIONS} {_LAYERS} {_REDUCTIONS} {_SHAPES} {_SELECTION} {_IMAGES} {_VALUES} {_QUANTIZATION} "
    f"{_VARIABLES} {_CONTROL} {_RANDOM} {_LISTS}".split()
)
# What the functions that save and restore the variables hold beside it. Nothing of them runs while a model is loaded
# or called, so only in them, and only while nothing else calls them.
_SAVER = frozenset(
    ["MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"]
)
_SAVER_NAMES = ("__inference__traced_save", "__inference__traced_restore")


def refuse_unsafe(path: object, model: Any) -> None:
    """Raise InputError, with their names, for operations that are not allowed.

    Args:
        path: the SavedModel, for the message.
        model: its `SavedModel` protocol buffer.
    """
    unsafe = {operation for meta_graph in model.meta_graphs for operation in _unsafe_operations(meta_graph)}
    if unsafe:
        named = ", ".join(name[:80] for name in sorted(unsafe)[:8]) + (" and others" if len(unsafe) > 8 else "")
        raise InputError(
            f"{path} holds operations that no image classifier needs and that may read or write files, so it is not "
            f"run: {named}. Set unsafe=True (--unsafe) if you trust whoever made it"
        )


def _unsafe_operations(meta_graph: Any) -> set[str]:
    """The operations of the graph and of its functions that are not allowed."""
    functions = {function.signature.name: function.node_def for function in meta_graph.graph_def.library.function}
    savers = _savers(meta_graph, functions)
    unsafe = _outside(meta_graph.graph_def.node, ALLOWED, functions)
    for name, nodes in functions.items():
        unsafe |= _outside(nodes, ALLOWED | _SAVER if name in savers else ALLOWED, functions)
    return unsafe


def _outside(nodes: Iterable[Any], allowed: frozenset[str], functions: dict[str, Any]) -> set[str]:
    return {node.op for node in nodes if node.op not in allowed and node.op not in functions}


def _savers(meta_graph: Any, functions: dict[str, Any]) -> set[str]:
    """The functions that save and restore the variables and that no function or object of the model calls.

    The main graph calls them by the names in its `saver_def`; loading a TensorFlow 2 model does not run that graph.
    """
    saver = meta_graph.saver_def
    ends = {name.partition(":")[0] for name in (saver.save_tensor_name, saver.restore_op_name)}
    called = set(meta_graph.object_graph_def.concrete_functions)
    called |= {name for nodes in functions.values() for node in nodes for name in _calls(node)}
    called |= {name for node in meta_graph.graph_def.node if node.name not in ends for name in _calls(node)}
    return {name for name in functions if name.startswith(_SAVER_NAMES) and name not in called}


def _calls(node: Any) -> set[str]:
    """The functions that a node calls: as its operation or as an attribute."""
    named = {node.op}
    for attribute in node.attr.values():
        named |= {attribute.func.name} | {function.name for function in attribute.list.func}
    return named
