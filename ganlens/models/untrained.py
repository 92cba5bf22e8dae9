"""A network of the same architecture that has learnt nothing: what units match by their place and brightness alone."""

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from ganlens.models.network import ImageNetwork, Known

Network = TypeVar("Network", bound=ImageNetwork)
IMAGES = 16  # whose levels of activation are matched


def untrained(network: Network, seed: int = 0) -> Network:
    """A copy with the numbers of each weight shuffled, and levels of activation like those of the original.

    Every module with weights is scaled such that its output spreads as the original's does over 16 images, one module
    after the other; batch norms take the mean and spread of what now enters them. Fixed filters stay as they are.
    """
    other = object.__new__(type(network))
    other.__dict__.update(vars(network))
    other.net, other._memory = copy.deepcopy(network.net), Known()
    other.name = f"{network.name}, untrained"
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.net.parameters():
            order = torch.randperm(weight.numel(), generator=random).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
        match_levels(network, other)
    return other


def match_levels(network: ImageNetwork, other: ImageNetwork) -> None:
    """Scale the weights of each module of ``other`` such that its output spreads as that of ``network`` does."""
    spreads: dict[str, torch.Tensor] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            spreads[name] = output.float().std()

        return hook

    def scale(name: str):
        def hook(module: Any, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            if getattr(module, "running_mean", None) is not None:  # a batch norm
                axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
                module.running_mean.copy_(inputs[0].mean(axes))
                module.running_var.copy_(inputs[0].var(axes))
            elif name in spreads and output.std() > 0:
                module.weight.mul_(spreads[name] / output.float().std())
            return module.forward(*inputs)

        return hook

    for live, hook in ((network, note), (other, scale)):
        modules = [(n, m) for n, m in live.net.named_modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
        handles = [module.register_forward_hook(hook(name)) for name, module in modules]
        try:
            live._run(live.latents(range(IMAGES)))
        finally:
            for handle in handles:
                handle.remove()
