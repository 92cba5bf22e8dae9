"""Layers of Keras in PyTorch: maps (N, H, W, C) there are (N, C, H, W) here, all other tensors are alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ganlens.arguments import close_match
from ganlens.models.bit_exact import dense, pointwise
from ganlens.models.files.pickles import CheckpointError
from ganlens.models.files.reading import bounded
from ganlens.models.files.records import short

FAMILY = "Keras"
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda r: r,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "leaky_relu": lambda r: F.leaky_relu(r, 0.2),
    "softmax": lambda r: torch.softmax(r, 1 if r.ndim == 4 else -1),
}
IDENTITIES = (
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
)
Settings = Mapping[str, Any]


class Layer(nn.Module):
    """A layer, made of its settings and its arrays; ``forward`` takes what it is called with."""

    def __init__(self, name: str, settings: Settings, arrays: Sequence[torch.Tensor]):
        super().__init__()
        self.called, self.settings, self.arrays = name, settings, list(arrays)
        self.prepare()
        if self.arrays:
            raise CheckpointError(f"closest to {FAMILY}, but {name} has {len(self.arrays)} arrays more than it needs")
        del self.settings, self.arrays

    def prepare(self) -> None:
        """Take what is needed of the settings and of the arrays."""

    def take(self, ndim: int, what: str) -> nn.Parameter:
        """The next array as a parameter."""
        if not self.arrays or self.arrays[0].ndim != ndim:
            found = tuple(self.arrays[0].shape) if self.arrays else "missing"
            raise CheckpointError(
                f"closest to {FAMILY}, but {what} of {self.called} is {found}; {ndim} axes were expected"
            )
        return nn.Parameter(self.arrays.pop(0))

    def pair(self, key: str, usual: int = 1) -> tuple[int, int]:
        value = self.settings.get(key, usual)
        found = (value, value) if type(value) is int else tuple(value) if isinstance(value, list) else ()
        if len(found) != 2 or not all(type(n) is int and 0 <= n < 4096 for n in found):
            raise CheckpointError(f"closest to {FAMILY}, but {key} of {self.called} is {short(value)}")
        return found

    def real(self, *keys: str, usual: float | None) -> float | None:
        """The first of some settings that is there, a number or None."""
        value = next((self.settings[key] for key in keys if key in self.settings), usual)
        value = value.get("config", {}).get("value") if isinstance(value, dict) else value
        if value is not None and type(value) not in (int, float):
            raise CheckpointError(f"closest to {FAMILY}, but {keys[0]} of {self.called} is {short(value)}")
        return value

    def refuse(self, key: str, *usual) -> None:
        """CheckpointError where a setting is not as usual."""
        if (value := self.settings.get(key, usual[0])) not in usual:
            raise CheckpointError(
                f"closest to {FAMILY}, but {key} of {self.called} is {short(value)}, which is not known"
            )

    def activation(self, usual: str = "linear") -> Callable[[torch.Tensor], torch.Tensor]:
        value = self.settings.get("activation", usual) or "linear"
        if isinstance(value, dict):
            value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
        value = str(value if not isinstance(value, dict) else value.get("name"))
        if value not in ACTIVATIONS:
            raise CheckpointError(
                f"closest to {FAMILY}, but " + close_match("activation", value[:80], list(ACTIVATIONS), self.called)
            )
        return ACTIVATIONS[value]


class Same(Layer):
    """What does nothing in evaluation."""

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r


class Linear(Layer):
    """Dense: the last axis of (N, …, C) by a kernel (C, U)."""

    def prepare(self) -> None:
        self.kernel = self.take(2, "kernel")
        self.bias = self.take(1, "bias") if self.settings.get("use_bias", True) else None
        self.act = self.activation()

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        if r.ndim == 4:
            return self.act(pointwise(r, self.kernel.T[..., None, None], self.bias))
        if r.ndim == 2:
            return self.act(dense(r, self.kernel.T, self.bias))
        return self.act(F.linear(r, self.kernel.T, self.bias))


class Convolution(Layer):
    """Conv2D; with "same" padding as many cells as the stride allows, the smaller half of what is added in front."""

    def prepare(self) -> None:
        self.refuse("data_format", "channels_last", None)
        self.stride, self.dilation = self.pair("strides"), self.pair("dilation_rate")
        self.groups = int(self.real("groups", usual=1) or 1)
        self.refuse("padding", "valid", "same")
        self.same = self.settings.get("padding") == "same"
        self.weight = nn.Parameter(self.take(4, "kernel").permute(3, 2, 0, 1).contiguous())
        self.bias = self.take(1, "bias") if self.settings.get("use_bias", True) else None
        self.act = self.activation()

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        if self.same:
            ends: list[int] = []
            for n, k, s, d in zip(r.shape[2:], self.weight.shape[2:], self.stride, self.dilation, strict=True):
                total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
                ends = [total // 2, total - total // 2, *ends]  # F.pad begins with the last axis
            r = F.pad(r, ends)
        return self.act(F.conv2d(r, self.weight, self.bias, self.stride, 0, self.dilation, self.groups))


class Transposed(Layer):
    """Conv2DTranspose; "same" is as many times as large as the stride, the smaller half cut off in front."""

    def prepare(self) -> None:
        self.refuse("data_format", "channels_last", None)
        self.refuse("output_padding", None)
        self.refuse("padding", "valid", "same")
        self.same = self.settings.get("padding") == "same"
        self.stride, self.dilation = self.pair("strides"), self.pair("dilation_rate")
        self.weight = nn.Parameter(self.take(4, "kernel").permute(3, 2, 0, 1).contiguous())
        self.bias = self.take(1, "bias") if self.settings.get("use_bias", True) else None
        self.act = self.activation()

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        kernel = self.weight.shape[2:]
        reached = [r.shape[i + 2] * self.stride[i] + kernel[i] * self.dilation[i] for i in range(2)]
        bounded(FAMILY, [len(r), self.weight.shape[1], *reached])
        r = F.conv_transpose2d(r, self.weight, None, self.stride, dilation=self.dilation)
        ends: list[int] = []
        for k, s, d in zip(self.weight.shape[2:], self.stride, self.dilation, strict=True):
            extra = (k - 1) * d + 1 - s
            cut = max(extra, 0) if self.same else 0
            ends = [-(cut // 2), max(-extra, 0) - (cut - cut // 2), *ends]
        r = F.pad(r, ends)
        return self.act(r if self.bias is None else r + self.bias[:, None, None])


class Norm(Layer):
    """BatchNormalization over the last axis."""

    moving_mean: torch.Tensor
    moving_variance: torch.Tensor

    def prepare(self) -> None:
        axis = self.settings.get("axis", -1)
        self.axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        epsilon = self.real("epsilon", usual=1e-3)
        self.eps = 1e-3 if epsilon is None else float(epsilon)
        self.gamma = self.take(1, "gamma") if self.settings.get("scale", True) else None
        self.beta = self.take(1, "beta") if self.settings.get("center", True) else None
        for name in ("moving_mean", "moving_variance"):
            self.register_buffer(name, self.take(1, name).data)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        if self.axis not in (-1, r.ndim - 1):
            raise CheckpointError(f"closest to {FAMILY}, but {self.called} works along axis {short(self.axis)}")
        turned = r.movedim(-1, 1) if r.ndim not in (2, 4) else r
        found = F.batch_norm(turned, self.moving_mean, self.moving_variance, self.gamma, self.beta, eps=self.eps)
        return found.movedim(1, -1) if r.ndim not in (2, 4) else found


class Rectifier(Layer):
    """ReLU, LeakyReLU and the like, with their settings."""

    def prepare(self) -> None:
        leaky = self.settings.get("_class") == "LeakyReLU"
        self.slope = float(self.real("negative_slope", "alpha", usual=0.3 if leaky else 0.0) or 0.0)
        self.most = self.real("max_value", usual=None)
        self.refuse("threshold", 0, 0.0, None)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        r = F.leaky_relu(r, self.slope) if self.slope else torch.relu(r)
        return r if self.most is None else r.clamp(max=float(self.most))


class Exponential(Layer):
    """ELU."""

    def prepare(self) -> None:
        alpha = self.real("alpha", usual=1.0)
        self.alpha = 1.0 if alpha is None else float(alpha)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return F.elu(r, self.alpha)


class Learned(Layer):
    """PReLU: slopes of its own, for each unit or for each cell of each unit."""

    def prepare(self) -> None:
        if self.arrays:
            slopes = self.arrays.pop(0)
            self.alpha = nn.Parameter(slopes.permute(2, 0, 1) if slopes.ndim == 3 else slopes)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return torch.where(r > 0, r, r * self.alpha)


class Active(Layer):
    """Activation."""

    def prepare(self) -> None:
        self.act = self.activation()

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.act(r)


class Enlarged(Layer):
    """UpSampling2D."""

    def prepare(self) -> None:
        self.refuse("data_format", "channels_last", None)
        self.refuse("interpolation", "nearest", "bilinear")
        self.size, self.mode = self.pair("size", 2), self.settings.get("interpolation", "nearest")

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        scale = tuple(map(float, self.size))
        bounded(FAMILY, [*r.shape[:2], r.shape[2] * self.size[0], r.shape[3] * self.size[1]])
        return F.interpolate(
            r, scale_factor=scale, mode=self.mode, **({} if self.mode == "nearest" else {"align_corners": False})
        )


class Framed(Layer):
    """ZeroPadding2D, or Cropping2D."""

    def prepare(self) -> None:
        self.refuse("data_format", "channels_last", None)
        key = "cropping" if "cropping" in self.settings else "padding"
        value = self.settings.get(key, 1)
        rows = [[value] * 2] * 2 if type(value) is int else [n if isinstance(n, list) else [n] * 2 for n in value or []]
        flat = [n for row in rows for n in row]
        if len(flat) != 4 or not all(type(n) is int and 0 <= n < 4096 for n in flat):
            raise CheckpointError(f"closest to {FAMILY}, but {key} of {self.called} is {short(value)}")
        sign = -1 if key == "cropping" else 1
        self.ends = [sign * n for n in (*rows[1], *rows[0])]

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        bounded(FAMILY, [*r.shape[:2], r.shape[2] + sum(self.ends[2:]), r.shape[3] + sum(self.ends[:2])])
        return F.pad(r, self.ends)


def last(r: torch.Tensor) -> torch.Tensor:
    """A tensor as Keras has it, channels last."""
    return r.permute(0, 2, 3, 1) if r.ndim == 4 else r


def first(r: torch.Tensor) -> torch.Tensor:
    """A tensor as it is here, channels first."""
    return r.permute(0, 3, 1, 2).contiguous() if r.ndim == 4 else r


class Shaped(Layer):
    """Reshape, or Flatten where there is no target."""

    def prepare(self) -> None:
        value = self.settings.get("target_shape", [-1])
        if not isinstance(value, list) or not all(type(n) is int and -1 <= n < 2**24 for n in value):
            raise CheckpointError(f"closest to {FAMILY}, but target_shape of {self.called} is {short(value)}")
        self.target = tuple(value)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return first(last(r).reshape(len(r), *self.target))


class Joined(Layer):
    """Concatenate."""

    def prepare(self) -> None:
        self.axis = self.settings.get("axis", -1)
        if type(self.axis) is not int:
            raise CheckpointError(f"closest to {FAMILY}, but axis of {self.called} is {short(self.axis)}")

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        bounded(FAMILY, [len(parts[0]), sum(r[:1].numel() for r in parts)])
        return first(torch.cat([last(r) for r in parts], self.axis))


class Combined(Layer):
    """Add, Subtract, Multiply, Average, Maximum: cell by cell, as numpy would broadcast them."""

    def prepare(self) -> None:
        self.kind = self.settings.get("_class")

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        turned = [last(r) for r in parts]
        ndim = max(r.ndim for r in turned)  # axes that some lack are put behind that of the images
        turned = [r.reshape(len(r), *[1] * (ndim - r.ndim), *r.shape[1:]) for r in turned]
        found = turned[0]
        bounded(FAMILY, torch.broadcast_shapes(*(r.shape for r in turned)))
        for r in turned[1:]:
            found = (
                found * r if self.kind == "Multiply" else found - r if self.kind == "Subtract"
                else torch.maximum(found, r) if self.kind == "Maximum" else found + r
            )  # fmt: skip
        return first(found / len(parts) if self.kind == "Average" else found)


class Table(Layer):
    """Embedding: rows of a table by whole numbers (N, …); weights over all rows, (N, rows), give a mixture."""

    def prepare(self) -> None:
        self.embeddings = self.take(2, "embeddings")

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        if labels.ndim == 3:  # (N, 1, rows): weights
            return labels @ self.embeddings
        return self.embeddings[labels.long()]


class Scaled(Layer):
    """Rescaling."""

    def prepare(self) -> None:
        self.scale, self.offset = self.real("scale", usual=1.0) or 0.0, self.real("offset", usual=0.0) or 0.0

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r * self.scale + self.offset


LAYERS: dict[str, type[Layer]] = {
    "Dense": Linear,
    "Conv2D": Convolution,
    "Conv2DTranspose": Transposed,
    "BatchNormalization": Norm,
    "ReLU": Rectifier,
    "LeakyReLU": Rectifier,
    "ELU": Exponential,
    "PReLU": Learned,
    "Activation": Active,
    "UpSampling2D": Enlarged,
    "ZeroPadding2D": Framed,
    "Cropping2D": Framed,
    "Reshape": Shaped,
    "Flatten": Shaped,
    "Concatenate": Joined,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum"), Combined),
    "Embedding": Table,
    "Rescaling": Scaled,
    **dict.fromkeys(IDENTITIES, Same),
}
