"""Training of the embedded segmenter on paintings with their exact labels."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import trange

from ganlens.scenes.painter import CONCEPTS
from ganlens.segmenters.scenes import SceneUNet


def augment(x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Change light, colour and sharpness of images (N, 3, Y, X), so that imperfect images are labelled well too."""
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape or (n, 1, 1, 1), generator=random) * (high - low) + low

    x = x * uniform(0.75, 1.25) + uniform(-0.15, 0.15) + uniform(-0.08, 0.08, n, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = F.interpolate(F.interpolate(x, scale_factor=0.5, mode="area"), scale_factor=2.0, mode="bilinear")
    kind = uniform(0, 1)
    x = torch.where(
        kind < 0.25, x.lerp(soft, uniform(0.3, 1)), torch.where(kind < 0.4, x.lerp(coarse, uniform(0.3, 1)), x)
    )
    x = x + torch.randn(x.shape, generator=random) * uniform(0, 0.08)
    blotches = F.interpolate(torch.randn(n, 3, 8, 8, generator=random), size=x.shape[2:], mode="bilinear")
    return (x + blotches * uniform(0, 0.1)).clamp(-1, 1)


def train(folder: Path, target: Path, steps: int = 1000, batch: int = 32, rate: float = 3e-3, seed: int = 0) -> None:
    """Train on ``images.npy`` and ``labels.npy`` of a folder; write fp16 weights and the concepts to ``target``."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    random, drawn = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = SceneUNet(len(CONCEPTS))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    frequency = np.bincount(labels[:500].ravel(), minlength=len(CONCEPTS) + 1)[1:] / labels[:500].size
    weight = torch.from_numpy(1 / np.sqrt(frequency + 0.02)).float()
    adam = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps, pct_start=0.1)
    bar = trange(steps, unit="step", mininterval=5)
    for _ in bar:
        index = np.sort(drawn.integers(len(images), size=batch))
        x, y = torch.from_numpy(images[index]), torch.from_numpy(labels[index])
        x = augment(x.permute(0, 3, 1, 2).float() / 127.5 - 1, random).contiguous(memory_format=torch.channels_last)
        mirrored = (torch.rand(batch, generator=random) < 0.5)[:, None, None]
        x, y = torch.where(mirrored[..., None], x.flip(3), x), torch.where(mirrored, y.flip(2), y)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), y.long() - 1, weight)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    save(net, target)


def save(net: SceneUNet, target: Path) -> None:
    """Write the weights as fp16 safetensors, with the concepts in the metadata."""
    weights = {k: v.half().contiguous() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    partial = target.with_suffix(".partial")
    save_file(weights, partial, {"concepts": json.dumps(CONCEPTS)})
    partial.replace(target)
