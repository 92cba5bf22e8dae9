"""The operations of ONNX that generators use, in PyTorch (https://onnx.ai/onnx/operators, opsets 9 to 23)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from ganlens.models.bit_exact import dense, pointwise
from ganlens.models.files.pickles import CheckpointError
from ganlens.models.files.reading import bounded
from ganlens.models.files.records import short

Settings = Mapping[str, Any]
Value = torch.Tensor | None


def whole(value: Value) -> list[int]:
    return [] if value is None else [int(n) for n in value.flatten().tolist()]


def axes_of(settings: Settings, given: Value) -> list[int]:
    """The axes that a node names in its settings, as older versions do, or by an input."""
    return [int(n) for n in settings.get("axes") or []] if given is None else whole(given)


def padding_of(settings: Settings, ndim: int) -> list[int]:
    """Padding in front of and behind each axis, as F.pad takes it: the last axis first."""
    if settings.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise CheckpointError(f"closest to ONNX, but auto_pad is {short(settings['auto_pad'])}, which is not known")
    pads = settings.get("pads") or [0] * 2 * ndim
    return [int(n) for i in reversed(range(ndim)) for n in (pads[i], pads[i + ndim])]


def gemm(s: Settings, a, b, c=None):
    a = a.T if s.get("transA") else a
    b = b if s.get("transB") else b.T
    found = dense(a, b) * s.get("alpha", 1.0)
    return found if c is None else found + c * s.get("beta", 1.0)


def matmul(s: Settings, a, b):
    bounded("ONNX", [*a.shape[:-1], b.shape[-1]])
    return dense(a, b.T) if a.ndim == 2 and b.ndim == 2 else a @ b


def conv(s: Settings, r, weight, bias=None):
    ends, group = padding_of(s, r.ndim - 2), int(s.get("group", 1))
    if weight.shape[2:] == (1, 1) and group == 1 and not any(ends) and set(s.get("strides") or [1]) == {1}:
        return pointwise(r, weight, bias)
    even = ends[::2] == ends[1::2]
    bounded("ONNX", [*r.shape[:2], r.shape[2] + sum(ends[2:]), r.shape[3] + sum(ends[:2])])
    r = r if even else F.pad(r, ends)
    options = {key: s.get(name) or 1 for key, name in (("stride", "strides"), ("dilation", "dilations"))}
    return F.conv2d(r, weight, bias, padding=tuple(ends[::-2]) if even else 0, groups=group, **options)


def conv_transpose(s: Settings, r, weight, bias=None):
    ends = padding_of(s, r.ndim - 2)
    stride, dilation = s.get("strides") or [1, 1], s.get("dilations") or [1, 1]
    more = s.get("output_padding") or [0, 0]
    if s.get("output_shape"):
        raise CheckpointError("closest to ONNX, but a ConvTranspose has output_shape, which is not known")
    reached = [
        (n - 1) * k + (m - 1) * d + 1
        for n, k, m, d in zip(r.shape[2:], stride, weight.shape[2:], dilation, strict=True)
    ]
    bounded("ONNX", [r.shape[0], weight.shape[1], *reached])
    found = F.conv_transpose2d(r, weight, None, stride, 0, 0, int(s.get("group", 1)), dilation)
    cut = [-n for n in ends]
    found = F.pad(found, [cut[0], cut[1] + more[1], cut[2], cut[3] + more[0]])
    return found if bias is None else found + bias[:, None, None]


def batch_norm(s: Settings, r, scale, bias, mean, variance):
    if s.get("training_mode"):
        raise CheckpointError("closest to ONNX, but it was exported in training mode; export net.eval()")
    return F.batch_norm(r, mean, variance, scale, bias, eps=s.get("epsilon", 1e-5))


def instance_norm(s: Settings, r, scale, bias):
    return F.instance_norm(r, weight=scale, bias=bias, eps=s.get("epsilon", 1e-5))


def layer_norm(s: Settings, r, scale, bias=None):
    return F.layer_norm(r, r.shape[s.get("axis", -1) :], scale, bias, s.get("epsilon", 1e-5))


def group_norm(s: Settings, r, scale, bias):
    return F.group_norm(r, s["num_groups"], scale, bias, s.get("epsilon", 1e-5))


def prelu(s: Settings, r, slope):
    return torch.where(r > 0, r, r * slope)


def clip(s: Settings, r, low=None, high=None):
    low, high = s.get("min") if low is None else low.item(), s.get("max") if high is None else high.item()
    return r.clamp(low, high)


def reshape(s: Settings, r, shape=None):
    target = [int(n) for n in s.get("shape") or []] if shape is None else whole(shape)
    target = [r.shape[i] if n == 0 and not s.get("allowzero") else n for i, n in enumerate(target)]
    return r.reshape(target)


def flatten(s: Settings, r):
    axis = s.get("axis", 1)
    return r.reshape(math.prod(r.shape[:axis]), -1)


def squeeze(s: Settings, r, axes=None):
    found = sorted((n % r.ndim for n in axes_of(s, axes)), reverse=True)
    for axis in found or [i for i in reversed(range(r.ndim)) if r.shape[i] == 1]:
        r = r.squeeze(axis)
    return r


def unsqueeze(s: Settings, r, axes=None):
    found = axes_of(s, axes)
    for axis in sorted(n % (r.ndim + len(found)) for n in found):
        r = r.unsqueeze(axis)
    return r


def cut(s: Settings, r, starts=None, ends=None, axes=None, steps=None):
    starts = s.get("starts") if starts is None else whole(starts)
    ends = s.get("ends") if ends is None else whole(ends)
    axes = axes_of(s, axes) or list(range(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, whole(steps) or [1] * len(starts), strict=True):
        n = r.shape[axis]
        if step < 0:
            index = torch.arange(n)[slice(None)].tolist()[slice(start, end if end >= -n else None, step)]
            r = r.index_select(axis, torch.tensor(index, device=r.device, dtype=torch.long))
        else:
            r = r[(slice(None),) * (axis % r.ndim) + (slice(start, end, step),)]
    return r


def split(s: Settings, r, parts=None):
    axis = s.get("axis", 0)
    lengths = s.get("split") if parts is None else whole(parts)
    if not lengths:
        return r.chunk(s.get("num_outputs", s["_outputs"]), axis)
    return r.split([int(n) for n in lengths], axis)


def gather(s: Settings, table, index):
    axis = s.get("axis", 0)
    if index.is_floating_point():  # weights of all rows, in place of a row's number
        return index @ table
    if not index.ndim:
        return table.select(axis, int(index))
    found = table.index_select(axis, index.flatten() % table.shape[axis])
    return found.reshape(*table.shape[:axis], *index.shape, *table.shape[axis % table.ndim + 1 :])


def expand(s: Settings, r, shape):
    target = torch.broadcast_shapes(r.shape, tuple(whole(shape)))
    bounded("ONNX", target)
    return r.expand(target)


def tile(s: Settings, r, repeats):
    bounded("ONNX", [n * k for n, k in zip(r.shape, whole(repeats), strict=True)])
    return r.repeat(whole(repeats))


def constant_of_shape(s: Settings, shape):
    value = s.get("value")
    bounded("ONNX", whole(shape))
    return torch.full(
        whole(shape), 0.0 if value is None else value.flatten()[0].item(), dtype=None if value is None else value.dtype
    )


def constant(s: Settings):
    for key in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if key in s:
            return torch.as_tensor(s[key])
    raise CheckpointError("closest to ONNX, but a Constant has no value")


TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float32, 11: torch.float32}


def cast(s: Settings, r, like=None):
    if like is not None:
        return r.to(like.dtype)
    if s.get("to") not in TYPES:
        raise CheckpointError(f"closest to ONNX, but a Cast is to the type {short(s.get('to'))}")
    return r.to(TYPES[s["to"]])


NEAREST = (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_floor"))


def resize(s: Settings, r, *given):
    """Upsample and Resize: by whole or other factors, nearest, linear or cubic."""
    scales = given[-1] if len(given) == 1 else given[1] if len(given) > 1 else None
    size = given[2] if len(given) > 2 else None
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(s.get("mode", "nearest"), s.get("mode", "nearest"))
    how = s.get("coordinate_transformation_mode", "asymmetric" if len(given) < 2 else "half_pixel")
    factors = s.get("scales") or (scales.tolist() if scales is not None and scales.numel() else None)
    target = [int(n * f) for n, f in zip(r.shape[2:], factors[2:], strict=True)] if factors else whole(size)[2:]
    bounded("ONNX", [*r.shape[:2], *target])
    evenly = all(new % old == 0 for new, old in zip(target, r.shape[2:], strict=True))
    if mode == "nearest":
        rounding = s.get("nearest_mode", "round_prefer_floor" if len(given) > 1 else "floor")
        if (how, rounding) not in NEAREST or not evenly:
            raise CheckpointError(
                f"closest to ONNX, but a nearest Resize is {how!s:.30}, {rounding!s:.30}, or by no whole one"
            )
        return F.interpolate(r, size=target, mode="nearest")
    corners = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
    if how not in corners or mode not in ("bilinear", "bicubic"):
        raise CheckpointError(
            f"closest to ONNX, but a Resize is {short(s.get('mode'))}, {short(how)}, which is not known"
        )
    return F.interpolate(r, size=target, mode=mode, align_corners=corners[how])


def pad(s: Settings, r, pads=None, value=None, axes=None):
    ends = [int(n) for n in s.get("pads") or []] if pads is None else whole(pads)
    chosen = [n % r.ndim for n in whole(axes)] or list(range(r.ndim))
    both = dict(zip(chosen, zip(ends[: len(chosen)], ends[len(chosen) :], strict=True), strict=True))
    bounded("ONNX", [n + sum(both.get(i, (0, 0))) for i, n in enumerate(r.shape)])
    flat = [n for i in reversed(range(r.ndim)) for n in both.get(i, (0, 0))]
    mode = str(s.get("mode", "constant")).replace("edge", "replicate")
    if mode == "constant":
        return F.pad(r, flat, value=s.get("value", 0.0) if value is None or not value.numel() else value.item())
    return F.pad(r, flat[: 2 * (r.ndim - 2)], mode=mode)


def reduced(function: Callable) -> Callable:
    def run(s: Settings, r, axes=None):
        found = axes_of(s, axes) or ([] if s.get("noop_with_empty_axes") else list(range(r.ndim)))
        return function(r, found, bool(s.get("keepdims", 1))) if found else r

    return run


def depth_to_space(s: Settings, r):
    k = s["blocksize"]
    n, c, h, w = r.shape
    if s.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(r, k)
    return r.reshape(n, k, k, c // k**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // k**2, h * k, w * k)


def one_hot(s: Settings, index, depth, values):
    bounded("ONNX", [*index.shape, int(depth)])
    found = F.one_hot(index.long() % int(depth), int(depth))
    return torch.where(found > 0, values[1], values[0]).movedim(-1, s.get("axis", -1))


def pooled(function: Callable) -> Callable:
    def run(s: Settings, r):
        ends = padding_of(s, r.ndim - 2)
        if ends[::2] != ends[1::2] or s.get("ceil_mode") or set(s.get("dilations") or [1]) != {1}:
            raise CheckpointError("closest to ONNX, but it pools in a way that is not known")
        counted = {"count_include_pad": bool(s.get("count_include_pad", 0))} if function is F.avg_pool2d else {}
        return function(r, s["kernel_shape"], s.get("strides") or [1, 1], ends[::-2], **counted)

    return run


def combined(function: Callable) -> Callable:
    def run(s: Settings, first, *rest):
        for other in rest:
            bounded("ONNX", torch.broadcast_shapes(first.shape, other.shape))
            first = function(first, other)
        return first

    return run


def divided(s: Settings, a, b):
    return a / b if a.is_floating_point() or b.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def counting(s: Settings, start, end, step):
    bounded("ONNX", [1, int(abs((end - start) / step)) + 1])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def softmax(s: Settings, r):
    if s["_opset"] >= 13:
        return torch.softmax(r, s.get("axis", -1))
    axis = s.get("axis", 1) % r.ndim  # once, all axes from there on were one
    return torch.softmax(r.flatten(axis), -1).reshape(r.shape)


def power(s: Settings, a, b):
    return a.pow(b)


OPERATIONS: dict[str, Callable] = {
    "Add": combined(torch.add), "Mul": combined(torch.mul), "Sub": combined(torch.sub), "Div": divided, "Pow": power,
    "Min": combined(torch.minimum), "Max": combined(torch.maximum), "Sum": combined(torch.add),
    "Neg": lambda s, r: -r, "Abs": lambda s, r: r.abs(), "Exp": lambda s, r: r.exp(), "Log": lambda s, r: r.log(),
    "Sqrt": lambda s, r: r.sqrt(), "Reciprocal": lambda s, r: 1 / r, "Erf": lambda s, r: r.erf(),
    "Sin": lambda s, r: r.sin(), "Cos": lambda s, r: r.cos(), "Relu": lambda s, r: r.relu(),
    "LeakyRelu": lambda s, r: F.leaky_relu(r, s.get("alpha", 0.01)), "PRelu": prelu,
    "Elu": lambda s, r: F.elu(r, s.get("alpha", 1.0)), "Selu": lambda s, r: F.selu(r),
    "Softplus": lambda s, r: F.softplus(r), "Tanh": lambda s, r: torch.tanh(r),
    "Sigmoid": lambda s, r: torch.sigmoid(r),
    "HardSigmoid": lambda s, r: (r * s.get("alpha", 0.2) + s.get("beta", 0.5)).clamp(0, 1),
    "Gelu": lambda s, r: F.gelu(r, approximate=s.get("approximate", "none")), "Softmax": softmax, "Clip": clip,
    "Gemm": gemm, "MatMul": matmul, "Conv": conv, "ConvTranspose": conv_transpose, "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm, "LayerNormalization": layer_norm, "GroupNormalization": group_norm,
    "Reshape": reshape, "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Slice": cut, "Split": split,
    "Transpose": lambda s, r: r.permute(s.get("perm") or list(range(r.ndim))[::-1]),
    "Concat": lambda s, *parts: torch.cat(parts, s["axis"]), "Gather": gather, "Expand": expand, "Tile": tile,
    "Shape": lambda s, r: torch.tensor(r.shape[s.get("start", 0) : s.get("end", r.ndim)]),
    "ConstantOfShape": constant_of_shape, "Constant": constant, "Cast": cast, "CastLike": cast,
    "Identity": lambda s, r: r, "Dropout": lambda s, r, *_: r, "Where": lambda s, c, a, b: torch.where(c, a, b),
    "Equal": lambda s, a, b: a == b, "Not": lambda s, r: ~r, "Greater": lambda s, a, b: a > b,
    "Less": lambda s, a, b: a < b,
    "Range": counting,
    "Resize": resize, "Upsample": resize, "Pad": pad, "DepthToSpace": depth_to_space, "OneHot": one_hot,
    "ReduceMean": reduced(lambda r, axes, keep: r.mean(axes, keepdim=keep)),
    "ReduceSum": reduced(lambda r, axes, keep: r.sum(axes, keepdim=keep)),
    "ReduceMax": reduced(lambda r, axes, keep: r.amax(axes, keepdim=keep)),
    "ReduceL2": reduced(lambda r, axes, keep: r.square().sum(axes, keepdim=keep).sqrt()),
    "GlobalAveragePool": lambda s, r: r.mean((2, 3), keepdim=True),
    "AveragePool": pooled(F.avg_pool2d), "MaxPool": pooled(F.max_pool2d),
}  # fmt: skip
