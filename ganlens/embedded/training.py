"""Training of the embedded generator: images only, no labels.

Two single-thread processes share each batch: on a CPU that is faster than one process with two threads. Non-saturating
logistic loss (Goodfellow et al., 2014) with a zero-centred gradient penalty on real images (R1, Mescheder et al.,
2018), an exponential moving average of the weights, and learning rates in proportion to each layer's initial scale (the
"equalized learning rate" of Karras et al., 2018, without rescaling the weights at run time).
"""

import copy
import csv
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ganlens.images import grid, to_uint8
from ganlens.models.families.scenes import SceneGenerator


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how the generator is trained.

    Attributes
    ----------
    images : int
        Length of the training, counted in images shown to the discriminator.
    batch, small_batch : int
        Images per step and process; the small batch is used for the first ``warmup`` images.
    rate : float
        Adam's learning rate, decayed linearly to ``final_rate`` of it over the last ``decay`` of the training.
    r1, r1_every : float, int
        Weight of the gradient penalty and the number of steps between two penalties.
    """

    images: int = 780_000
    batch: int = 16
    small_batch: int = 8
    warmup: int = 40_000
    rate: float = 2.5e-3
    decay: float = 0.28
    final_rate: float = 0.08
    r1: float = 1.0
    r1_every: int = 16
    ema_half_life: int = 10_000
    seed: int = 0


class Down(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, outputs, 3, padding=1, stride=2)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.first(x), 0.2)
        y = F.leaky_relu(self.second(y), 0.2)
        return (y + self.skip(F.avg_pool2d(x, 2))) * 0.5**0.5


def group_deviation(x: torch.Tensor, size: int = 4) -> torch.Tensor:
    """Append the mean standard deviation within groups of ``size`` images as one more channel (Karras et al., 2018)."""
    n, _, h, w = x.shape
    groups = x.float().unflatten(0, (size, n // size))
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(size)[:, None, None, None].expand(n, 1, h, w).to(x.dtype)], 1)


class Discriminator(nn.Module):
    """Images (N, 3, 64, 64) to one number each; the first step folds 2x2 pixels into channels."""

    def __init__(self, channels: tuple[int, ...] = (64, 128, 192, 256)):
        super().__init__()
        self.first = nn.Conv2d(12, channels[0], 3, padding=1)
        self.blocks = nn.Sequential(*(Down(a, b) for a, b in pairwise(channels)))
        self.last = nn.Conv2d(channels[-1] + 1, channels[-1], 3, padding=1)
        self.linear = nn.Linear(channels[-1] * 16, 192)
        self.score = nn.Linear(192, 1)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.first(F.pixel_unshuffle(x, 2)), 0.2)
        x = group_deviation(self.blocks(x))
        x = F.leaky_relu(self.last(x), 0.2)
        return self.score(F.leaky_relu(self.linear(x.flatten(1)), 0.2)).float()


def initialize(net: nn.Module) -> None:
    """He initialisation of all convolutions and linear layers, biases at zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def equalized_adam(net: nn.Module, rate: float) -> torch.optim.Adam:
    """Adam whose step on each weight is ``rate`` times the weight's initial standard deviation."""
    groups = []
    for parameter in net.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 1.0
        groups.append({"params": [parameter], "lr": rate * scale, "base": rate * scale})
    return torch.optim.Adam(groups, betas=(0.0, 0.99), eps=1e-8, fused=True)


class Trainer:
    """One process of the training; all processes hold the same weights."""

    def __init__(self, recipe: Recipe, images: np.ndarray, rank: int = 0, processes: int = 1):
        self.recipe, self.images, self.rank, self.processes = recipe, images, rank, processes
        torch.manual_seed(recipe.seed)
        self.generator, self.discriminator = SceneGenerator(), Discriminator()
        for net in (self.generator, self.discriminator):
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.g_adam = equalized_adam(self.generator, recipe.rate)
        self.d_adam = equalized_adam(self.discriminator, recipe.rate)
        self.seen, self.step = 0, 0

    def state(self) -> dict:
        parts = ("generator", "discriminator", "average", "g_adam", "d_adam")
        return {"seen": self.seen, "step": self.step, **{name: getattr(self, name).state_dict() for name in parts}}

    def load(self, state: dict) -> None:
        self.seen, self.step = state["seen"], state["step"]
        for name in ("generator", "discriminator", "average", "g_adam", "d_adam"):
            getattr(self, name).load_state_dict(state[name])

    def train_step(self) -> dict[str, float]:
        """Show one batch to both networks and return the losses."""
        batch = self.recipe.small_batch if self.seen < self.recipe.warmup else self.recipe.batch
        random = np.random.default_rng((self.recipe.seed, self.step, self.rank))
        self.set_rate()
        real = self.draw(random, batch)
        losses = self.discriminator_step(real, self.latents(random, batch))
        losses |= self.generator_step(self.latents(random, batch))
        self.seen += batch * self.processes
        self.step += 1
        self.update_average(batch * self.processes)
        return losses

    def set_rate(self) -> None:
        left = (1 - self.seen / self.recipe.images) / self.recipe.decay
        factor = max(self.recipe.final_rate, min(1.0, left))
        for group in (*self.g_adam.param_groups, *self.d_adam.param_groups):
            group["lr"] = group["base"] * factor

    def draw(self, random: np.random.Generator, batch: int) -> torch.Tensor:
        """A batch of paintings, half of them mirrored, in [-1, 1]."""
        pictures = self.images[np.sort(random.integers(len(self.images), size=batch))]
        mirrored = random.random(batch) < 0.5
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)

    def latents(self, random: np.random.Generator, batch: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal((batch, 128), dtype=np.float32)).to(torch.bfloat16)

    def discriminate(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.discriminator(x)

    def discriminator_step(self, real: torch.Tensor, z: torch.Tensor) -> dict[str, float]:
        penalize = self.step % self.recipe.r1_every == 0
        with torch.no_grad():
            fake = self.generator(z)
        on_fake = self.discriminate(fake)
        on_real = self.discriminate(real.requires_grad_(penalize))
        loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
        losses = {"d": loss.item(), "real": on_real.mean().item(), "fake": on_fake.mean().item()}
        if penalize:
            (gradient,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            penalty = gradient.float().square().sum((1, 2, 3)).mean()
            loss = loss + self.recipe.r1 / 2 * self.recipe.r1_every * penalty
            losses["r1"] = penalty.item()
        self.apply(self.discriminator, self.d_adam, loss)
        return losses

    def generator_step(self, z: torch.Tensor) -> dict[str, float]:
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self.discriminate(self.generator(z))).mean()
        self.apply(self.generator, self.g_adam, loss)
        self.discriminator.requires_grad_(True)
        return {"g": loss.item()}

    def apply(self, net: nn.Module, adam: torch.optim.Adam, loss: torch.Tensor) -> None:
        """One optimiser step with the gradients averaged over the processes."""
        adam.zero_grad(set_to_none=True)
        loss.backward()
        if self.processes > 1:
            gradients = [cast(torch.Tensor, p.grad) for p in net.parameters()]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            flat /= self.processes
            for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                g.copy_(part.view_as(g))
        adam.step()

    @torch.no_grad()
    def update_average(self, shown: int) -> None:
        half_life = min(self.recipe.ema_half_life, max(0.05 * self.seen, 1))
        weight = 1 - 0.5 ** (shown / half_life)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), weight)


def train(folder: Path, recipe: Recipe, processes: int = 2) -> None:
    """Train the generator on ``folder/images.npy``, going on from ``folder/generator.pt`` where there is one.

    Writes the state (every three minutes), ``losses.csv`` and a sheet of samples (every 10,000 images) into the folder.
    """
    os.environ.setdefault(
        "MALLOC_MMAP_THRESHOLD_", str(2**30)
    )  # large blocks are reused and not returned to the system
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**31))
    meeting_point = folder / f"processes-{os.getpid()}"
    torch.multiprocessing.spawn(train_as_one, (folder, recipe, processes, meeting_point), nprocs=processes)
    meeting_point.unlink(missing_ok=True)


def train_as_one(rank: int, folder: Path, recipe: Recipe, processes: int, meeting_point: Path) -> None:
    """The training as one of ``processes`` processes."""
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", init_method=meeting_point.absolute().as_uri(), rank=rank, world_size=processes)
    trainer = Trainer(recipe, np.load(folder / "images.npy", mmap_mode="r"), rank, processes)
    state = folder / "generator.pt"
    if state.exists():
        trainer.load(torch.load(state, weights_only=True))
    journal = Journal(folder, trainer) if rank == 0 else None
    parent = os.getppid()
    while trainer.seen < recipe.images and os.getppid() == parent:  # ends where the process that began it was killed
        losses = trainer.train_step()
        if journal:
            journal.write(losses)
    if journal:
        journal.save()
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


class Journal:
    """What a training leaves on disk, and its progress bar."""

    def __init__(self, folder: Path, trainer: Trainer, save_every: float = 180.0, sheet_every: int = 10_000):
        self.folder, self.trainer, self.save_every, self.sheet_every = folder, trainer, save_every, sheet_every
        self.bar = tqdm(total=trainer.recipe.images, initial=trainer.seen, unit="img", mininterval=10)
        self.saved, self.sheet = time.monotonic(), trainer.seen // sheet_every
        self.sums: dict[str, tuple[float, int]] = {}

    def write(self, losses: dict[str, float]) -> None:
        self.bar.update(self.trainer.seen - self.bar.n)
        for name, value in losses.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)
        if self.trainer.step % 128 == 0:
            self.log()
        if self.trainer.seen // self.sheet_every > self.sheet:
            self.sheet = self.trainer.seen // self.sheet_every
            self.draw()
        if time.monotonic() - self.saved > self.save_every:
            self.save()

    def log(self) -> None:
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        path = self.folder / "losses.csv"
        columns = ("seen", "d", "g", "real", "fake", "r1")
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            if new:
                writer.writeheader()
            writer.writerow({"seen": self.trainer.seen} | {k: f"{v:.4f}" for k, v in means.items()})

    @torch.no_grad()
    def draw(self) -> None:
        z = np.stack([np.random.RandomState(seed).standard_normal(128) for seed in range(96)])
        x = torch.cat([self.trainer.average(part) for part in torch.from_numpy(z).float().split(16)])
        path = self.folder / f"sheet-{self.trainer.seen:07d}.png"
        Image.fromarray(grid(to_uint8(x), columns=12)).save(path)

    def save(self) -> None:
        partial = self.folder / "generator.pt.partial"
        torch.save(self.trainer.state(), partial)
        partial.replace(self.folder / "generator.pt")
        self.saved = time.monotonic()


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights of a training as fp16 safetensors."""
    state = torch.load(folder / "generator.pt", weights_only=True)["average"]
    partial = target.with_suffix(".partial")
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, partial)
    partial.replace(target)
