"""Weights under spectral norm (Miyato et al., ICLR 2018), as torch stores them."""

from collections.abc import Collection, Mapping, Sequence

import torch

from ganlens.models.files.reading import CheckpointError

NEW_STYLE = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")


def settled(
    tensors: Mapping[str, torch.Tensor], family: str, transposed: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """A state dict in which weights under spectral norm are what the network uses in evaluation.

    Stored are the weight and two vectors u, v; in use is the weight divided by u W v, old and new style.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    family : str
        For messages.
    transposed : collection of str, optional
        Names of the transposed convolutions, whose units are on the second axis; where it is not known, shapes tell,
        and for as many inputs as outputs the axis that gives the larger norm.
    """
    axes = {name: (int(name in transposed),) for name in names_under_norm(tensors)} if transposed is not None else {}
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        for stored, u, v in (("weight_orig", "weight_u", "weight_v"), NEW_STYLE):
            name = key.removesuffix(f".{stored}")
            if name != key and f"{name}.{u}" in tensors and f"{name}.{v}" in tensors:
                found[f"{name}.weight"] = divided(
                    tensor, tensors[f"{name}.{u}"], tensors[f"{name}.{v}"], name, family, axes.get(name, (0, 1))
                )
                break
        else:
            if not key.endswith((".weight_u", ".weight_v", *(f".{what}" for what in NEW_STYLE))):
                found[key] = tensor
    return found


def names_under_norm(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    ends = [f".{stored}" for stored in ("weight_orig", NEW_STYLE[0])]
    return [key.removesuffix(end) for key in tensors for end in ends if key.endswith(end)]


def divided(
    weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, name: str, family: str, axes: Sequence[int]
) -> torch.Tensor:
    """A weight divided by its largest singular value, as the vectors give it; its units are on one of the axes."""
    sigmas = []
    for axis in axes if weight.ndim > 1 else ():
        matrix = weight.transpose(0, axis).flatten(1)
        if tuple(matrix.shape) == (u.numel(), v.numel()):
            sigmas.append((u.flatten() @ (matrix @ v.flatten())).item())
    if not sigmas or not max(sigmas) > 0:
        raise CheckpointError(f"closest to {family}, but the vectors of its spectral norm do not fit {name}")
    return weight / max(sigmas)
