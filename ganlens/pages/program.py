"""A network as numbered maps and steps between them: packed for a page, and run here to be checked against torch."""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

LANES = 8  # units that a page computes together


def cannot(module: str, why: str) -> ValueError:
    """The error for what a page cannot run."""
    return ValueError(f"{f'module {module!r}' if module else 'the network'} {why}: it cannot run in a page")


class Program:
    """Steps that turn an input of one image, map 0, into the last map.

    Attributes
    ----------
    shapes : list of (C, H, W)
        Of all maps.
    steps : list of dict
        ``op``, ``x`` (numbers of maps), ``y``, and what else an operation needs; arrays are ``[start, length]`` in
        `weights`.
    layers : dict of str to int
        Which map is which layer's.
    weights : list of float32 array
        One after the other.
    """

    def __init__(self, given: tuple[int, ...]):
        self.shapes: list[tuple[int, int, int]] = [as_map(given)]
        self.steps: list[dict] = []
        self.layers: dict[str, int] = {}
        self.weights: list[np.ndarray] = []
        self.length = self.output = 0

    def keep(self, array: np.ndarray) -> list[int]:
        """Put numbers among the weights: where they begin, and how many."""
        flat = np.array(array, np.float32).reshape(-1)
        self.weights.append(flat)
        self.length += len(flat)
        return [self.length - len(flat), len(flat)]

    def step(self, op: str, maps: Sequence[int], shape: tuple[int, ...], **options) -> int:
        """Add a step; the number of the map that it makes."""
        self.shapes.append(as_map(shape))
        self.steps.append({"op": op, "x": list(maps), "y": len(self.shapes) - 1, **options})
        return len(self.shapes) - 1

    def end(self, output: int) -> None:
        """Which map is the result."""
        self.output = output

    # ---- steps that need some thought

    def view(self, x: int, shape: tuple[int, ...]) -> int:
        """The same numbers in another shape."""
        return x if self.shapes[x] == as_map(shape) else self.step("view", [x], shape)

    def pad(self, x: int, sides: Sequence[int], mode: str) -> int:
        """Cells around a map: left, right, above, below."""
        left, right, above, below = map(int, sides)
        if not any((left, right, above, below)):
            return x
        if min(left, right, above, below) < 0:
            raise cannot("", "crops maps")
        units, height, width = self.shapes[x]
        shape = units, height + above + below, width + left + right
        return self.step("pad", [x], shape, sides=[left, right, above, below], mode=mode)

    def affine(self, x: int, scale: np.ndarray, shift: np.ndarray) -> int:
        """Times a number of each unit, plus another."""
        return self.step("affine", [x], self.shapes[x], scale=self.keep(scale), shift=self.keep(shift))

    def convolution(self, x, weight, bias, stride, padding, depthwise: bool, shape) -> int:
        """A convolution by a weight (U, C, kh, kw)."""
        x = self.pad(x, [padding[1], padding[1], padding[0], padding[0]], "zero")
        part = {"at": [0, 0], "from": [0, 0], "size": list(weight.shape[2:]), "weight": self.keep(weight)}
        return self.convolve(x, bias, stride, 1, depthwise, [part], shape)

    def transposed_convolution(self, x, weight, bias, stride, padding, depthwise: bool, shape) -> int:
        """A transposed convolution by a weight (C, U, kh, kw): one convolution for each place of the output's grid.

        Output s i + a reads inputs i + (a + p) // s - m by taps (a + p) % s + s m (Dumoulin and Visin, 2016).
        """
        taps = [
            [phase(a, k, s, p) for a in range(s)] for k, s, p in zip(weight.shape[2:], stride, padding, strict=True)
        ]
        _, height, width = self.shapes[x]
        sides = []
        for axis, own, size in ((1, width, shape[2]), (0, height, shape[1])):
            low = max(-first for first, _ in taps[axis])
            last = (first + (size - 1 - a) // stride[axis] + len(t) - 1 for a, (first, t) in enumerate(taps[axis]))
            sides += [max(0, low), max(0, max(last) - own + 1)]
        x = self.pad(x, sides, "zero")
        parts = []
        for a, (first_row, rows) in enumerate(taps[0]):
            for b, (first_column, columns) in enumerate(taps[1]):
                kernel = weight[:, :, rows][:, :, :, columns].swapaxes(0, 1)
                start = [first_row + sides[2], first_column + sides[0]]
                part = {"at": [a, b], "from": start, "size": [len(rows), len(columns)], "weight": self.keep(kernel)}
                parts.append(part)
        return self.convolve(x, bias, (1, 1), stride[0], depthwise, parts, shape)

    def convolve(self, x, bias, stride, spread: int, depthwise: bool, parts: list[dict], shape) -> int:
        """One convolution, or several that fill a grid of ``spread`` x ``spread`` places."""
        bias = self.keep(np.zeros(shape[0]) if bias is None else bias)
        kind = "depthwise" if depthwise else "convolve"
        return self.step(kind, [x], shape, bias=bias, stride=list(stride), spread=spread, parts=parts)

    def array(self, place: Sequence[int]) -> np.ndarray:
        """Numbers among the weights."""
        start, length = place
        for part in self.weights:
            if start < len(part):
                return part[start : start + length]
            start -= len(part)
        raise IndexError(place)

    # ---- for a page

    def packed(self) -> tuple[dict, bytes]:
        """What JSON can hold, and the weights: as float16 where nothing is lost, else as float32."""
        merged = pixel_norms(self.steps, self.layers, self.output, self.array)
        content, where = bytearray(), {}
        for place in sorted({tuple(place) for place in places_in(merged)}):
            array = self.array(place)
            half = bool((array.astype(np.float16).astype(np.float32) == array).all())
            content += b"\0" * (0 if half else -len(content) % 4)
            where[place] = [len(content), len(array), int(half)]
            content += array.astype(np.float16 if half else np.float32).tobytes()
        text = json.dumps(merged)
        steps = placed(json.loads(text), where)
        told = {"shapes": self.shapes, "steps": steps, "layers": self.layers, "output": self.output}
        return told, bytes(content)

    # ---- here

    def run(self, x: torch.Tensor, edit: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, r: r):
        """The last map of one input, as torch computes the steps; ``edit`` may change the maps of layers."""
        maps: dict[int, torch.Tensor] = {0: x.reshape(1, *self.shapes[0]).double()}
        names = {number: name for name, number in self.layers.items()}  # each map is of one layer at most
        for step in self.steps:
            given = [maps[number] for number in step["x"]]
            found = self.computed(step, given, self.shapes[step["y"]])
            maps[step["y"]] = edit(names[step["y"]], found) if step["y"] in names else found
        return maps[self.output]

    def computed(self, step: Mapping, given: list[torch.Tensor], shape: tuple[int, int, int]) -> torch.Tensor:
        """What a step makes."""
        x, op = given[0], step["op"]
        if op in ("convolve", "depthwise"):
            return self.convolved(step, x, shape)
        if op == "affine":
            scale, shift = (torch.from_numpy(self.array(step[name])).double() for name in ("scale", "shift"))
            return x * scale[:, None, None] + shift[:, None, None]
        if op == "pad":
            mode = {"zero": "constant"}.get(step["mode"], step["mode"])
            return F.pad(x, step["sides"], mode=mode)
        ways: dict[str, Callable] = {
            "view": lambda: x.reshape(1, *shape),
            "leaky": lambda: F.leaky_relu(x, step["slope"]),
            "tanh": x.tanh,
            "sigmoid": x.sigmoid,
            "rsqrt": x.rsqrt,
            "sqrt": x.sqrt,
            "square": x.square,
            "reciprocal": x.reciprocal,
            "mean": lambda: x.mean(1, keepdim=True),
            "clamp": lambda: x.clamp(step["low"], step["high"]),
            "add": lambda: x + given[1],
            "mul": lambda: x * given[1],
            "concat": lambda: torch.cat(given, 1),
            "nearest": lambda: F.interpolate(x, size=shape[1:]),
            "bilinear": lambda: F.interpolate(x, size=shape[1:], mode="bilinear", align_corners=step["corners"]),
            "maxpool": lambda: F.max_pool2d(x, step["side"]),
        }
        return ways[op]()

    def convolved(self, step: Mapping, x: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """What a convolution makes, part by part."""
        found, inputs, spread = x.new_empty(1, *shape), x.shape[1], step["spread"]
        for part in step["parts"]:
            a, b = part["at"]
            kernel = torch.from_numpy(self.array(part["weight"])).double()
            groups = inputs if step["op"] == "depthwise" else 1
            kernel = kernel.reshape(shape[0], inputs // groups, *part["size"])
            place = found[:, :, a::spread, b::spread]
            if 0 in part["size"]:
                made = x.new_zeros(1)
            else:
                top, left = part["from"]
                made = F.conv2d(x[:, :, top:, left:], kernel, stride=step["stride"], groups=groups)
                made = made[:, :, : place.shape[2], : place.shape[3]]
            place.copy_(made + torch.from_numpy(self.array(step["bias"])).double()[:, None, None])
        return found


def as_map(shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape as units, height, width: what is missing is 1."""
    if len(shape) > 3:
        raise cannot("", f"has maps of {len(shape)} axes")
    units, *rest = [*shape] if len(shape) else [1]
    height, width = [1, 1, *rest][-2:]
    return int(units), int(height), int(width)


def phase(a: int, k: int, s: int, p: int) -> tuple[int, list[int]]:
    """For outputs s i + a of a transposed convolution along one axis: the first input less i, and its taps."""
    taps = list(range((a + p) % s, k, s))[::-1]
    return (a + p) // s - len(taps) + 1, taps


def pixel_norms(steps: list[dict], layers: Mapping[str, int], output: int, array: Callable) -> list[dict]:
    """The steps with x · rsqrt(mean x² + e) as one step."""
    readers: dict[int, int] = {}
    for step in steps:
        for x in step["x"]:
            readers[x] = readers.get(x, 0) + 1
    found: list[dict] = []
    i = 0
    while i < len(steps):
        some = steps[i : i + 5]
        chain = [step["op"] for step in some] == ["square", "mean", "affine", "rsqrt", "mul"]
        inner = [step["y"] for step in some[:4]]
        chain = chain and all(readers.get(y) == 1 and y not in (output, *layers.values()) for y in inner)
        chain = (
            chain
            and [step["x"][0] for step in some[1:4]] == inner[:3]
            and {*some[4]["x"]} == {some[0]["x"][0], inner[3]}
        )
        if chain and (array(some[2]["scale"]) == 1).all():
            epsilon = float(array(some[2]["shift"])[0])
            found.append({"op": "pixelnorm", "x": some[0]["x"], "y": some[4]["y"], "epsilon": epsilon})
            i += 5
        else:
            found.append(steps[i])
            i += 1
    return found


def places_in(steps: list[dict]) -> list[list[int]]:
    """All places of weights that steps name."""
    found = []
    for step in steps:
        found += [step[name] for name in ("scale", "shift", "bias") if name in step]
        found += [part["weight"] for part in step.get("parts", ())]
    return found


def placed(steps: list[dict], where: Mapping[tuple[int, ...], list[int]]) -> list[dict]:
    """The same steps, with places in bytes, lengths, and whether they are halves."""
    for step in steps:
        for one in (step, *step.get("parts", ())):
            for name in ("scale", "shift", "bias", "weight"):
                if name in one:
                    one[name] = where[tuple(one[name])]
    return steps
