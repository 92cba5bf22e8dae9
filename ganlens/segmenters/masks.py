"""Masks that the user drew for certain images."""

import hashlib
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ganlens.segmenters.base import IGNORED, Segmenter, as_concepts, check_ignore, without

ALIKE = 0.002  # difference in brightness, of 2, within which two images of a generator count as the same
CELLS = 16  # images are compared as means over 16 x 16 cells


class MaskSegmenter(Segmenter):
    """Labels given by hand, known again by the images they were given for.

    Parameters
    ----------
    images : Tensor (K, channels, Y, X)
        The images, in [-1, 1].
    masks : Tensor (K, h, w), (K, L, h, w) or (K, C, h, w)
        Integer labels of the concepts, 0 = none, in one plane or several; or booleans, one plane for each concept.
    concepts : sequence
        Names, or (name, category) pairs, in label order.
    name : str
        For tables and messages.
    ignore : int, optional
        The label of pixels that count nowhere; 255, by custom, where there are fewer concepts.

    Raises
    ------
    ValueError
        Shapes or labels do not fit; or, when labels are asked for, an image that no mask was given for.

    Examples
    --------
    >>> images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    >>> S = Segmenter.from_masks(images, torch.tensor([[[0, 1]], [[1, 1]]]), ["tree"])
    >>> S.labels(images.flip(0)).tolist()
    [[[[1, 1]]], [[[0, 1]]]]
    """

    def __init__(
        self,
        images: torch.Tensor,
        masks: torch.Tensor,
        concepts: Sequence,
        name: str = "masks",
        ignore: int | None = None,
    ):
        self.concepts, self.name = as_concepts(concepts), name
        masks = torch.as_tensor(masks)
        masks = masks if masks.ndim == 4 else masks[:, None]
        if masks.dtype == torch.bool and masks.ndim == 4 and masks.shape[1] == len(self.concepts):
            masks = masks * (torch.arange(masks.shape[1], device=masks.device) + 1)[:, None, None]
        if masks.ndim != 4 or len(masks) != len(images) or masks.dtype == torch.bool or masks.is_floating_point():
            raise ValueError(
                f"{masks.dtype} masks {tuple(masks.shape)} for {len(images)} images and {len(self.concepts)} concepts; "
                "expected integers (K, L, h, w), 0 = none, or booleans (K, C, h, w)"
            )
        check_ignore(ignore)
        masks = without(masks.long(), ignore, len(self.concepts))
        if masks.numel() and (masks.min() < IGNORED or masks.max() > len(self.concepts)):
            raise ValueError(f"masks hold {masks.min()} … {masks.max()}; expected 0 … {len(self.concepts)}, 0 for none")
        self.masks, self.known = masks, thumbnails(images)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        given = thumbnails(images)
        known, masks = self.known.to(images.device), self.masks.to(images.device)
        difference, which = torch.stack([(known - one).abs().amax(1) for one in given]).min(1)
        if difference.max() > ALIKE:
            raise ValueError(
                f"image {int(difference.argmax())} of {len(images)} is none of the {len(known)} that {self.name} were "
                "given for; masks do not follow edits, and a dissection of n images needs those of seeds 0 … n - 1"
            )
        return masks[which]

    @property
    def fingerprint(self) -> str:
        hash_ = hashlib.sha256(f"{self.name} {self.concepts} {tuple(self.masks.shape)}".encode())
        for tensor in (self.masks, self.known):
            hash_.update(tensor.cpu().contiguous().numpy().tobytes())
        return hash_.hexdigest()[:16]


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """What images (N, channels, Y, X) are known by: means over a coarse grid (N, K)."""
    if images.ndim != 4:
        raise ValueError(f"expected images (N, channels, Y, X), got {tuple(images.shape)}")
    return F.adaptive_avg_pool2d(images.detach().float(), CELLS).flatten(1)
