"""Networks rewritten for speed: the same function, with constants folded and doubling and convolution in one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ganlens.models.base import Generator

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # of the images' standard deviation; see `rewrite`


class Rewritable(nn.Module):
    """A module that has a plain form, which defines it, and a faster one.

    Subclasses say ``plain(r)``, and for the faster form ``folded()``, its one weight, and ``rewritten(r)``, which finds
    that weight in ``kernel``. The parameters stay as they are, and with them all names and the fingerprint.
    """

    plain: Callable[[torch.Tensor], torch.Tensor]
    folded: Callable[[], torch.Tensor]
    rewritten: Callable[[torch.Tensor], torch.Tensor]
    kernel: torch.Tensor | Any  # None in the plain form

    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", None, persistent=False)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return self.plain(r) if self.kernel is None else self.rewritten(r.to(self.kernel.dtype))

    def become(self, dtype: torch.dtype | None) -> None:
        """Take the faster form, computing in a type of number; or the plain one where that is None."""
        with torch.no_grad():
            kernel = None if dtype is None else self.folded().to(dtype, memory_format=torch.channels_last)
        self.kernel = kernel


def doubling(weight: torch.Tensor) -> torch.Tensor:
    """Doubling by nearest neighbours and a convolution (U, C, 3, 3) with padding 1, as one kernel (C, U, 4, 4).

    The kernel is for a transposed convolution with stride 2 and padding 1: either of the two pixels s = 0, 1 that a
    cell becomes meets tap k of the convolution at output s - k + 2.
    """
    meets = torch.zeros(4, 3, device=weight.device)
    for k in range(3):
        for s in range(2):
            meets[s - k + 2, k] = 1
    return torch.einsum("ucij,si,tj->cust", weight, meets, meets)


def rewrite(G: Generator, dtype: torch.dtype = torch.float32) -> float | None:
    """Give a generator's modules their faster form, if its images stay what they are.

    Parameters
    ----------
    G : Generator
        Changed in place. Only families whose modules are `Rewritable` have a faster form.
    dtype : torch.dtype
        float32, or bfloat16, which is faster still where the processor has it, and less exact.

    Returns
    -------
    float or None
        Root of the mean squared difference that it makes to images 0 … 3, as a share of their standard deviation; None
        where the plain form was kept: there is no other, or the difference was above ``TOLERANCE``. For float32 what
        counts is the largest difference.

    Examples
    --------
    >>> from ganlens.models.families.progan import ProgressiveGenerator
    >>> G = Generator.wrap(ProgressiveGenerator((16, 16, 8, 8), z_dim=16), z_dim=16, output="tanh")
    >>> rewrite(G) < 1e-4
    True
    """
    parts = [module for module in G.net.modules() if isinstance(module, Rewritable)]
    if not parts:
        return None
    with torch.no_grad():
        z = G.latents(range(4))
        before = G.forward(z)
        for part in parts:
            part.become(dtype)
        difference = (G.forward(z) - before).double() / before.double().std()
    error = difference.abs().max() if dtype == torch.float32 else difference.square().mean().sqrt()
    if not error <= TOLERANCE[dtype]:
        for part in parts:
            part.become(None)
        return None
    G.precision = str(dtype).removeprefix("torch.")
    return float(error)
