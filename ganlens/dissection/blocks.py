"""What blocks of images contribute to the counts of a pass: how far an IoU would vary with other images."""

from typing import ClassVar, cast

import numpy as np
import torch

from ganlens.statistics import JointCounts, Statistic, count_each, narrowed

MOST = 64  # blocks of a sample
LEAST = 16  # of a large layer with many concepts
BUDGET = 2**28  # bytes of a layer's blocks
TAIL_LEVELS = 0, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768  # of 1,024 bins
FULL_LEVELS = tuple(range(0, 1024, 64))


def block_size(n: int, units: int, columns: int, most: int = MOST) -> int:
    """Images of each block, an even number from 4 on: ``most`` blocks of a sample, fewer where memory is short."""
    each = 4 * units * (columns + 1) * len(FULL_LEVELS)
    blocks = min(most, max(LEAST, BUDGET // each))
    return max(4, 2 * -(-n // (2 * blocks)))


class BlockCounts(Statistic):
    """How many pixels of each block of images are above some levels, anywhere and at pixels of each column.

    They are read off the joint counts of the pass whenever a block ends, which costs one look at the table.

    Parameters
    ----------
    joint : JointCounts
        The counts of the whole pass, U units and K columns.
    levels : sequence of int
        Bins, of 1,024, from which on pixels count; L of them.
    blocks : int
        Number of blocks B.

    Attributes
    ----------
    above : Tensor (B, U, 1 + K, L)
        Pixels above each level: anywhere, then in each column.
    area, pixels : Tensor (B, K), (B,)
        Pixels of each column, and all that are counted.
    """

    merges: ClassVar = {"above": lambda a, b: narrowed(a.long() + b), "area": torch.add, "pixels": torch.add}
    open = -1  # number of the block that images are added to

    def __init__(self, joint: JointCounts, levels: tuple[int, ...], blocks: int):
        units, columns, bins = joint.counts.shape
        device = joint.counts.device
        self.joint, self.seen, self.counted = joint, torch.zeros(0), -1  # what was read last, after so many pixels
        self.bins = (torch.tensor(levels, device=device) * bins // 1024).expand(units, -1).contiguous()
        self.above = torch.zeros(blocks, units, 1 + columns, len(levels), dtype=torch.int32, device=device)
        self.area = torch.zeros(blocks, columns, dtype=torch.int64, device=device)
        self.pixels = torch.zeros(blocks, dtype=torch.int64, device=device)

    def update(self, features: torch.Tensor, planes: torch.Tensor, block: int) -> None:
        """Count images of one block in the joint counts, and remember whose they are."""
        if block != self.open:
            self.close()
            if self.counted != int(self.joint.pixels):  # others were merged with the counts
                self.seen = self.read()
            self.open = block
        self.joint.update(features, planes)
        count_each(planes.flatten()[None].long().clamp(min=-1), self.area[block : block + 1])
        self.pixels[block] += (planes[:, 0] > -2).sum()

    def merge(self, other: Statistic) -> Statistic:
        for one in (self, other):
            cast(BlockCounts, one).close()
        return super().merge(other)

    def state(self) -> dict[str, np.ndarray]:
        self.close()
        return super().state()

    def read(self) -> torch.Tensor:
        """Pixels above each level so far (U, 1 + K, L)."""
        marginal, counts = self.joint.above(self.bins)
        return torch.cat([marginal[:, None], counts], 1)

    def close(self) -> None:
        """Take what the open block has added; needed before the joint counts are merged with others."""
        if self.open >= 0:
            now = self.read()
            row = self.above[self.open] + (now - self.seen)
            if row.max() > torch.iinfo(self.above.dtype).max:
                self.above = self.above.long()
            self.above[self.open] = row.to(self.above.dtype)
            self.open, self.seen, self.counted = -1, now, int(self.joint.pixels)
