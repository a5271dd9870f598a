"""Standard ONNX ops, one handler each: how its attributes and inputs map to the op table at every
opset.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tenfold.errors import ModelError
from tenfold.importers.onnx.layers import (
    Handler,
    attention,
    batch_norm,
    conv,
    conv_integer,
    dequantize,
    dtype_name,
    gemm,
    global_lp_pool,
    global_pool,
    group_norm,
    mean_variance,
    plain,
    pool,
    qlinear_conv,
    qlinear_matmul,
    quantize,
    recurrent,
    softmax,
    swiglu,
)
from tenfold.importers.onnx.microsoft import ALSO_DEFAULT, MICROSOFT
from tenfold.importers.onnx.node import Node


def _constant(n: Node) -> list[str]:
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in n.attrs:
            return [n.builder.constant(n.outputs[0], np.asarray(n.attrs[name], dtype=dtype))]
    for name in ("value_string", "value_strings"):
        if name in n.attrs:
            return [n.builder.constant(n.outputs[0], np.asarray(n.attrs[name], dtype=object))]
    data = n.attrs.get("value", n.attrs.get("sparse_value"))
    if data is None:
        raise ModelError(f"node '{n.loc}': a Constant without a value")
    return [n.builder.constant(n.outputs[0], data)]


def _constant_of_shape(n: Node) -> list[str]:
    value = n.attr("value")
    fill = (
        value.reshape(-1)[:1].reshape(())
        if value is not None and value.size
        else np.zeros((), np.float32)
    )
    return n.out("full", [n.input(0), n.const(fill)])


def _random(n: Node) -> list[str]:
    normal = "Normal" in n.op_type
    attrs = n.same("mean", "scale") if normal else n.same("low", "high")
    return n.out(
        "random",
        [n.input(0)] if n.op_type.endswith("Like") else [],
        distribution="normal" if normal else "uniform",
        shape=n.attr("shape"),
        dtype=dtype_name(n, "dtype"),
        **attrs,
    )


def _axes_input(kind: str) -> Handler:
    """``axes`` was an attribute before opset 13."""
    return lambda n: n.out(
        kind,
        [
            n.input(0),
            (
                n.ints(*n.attr("axes"))
                if n.attr("axes") is not None
                else n.inputs[1]
                if n.has(1)
                else ""
            ),
        ],
    )


def _reduce(kind: str) -> Handler:
    def handle(n: Node) -> list[str]:
        axes = (
            n.ints(*n.attr("axes"))
            if n.attr("axes") is not None
            else (n.inputs[1] if n.has(1) else "")
        )
        return n.out(kind, [n.input(0), axes], **n.same("keepdims", "noop_with_empty_axes"))

    return handle


def _slice(n: Node) -> list[str]:
    if n.opset >= 10:
        return n.out("slice", n.inputs)
    starts, ends = n.needs("starts"), n.needs("ends")
    axes = n.attr("axes") or tuple(range(len(starts)))
    return n.out("slice", [n.input(0), n.ints(*starts), n.ints(*ends), n.ints(*axes)])


def _split(n: Node) -> list[str]:
    sizes = (
        n.ints(*n.attr("split"))
        if n.attr("split") is not None
        else (n.inputs[1] if n.has(1) else "")
    )
    return n.out("split", [n.input(0), sizes], axis=n.attr("axis", 0))


def _pad(n: Node) -> list[str]:
    mode = n.attr("mode", "constant")
    if n.opset < 11:
        return n.out(
            "pad", [n.input(0), n.ints(*n.needs("pads")), n.like(n.attr("value", 0.0))], mode=mode
        )
    return n.out("pad", n.inputs, mode=mode)


def _upsample(n: Node) -> list[str]:
    scales = n.const(n.attr("scales"), np.float32) if n.attr("scales") is not None else n.input(1)
    return n.out(
        "resize",
        [n.input(0), "", scales],
        mode=n.attr("mode", "nearest"),
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _resize(n: Node) -> list[str]:
    if n.opset < 11:
        return n.out(
            "resize",
            [n.input(0), "", n.input(1)],
            mode=n.attr("mode", "nearest"),
            nearest_mode="simple",
            coordinate_transformation_mode="asymmetric",
        )
    inputs = list(n.inputs)
    if len(inputs) > 2 and inputs[2] and n.type_of(inputs[2]).shape == (0,):
        inputs[2] = ""
    return n.out(
        "resize",
        inputs,
        **n.same(
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ),
    )


def _top_k(n: Node) -> list[str]:
    k = n.ints(n.needs("k")) if n.opset < 10 else n.input(1)
    return n.out("top_k", [n.input(0), k], **n.same("axis", "largest", "sorted"))


def _dft(n: Node) -> list[str]:
    inputs = [n.input(0), n.inputs[1] if n.has(1) else ""]
    if n.opset < 20:
        inputs.append(n.const(n.attr("axis", 1), np.int64))
    elif n.has(2):
        inputs.append(n.inputs[2])
    return n.out("dft", inputs, **n.same("inverse", "onesided"))


def _eye_like(n: Node) -> list[str]:
    return n.out("eye", n.inputs, k=n.attr("k", 0), dtype=dtype_name(n, "dtype"))


def _grid_sample(n: Node) -> list[str]:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(
        n.attr("mode", "linear"), n.attr("mode", "linear")
    )
    return n.out("grid_sample", n.inputs, mode=mode, **n.same("align_corners", "padding_mode"))


def _roi_align(n: Node) -> list[str]:
    default = "half_pixel" if n.opset >= 16 else "output_half_pixel"
    attrs = n.same("mode", "output_height", "output_width", "sampling_ratio", "spatial_scale")
    return n.out(
        "roi_align",
        n.inputs,
        coordinate_transformation_mode=n.attr("coordinate_transformation_mode", default),
        **attrs,
    )


def _cast(n: Node) -> list[str]:
    to = dtype_name(n, "to")
    if to is None:
        raise ModelError(f"node '{n.loc}': a Cast without a type")
    return n.out("cast", n.inputs, to=to, **n.same("saturate", "round_mode"))


def _cast_like(n: Node) -> list[str]:
    return n.out(
        "cast", [n.input(0)], to=n.value(1).dtype.value, **n.same("saturate", "round_mode")
    )


def _chain(kind: str) -> Handler:
    """An op of any number of operands as a chain of binary ones."""

    def handle(n: Node) -> list[str]:
        names = list(n.inputs)
        if not names:
            raise ModelError(f"node '{n.loc}': {n.op_type} of nothing")
        if len(names) == 1:
            return n.out("identity", names)
        acc = names[0]
        for other in names[1:-1]:
            acc = n.emit(kind, [acc, other])
        return n.out(kind, [acc, names[-1]])

    return handle


def _mean(n: Node) -> list[str]:
    acc = n.input(0)
    for other in n.inputs[1:]:
        acc = n.emit("add", [acc, other])
    return n.out("div", [acc, n.like(len(n.inputs))])


def _clip(n: Node) -> list[str]:
    if n.opset >= 11:
        return n.out("clip", n.inputs)
    low, high = n.attr("min"), n.attr("max")
    return n.out(
        "clip",
        [
            n.input(0),
            n.like(low) if low is not None else "",
            n.like(high) if high is not None else "",
        ],
    )


def _dropout(n: Node) -> list[str]:
    """Inference: the identity, and a mask of ones."""
    training = n.known(2)
    if n.has(2) and (training is None or bool(training.reshape(-1)[0])):
        ratio = n.known(1)
        if n.has(1) and (ratio is None or float(ratio.reshape(-1)[0]) != 0.0):
            raise ModelError(
                f"node '{n.loc}': Dropout in training mode: export the model for inference"
            )
    y = n.builder.unique(n.outputs[0])
    from tenfold.ir.graph import Op

    n.builder.emit(Op("identity", (n.input(0),), (y,), {}, (), n.loc))
    if len(n.outputs) < 2 or not n.outputs[1]:
        return [y]
    mask = n.emit("expand", [n.const(np.asarray(True)), n.emit("shape", [n.input(0)])])
    return [y, mask]


_POINTWISE = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Add": "add", "And": "and", "Asin": "asin",
    "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh", "BitwiseAnd": "bitwise_and",
    "BitwiseNot": "bitwise_not", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Div": "div", "Equal": "equal", "Erf": "erf",
    "Exp": "exp", "Floor": "floor", "Greater": "greater", "GreaterOrEqual": "greater_equal",
    "HardSwish": "hard_swish", "Identity": "identity", "IsNaN": "is_nan", "Less": "less",
    "LessOrEqual": "less_equal", "Log": "log", "Mish": "mish", "Mul": "mul", "Neg": "neg",
    "Not": "not", "Or": "or", "PRelu": "prelu", "Pow": "pow", "Reciprocal": "reciprocal",
    "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin",
    "Sinh": "sinh", "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt", "Sub": "sub",
    "Tan": "tan", "Tanh": "tanh", "Where": "where", "Xor": "xor", "Det": "det", "Expand": "expand",
    "Tile": "tile", "NonZero": "non_zero", "Size": "size", "Range": "range",
    "DynamicQuantizeLinear": "dynamic_quantize", "MatMulInteger": "matmul_integer",
    "MatMul": "matmul",
}  # fmt: skip


_WITH_ATTRS: dict[str, tuple[str, ...]] = {
    "BitShift": ("bit_shift", "direction"), "Celu": ("celu", "alpha"), "Elu": ("elu", "alpha"),
    "Gelu": ("gelu", "approximate"), "HardSigmoid": ("hard_sigmoid", "alpha", "beta"),
    "IsInf": ("is_inf", "detect_negative", "detect_positive"), "LeakyRelu": ("leaky_relu", "alpha"),
    "Mod": ("mod", "fmod"), "Selu": ("selu", "alpha", "gamma"), "Shrink": ("shrink", "lambd",
    "bias"), "Swish": ("swish", "alpha"), "ThresholdedRelu": ("thresholded_relu", "alpha"),
    "ArgMax": ("arg_max", "axis", "keepdims", "select_last_index"), "ArgMin": ("arg_min", "axis",
    "keepdims", "select_last_index"), "CumSum": ("cum_sum", "exclusive", "reverse"),
    "CumProd": ("cum_prod", "exclusive", "reverse"), "Concat": ("concat", "axis"),
    "DepthToSpace": ("depth_to_space", "blocksize", "mode"), "SpaceToDepth": ("space_to_depth",
    "blocksize", "mode"), "Flatten": ("flatten", "axis"), "Reshape": ("reshape", "allowzero"),
    "Shape": ("shape", "start", "end"), "Transpose": ("transpose", "perm"), "Trilu": ("trilu",
    "upper"), "ReverseSequence": ("reverse_sequence", "batch_axis", "time_axis"),
    "CenterCropPad": ("center_crop_pad", "axes"), "Compress": ("compress", "axis"),
    "Gather": ("gather", "axis"), "GatherElements": ("gather_elements", "axis"),
    "GatherND": ("gather_nd", "batch_dims"), "ScatterElements": ("scatter_elements", "axis",
    "reduction"), "Scatter": ("scatter_elements", "axis"), "ScatterND": ("scatter_nd", "reduction"),
    "OneHot": ("one_hot", "axis"), "TensorScatter": ("tensor_scatter", "axis", "mode"),
    "Unique": ("unique", "axis", "sorted"), "NonMaxSuppression": ("non_max_suppression",
    "center_point_box"), "Einsum": ("einsum", "equation"),
    "InstanceNormalization": ("instance_norm", "epsilon"), "LRN": ("lrn", "alpha", "beta", "bias",
    "size"), "LayerNormalization": ("layer_norm", "axis", "epsilon"),
    "RMSNormalization": ("rms_norm", "axis", "epsilon"), "LpNormalization": ("lp_normalization",
    "axis", "p"), "MaxUnpool": ("max_unpool", "kernel_shape", "pads", "strides"),
    "MaxRoiPool": ("max_roi_pool", "pooled_shape", "spatial_scale"), "AffineGrid": ("affine_grid",
    "align_corners"), "Col2Im": ("col2im", "dilations", "pads", "strides"), "STFT": ("stft",
    "onesided"), "ImageDecoder": ("image_decoder", "pixel_format"),
    "MelWeightMatrix": ("mel_weight_matrix", "output_datatype"), "ConvTranspose": ("conv_transpose",
    "auto_pad", "dilations", "group", "output_padding", "output_shape", "pads", "strides"),
    "DeformConv": ("deform_conv", "dilations", "group", "kernel_shape", "offset_group", "pads",
    "strides"), "RotaryEmbedding": ("rotary_embedding", "interleaved", "num_heads",
    "rotary_embedding_dim"), "CausalConvWithState": ("causal_conv", "activation"),
    "LinearAttention": ("linear_attention", "q_num_heads", "kv_num_heads", "scale", "update_rule",
    "chunk_size"), "TfIdfVectorizer": ("tfidf", "max_gram_length", "max_skip_count",
    "min_gram_length", "mode", "ngram_counts", "ngram_indexes", "pool_int64s", "pool_strings",
    "weights"),
}  # fmt: skip


_WINDOWS = {"HannWindow": "hann", "HammingWindow": "hamming", "BlackmanWindow": "blackman"}


_SPECIAL: dict[str, Handler] = {
    "AveragePool": pool("average_pool"),
    "Attention": attention,
    "BatchNormalization": batch_norm,
    "Bernoulli": lambda n: n.out("bernoulli", n.inputs, dtype=dtype_name(n, "dtype")),
    "BitCast": lambda n: n.out("bit_cast", n.inputs, to=dtype_name(n, "to")),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "DFT": _dft,
    "DequantizeLinear": dequantize,
    "Dropout": _dropout,
    "EyeLike": _eye_like,
    "GRU": recurrent("gru", "linear_before_reset"),
    "Gemm": gemm,
    "GlobalAveragePool": global_pool("reduce_mean"),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_pool("reduce_max"),
    "GridSample": _grid_sample,
    "GroupNormalization": group_norm,
    "Hardmax": softmax("hardmax"),
    "LSTM": recurrent("lstm", "input_forget"),
    "LogSoftmax": softmax("log_softmax"),
    "LpPool": pool("lp_pool"),
    "Max": _chain("max"),
    "MaxPool": pool("max_pool"),
    "Mean": _mean,
    "MeanVarianceNormalization": mean_variance,
    "Min": _chain("min"),
    "Multinomial": lambda n: n.out(
        "multinomial", n.inputs, sample_size=n.attr("sample_size", 1), dtype=dtype_name(n, "dtype")
    ),
    "Pad": _pad,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize,
    "RNN": recurrent("rnn"),
    "RandomNormal": _random,
    "RandomNormalLike": _random,
    "RandomUniform": _random,
    "RandomUniformLike": _random,
    "Resize": _resize,
    "RoiAlign": _roi_align,
    "Slice": _slice,
    "Softmax": softmax("softmax"),
    "Split": _split,
    "Squeeze": _axes_input("squeeze"),
    "Sum": _chain("add"),
    "SwiGLU": swiglu,
    "TopK": _top_k,
    "Unsqueeze": _axes_input("unsqueeze"),
    "Upsample": _upsample,
}


def _standard() -> dict[str, Handler]:
    table: dict[str, Handler] = {op: plain(kind) for op, kind in _POINTWISE.items()}
    table |= {op: plain(row[0], *row[1:]) for op, row in _WITH_ATTRS.items()}
    table |= {
        f"Reduce{op}": _reduce(f"reduce_{kind}")
        for op, kind in {
            "Sum": "sum",
            "Mean": "mean",
            "Max": "max",
            "Min": "min",
            "Prod": "prod",
            "L1": "l1",
            "L2": "l2",
            "LogSum": "log_sum",
            "LogSumExp": "log_sum_exp",
            "SumSquare": "sum_square",
        }.items()
    }
    for op, name in _WINDOWS.items():
        table[op] = lambda n, name=name: n.out(
            "window",
            n.inputs,
            function=name,
            periodic=n.attr("periodic", 1),  # type: ignore[misc]
            dtype=dtype_name(n, "output_datatype"),
        )
    return table | _SPECIAL


HANDLERS: Mapping[tuple[str, str], Handler] = (
    {("", op): h for op, h in _standard().items()}
    | {("com.microsoft", op): h for op, h in MICROSOFT.items()}
    | {("", op): MICROSOFT[op] for op in ALSO_DEFAULT}
)
