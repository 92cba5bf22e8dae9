"""Where a network that is known by a plain state dict ends, and where a decoder begins."""

import re
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from ganlens.arguments import close_match
from ganlens.models.files.reading import CheckpointError
from ganlens.models.files.states import OTHER

LATENT = re.compile(
    r"(fc_|to_|z_)?(mu|mean|log_?var|logvar|log_?sigma|sigma|var)(_?fc|_layer)?$|fc_(mu|var|logvar)$", re.I
)


class Stretched(nn.Module):
    """Images in [-1, 1] of images in [0, 1]."""

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return 2 * r - 1


ENDINGS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "[-1,1]": nn.Identity, "[0,1]": nn.Identity}


def ended(modules: dict[str, nn.Module], ending: str) -> dict[str, nn.Module]:
    """Modules by name, of which the last is the activation of that name; behind it images get their range."""
    modules[list(modules)[-1]] = ENDINGS[ending]()
    return modules | ({"image_range": Stretched()} if ending in ("sigmoid", "[0,1]") else {})


def ending_of(asked: str | None, decoder: bool) -> str:
    """What stands behind the last layer, as asked for, or as usual; for decoders with a warning."""
    if asked is not None:
        if asked not in ENDINGS:
            raise ValueError(close_match("output", asked, list(ENDINGS), "load_generator"))
        return asked
    if decoder:
        warnings.warn(
            "no file says what ends a decoder: a sigmoid is assumed, images in [0, 1]; give output='tanh' for the "
            "other usual end, or '[0,1]' or '[-1,1]' for none",
            stacklevel=7,
        )
    return "sigmoid" if decoder else "tanh"


def top(key: str) -> str:
    return key.partition(".")[0]


def is_autoencoder(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has the parts of a variational autoencoder beside its decoder."""
    return any(LATENT.fullmatch(top(key)) for key in state)


def decoder_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of an autoencoder draws; CheckpointError where it does not take what the encoder gives."""
    kept = {key: x for key, x in state.items() if not LATENT.fullmatch(top(key)) and not OTHER.match(top(key))}
    means = next((x for key, x in state.items() if LATENT.fullmatch(top(key)) and x.ndim == 2), None)
    first = next((x for x in kept.values() if x.ndim in (2, 4)), None)
    if means is None or first is None or len(means) not in first.shape[:2]:
        raise CheckpointError("closest to the decoder of an autoencoder, but its first layer takes no latent of it")
    return kept
