"""Weights under spectral norm (Miyato et al., ICLR 2018), as torch stores them."""

from collections.abc import Mapping

import torch

from ganlens.models.files.reading import CheckpointError

NEW_STYLE = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")


def settled(tensors: Mapping[str, torch.Tensor], family: str) -> dict[str, torch.Tensor]:
    """A state dict in which weights under spectral norm are what the network uses in evaluation.

    Stored are the weight and two vectors u, v; in use is the weight divided by u W v, old and new style.
    """
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        for stored, u, v in (("weight_orig", "weight_u", "weight_v"), NEW_STYLE):
            name = key.removesuffix(f".{stored}")
            if name != key and f"{name}.{u}" in tensors and f"{name}.{v}" in tensors:
                found[f"{name}.weight"] = divided(tensor, tensors[f"{name}.{u}"], tensors[f"{name}.{v}"], name, family)
                break
        else:
            if not key.endswith((".weight_u", ".weight_v", *(f".{what}" for what in NEW_STYLE))):
                found[key] = tensor
    return found


def divided(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor, name: str, family: str) -> torch.Tensor:
    """A weight divided by its largest singular value, as the vectors give it."""
    sigmas = []
    for matrix in (weight.flatten(1), weight.transpose(0, 1).flatten(1)) if weight.ndim > 1 else ():
        if tuple(matrix.shape) == (u.numel(), v.numel()):
            sigmas.append((u.flatten() @ (matrix @ v.flatten())).item())
    if not sigmas or not max(sigmas) > 0:
        raise CheckpointError(f"closest to {family}, but the vectors of its spectral norm do not fit {name}")
    return weight / max(sigmas)
