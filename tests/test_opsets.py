"""Ops whose form changed between opsets, at each form, against ONNX Runtime (fp32, rtol 1e-4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from support import check_against_runtime, model_of
from tenfold.ir.graph import Array

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 6, 6)).astype(np.float32)


def c(*values: int) -> Array:
    return np.asarray(values, np.int64)


# name: (op, attributes, constant inputs after x, number of outputs, opsets)
CASES: dict[str, tuple[str, dict[str, Any], list[Array | None], int, list[int]]] = {
    "clip_attributes": ("Clip", {"min": -0.5, "max": 0.5}, [], 1, [7, 10]),
    "clip_inputs": ("Clip", {}, [np.float32(-0.5), np.float32(0.5)], 1, [11, 13, 20]),
    "clip_high_only": ("Clip", {}, [None, np.float32(0.5)], 1, [11, 13]),
    "pad_attributes": ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "value": 1.5}, [], 1, [7, 10]),
    "pad_inputs": ("Pad", {}, [c(0, 0, 1, 2, 0, 0, 2, 1), np.float32(1.5)], 1, [11, 13, 18]),
    "pad_reflect": ("Pad", {"mode": "reflect"}, [c(0, 0, 1, 2, 0, 0, 2, 1)], 1, [13]),
    "pad_negative": ("Pad", {}, [c(0, 0, -1, 2, 0, 0, 1, -2)], 1, [13]),
    "pad_axes": ("Pad", {"mode": "edge"}, [c(1, 2), None, c(3)], 1, [18]),
    "squeeze_attribute": ("Squeeze", {"axes": [0]}, [], 1, [7, 11]),
    "squeeze_input": ("Squeeze", {}, [c(0)], 1, [13, 21]),
    "unsqueeze_attribute": ("Unsqueeze", {"axes": [0, 3]}, [], 1, [7, 11]),
    "unsqueeze_input": ("Unsqueeze", {}, [c(0, -1)], 1, [13, 21]),
    "slice_attributes": ("Slice", {"starts": [1, -4], "ends": [3, 99], "axes": [2, 3]}, [], 1,
        [7, 9]),
    "slice_inputs": ("Slice", {}, [c(5, -2), c(0, -7), c(2, 3), c(-2, -1)], 1, [10, 13]),
    "softmax_flattened": ("Softmax", {"axis": 1}, [], 1, [7, 11]),
    "softmax_default_old": ("Softmax", {}, [], 1, [7, 12]),
    "softmax_axis": ("Softmax", {"axis": 1}, [], 1, [13]),
    "log_softmax": ("LogSoftmax", {"axis": 2}, [], 1, [7, 11, 13]),
    "hardmax": ("Hardmax", {"axis": 1}, [], 1, [11, 13]),
    "reduce_sum_attribute": ("ReduceSum", {"axes": [1, -1], "keepdims": 0}, [], 1, [7, 11]),
    "reduce_sum_input": ("ReduceSum", {"keepdims": 0}, [c(1, -1)], 1, [13]),
    "reduce_mean_attribute": ("ReduceMean", {"axes": [2]}, [], 1, [7, 13]),
    "reduce_mean_input": ("ReduceMean", {}, [c(2)], 1, [18]),
    "reduce_l2": ("ReduceL2", {"axes": [0, 3]}, [], 1, [7, 13]),
    "reduce_all": ("ReduceMax", {"keepdims": 0}, [], 1, [7, 12, 18]),
    "split_attribute": ("Split", {"split": [1, 5], "axis": 2}, [], 2, [7, 11]),
    "split_input": ("Split", {"axis": 2}, [c(4, 2)], 2, [13]),
    "split_even": ("Split", {"axis": 3}, [], 3, [7, 13]),
    "split_uneven": ("Split", {"axis": 3, "num_outputs": 4}, [], 4, [18]),
    "topk_attribute": ("TopK", {"k": 2, "axis": 2}, [], 2, [7]),
    "topk_input": ("TopK", {"axis": 3, "largest": 0}, [c(3)], 2, [11]),
    "upsample_attribute": ("Upsample", {"scales": [1.0, 1.0, 2.0, 1.5], "mode": "nearest"}, [],
        1, [7]),
    "upsample_input": ("Upsample", {"mode": "linear"}, [np.array([1, 1, 2, 2], np.float32)], 1,
        [9]),
    "resize_10": ("Resize", {"mode": "nearest"}, [np.array([1, 1, 0.5, 2], np.float32)], 1,
        [10]),
    "resize_scales": ("Resize", {"mode": "linear"}, [None, np.array([1, 1, 1.7, 0.6],
        np.float32)], 1, [13, 18]),
    "resize_sizes": ("Resize", {"mode": "cubic"}, [None, None, c(2, 3, 9, 4)], 1, [13, 19]),
    "resize_corners": ("Resize", {"mode": "linear",
        "coordinate_transformation_mode": "align_corners"}, [None, None, c(2, 3, 11, 4)], 1, [13,
        18]),
    "resize_nearest": ("Resize", {"mode": "nearest",
        "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [None,
        np.array([1, 1, 2, 3], np.float32)], 1, [13, 19]),
    "batch_norm": ("BatchNormalization", {"epsilon": 1e-3}, [np.array(v, np.float32) for v in
        ((1, 2, 3), (0, 1, 2), (0.1, 0.2, 0.3), (1, 2, 0.5))], 1, [7, 9, 14, 15]),
    "dropout": ("Dropout", {}, [], 1, [7, 10, 12, 13]),
    "cast": ("Cast", {"to": 7}, [], 1, [7, 9, 13, 19]),
    "max_pool": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]},
        [], 1, [7, 8, 10, 12]),
    "max_pool_indices": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1,
        1, 1]}, [], 2, [8, 12]),
    "max_pool_ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1,
        "dilations": [1, 2]}, [], 1, [10, 12]),
    "average_pool": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1,
        1, 1]}, [], 1, [7, 10, 19]),
    "average_pool_count": ("AveragePool", {"kernel_shape": [2, 3], "pads": [1, 1, 0, 1],
        "count_include_pad": 1}, [], 1, [7, 10]),
    "average_pool_same": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2],
        "auto_pad": "SAME_UPPER"}, [], 1, [7, 11]),
    "flatten": ("Flatten", {"axis": 2}, [], 1, [7, 9, 13]),
    "reshape": ("Reshape", {}, [c(0, -1, 9)], 1, [7, 13, 14]),
    "cum_sum": ("CumSum", {"reverse": 1, "exclusive": 1}, [np.asarray(2, np.int32)], 1, [11,
        14]),
    "arg_max": ("ArgMax", {"axis": 2, "keepdims": 0}, [], 1, [7, 11, 12]),
    "depth_to_space": ("DepthToSpace", {"blocksize": 1}, [], 1, [7, 11]),
    "space_to_depth": ("SpaceToDepth", {"blocksize": 2}, [], 1, [7, 13]),
    "expand": ("Expand", {}, [c(5, 1, 1, 1, 6)], 1, [8, 13]),
    "tile": ("Tile", {}, [c(1, 2, 1, 3)], 1, [7, 13]),
    "lrn": ("LRN", {"size": 3, "alpha": 0.1}, [], 1, [7, 13]),
    "instance_norm": ("InstanceNormalization", {}, [np.array([1, 2, 3], np.float32),
        np.array([0, 1, 0], np.float32)], 1, [7, 22]),
    "layer_norm": ("LayerNormalization", {"axis": -1}, [np.linspace(1, 2, 6).astype(np.float32),
        np.zeros(6, np.float32)], 1, [17]),
    "gelu": ("Gelu", {"approximate": "tanh"}, [], 1, [20]),
    "trilu": ("Trilu", {"upper": 0}, [np.asarray(1, np.int64)], 1, [14]),
    "mean_variance": ("MeanVarianceNormalization", {}, [], 1, [9, 13]),
    "global_average": ("GlobalAveragePool", {}, [], 1, [7, 22]),
    "global_max": ("GlobalMaxPool", {}, [], 1, [7]),
    "hard_swish": ("HardSwish", {}, [], 1, [14]),
    "mod": ("Mod", {"fmod": 1}, [np.float32(0.7)], 1, [10, 13]),
    "pow": ("Pow", {}, [np.float32(2)], 1, [7, 13, 15]),
    "gather": ("Gather", {"axis": 2}, [c(-1, 0)], 1, [7, 11, 13]),
}  # fmt: skip


@pytest.mark.parametrize(("case", "opset"), [(k, o) for k, v in CASES.items() for o in v[4]])
def test_equals_onnx_runtime(case: str, opset: int) -> None:
    op, attrs, rest, outputs, _ = CASES[case]
    x = X[:1] if op == "Squeeze" else X
    names = [f"k{i}" if a is not None else "" for i, a in enumerate(rest)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, ["x", *names], results, **attrs)
    constants = {n: a for n, a in zip(names, rest, strict=True) if a is not None}
    graph = check_against_runtime(
        model_of([node], {"x": (np.float32, x.shape)}, results, constants, opset=opset), {"x": x}
    )
    assert all(o.kind != "opaque" for o in graph.ops)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_gemm(opset: int) -> None:
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], alpha=0.5, beta=2.0, transA=1, transB=1)
    arrays = {
        n: RNG.standard_normal(s).astype(np.float32)
        for n, s in (("a", (4, 3)), ("b", (5, 4)), ("c", (5,)))
    }
    model = model_of(
        [node], {n: (np.float32, a.shape) for n, a in arrays.items()}, ["y"], opset=opset
    )
    check_against_runtime(model, arrays)


@pytest.mark.parametrize("opset", [7, 14])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "gates", "extra"),
    [("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 1}), ("GRU", 3, {}), ("RNN", 1, {})],
)
def test_recurrent(op: str, gates: int, extra: dict[str, Any], direction: str, opset: int) -> None:
    seq, batch, width, hidden = 5, 3, 4, 6
    d = 2 if direction == "bidirectional" else 1
    arrays = {
        "x": RNG.standard_normal((seq, batch, width)),
        "w": RNG.standard_normal((d, gates * hidden, width)),
        "r": RNG.standard_normal((d, gates * hidden, hidden)),
        "b": RNG.standard_normal((d, 2 * gates * hidden)),
        "h": RNG.standard_normal((d, batch, hidden)),
    }
    feeds = {n: a.astype(np.float32) for n, a in arrays.items()} | {
        "n": np.array([5, 2, 4], np.int32)
    }
    outputs = ["y", "y_h", "y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(
        op,
        ["x", "w", "r", "b", "n", "h"],
        outputs,
        hidden_size=hidden,
        direction=direction,
        **extra,
    )
    model = model_of(
        [node], {n: (a.dtype, a.shape) for n, a in feeds.items()}, outputs, opset=opset
    )
    check_against_runtime(model, feeds)


def test_sparse_initialiser() -> None:
    dense = np.zeros((3, 4), np.float32)
    dense[0, 1], dense[2, 3] = 5, 7
    node = helper.make_node("Add", ["x", "s"], ["y"])
    model = model_of([node], {"x": (np.float32, (3, 4))}, ["y"])
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "s")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 11]), "i"), [3, 4])
    )
    from support import imported
    from tenfold.ir import interpret

    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(interpret(imported(model), {"x": x})["y"], x + dense)
