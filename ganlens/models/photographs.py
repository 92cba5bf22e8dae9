"""Images that a network is shown: those of a folder, read when they are needed, or some at hand."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ganlens.arguments import close_match
from ganlens.files import check_ordinary
from ganlens.images import as_images, from_uint8

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
FEWEST = 8  # images
DAMAGE = OSError, SyntaxError, ValueError, Image.DecompressionBombError  # as Pillow says it


class Held:
    """Images at hand.

    Parameters
    ----------
    images : Tensor (N, 3, Y, X) in [-1, 1], or uint8 array (N, Y, X, 3)
        Grey ones have one channel, and are shown with three.
    """

    files: tuple[Path, ...] = ()

    def __init__(self, images: torch.Tensor | np.ndarray):
        x = as_images(images)
        if x is None:
            found = f"{images.dtype} {tuple(images.shape)}" if hasattr(images, "shape") else type(images).__name__
            raise ValueError(
                f"images {found}: expected a path, a tensor (N, 3, Y, X) in [-1, 1], or uint8 (N, Y, X, 3); grey ones "
                "have one channel"
            )
        check_enough(len(x), "")
        if not x.abs().max() <= 1:
            raise ValueError(f"images with values up to {x.abs().max():g}: expected [-1, 1], or uint8 (N, Y, X, 3)")
        if getattr(images, "dtype", None) not in (torch.uint8, np.uint8) and x.min() >= 0 and x.max() > 0:
            warnings.warn(
                f"images with values {x.min():.3g} … {x.max():.3g}, none below 0, are taken for values in [-1, 1]; if "
                "they are in [0, 1], give 2 * images - 1 (inputs= says what the network takes)",
                stacklevel=4,
            )
        self.x, self.size = x.cpu(), tuple(x.shape[2:])

    def __len__(self) -> int:
        return len(self.x)

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """Images (N, 3, Y, X) of these numbers."""
        return self.x[list(numbers)]

    @property
    def digest(self) -> str:
        """Hash of all images."""
        return hashlib.sha256(f"{tuple(self.x.shape)}".encode() + self.x.contiguous().numpy().tobytes()).hexdigest()


class Folder:
    """The images of a folder and of its subfolders, in a fixed order that mixes them; read when they are needed.

    Parameters
    ----------
    root : Path
        With images, or with subfolders that have images, one for each class.
    size : int or (int, int), optional
        Height and width; by default those of the images, where they are all alike.
    """

    def __init__(self, root: Path, size: int | tuple[int, int] | None):
        self.root, self._digest = root, ""
        paths = image_files(root)
        check_enough(len(paths), f"{root}: ")
        self.files = tuple(paths[i] for i in np.random.RandomState(0).permutation(len(paths)))
        self.size = common_size(self.files, root) if size is None else as_size(size)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """Images (N, 3, Y, X) of these numbers; ValueError that names a file that cannot be read."""
        return from_uint8(np.stack([read_picture(self.files[i], self.size) for i in numbers]))

    def truth(self, class_names: Sequence[str] | None) -> tuple[np.ndarray, Sequence[str] | None]:
        """The class of each image (N,), and the names of the classes."""
        parents = [path.relative_to(self.root).parts[0] for path in self.files]
        if self.files[0].parent == self.root:  # no subfolders
            return np.full(len(self), -1), class_names
        found = sorted({*parents})
        names = found if class_names is None else list(class_names)
        for name in found:
            if name not in names:
                raise ValueError(close_match("class", name, names, "class_names=[…]") + f"; {self.root} does")
        return np.array([names.index(name) for name in parents]), names

    @property
    def digest(self) -> str:
        """Hash of names and bytes of all files; computed once."""
        if not self._digest:
            digest = hashlib.sha256(f"{self.size}".encode())
            for path in self.files:
                content = path.read_bytes()
                digest.update(f"\0{path.relative_to(self.root).as_posix()}\0{len(content)}\0".encode() + content)
            self._digest = digest.hexdigest()
        return self._digest


def image_files(root: Path) -> list[Path]:
    """The images of a folder, or those of its subfolders, by name; ValueError if there are none, or both."""
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder")
    every = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    every = [path for path in every if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    flat = [path for path in every if path.parent == root]
    if not every:
        raise ValueError(
            f"{root}: no images in it or in its subfolders; expected files that end in {', '.join(ENDINGS)}"
        )
    if flat and len(flat) < len(every):
        raise ValueError(
            f"{root} has images ({flat[0].name} …) and subfolders with images; expected one or the other: a subfolder "
            "for each class, or no classes"
        )
    return every


def common_size(paths: Sequence[Path], root: Path) -> tuple[int, int]:
    """Height and width of all images; ValueError if they differ."""
    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        sizes.setdefault(size_of(path), path)
        if len(sizes) > 1:
            (a, b), (c, d) = sizes
            raise ValueError(
                f"{root} has images of several sizes ({a} x {b}, {c} x {d} …): give the one that the network takes, "
                "for example size=224; images are scaled and cut to it"
            )
    return next(iter(sizes))


def size_of(path: Path) -> tuple[int, int]:
    with opened_image(path) as file:
        return file.size[::-1]


def opened_image(path: Path) -> Image.Image:
    """A file as an image; ValueError that names it if it is none. Reading other formats may start programs."""
    check_ordinary(path)
    try:
        return Image.open(path, formats=FORMATS)
    except DAMAGE as error:
        raise ValueError(f"{path}: not an image that can be read ({error})") from error


def read_picture(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture (Y, X, 3), uint8, of a file; where a size is given, scaled to cover it and cut around its centre."""
    with opened_image(path) as file:
        try:
            picture = as_rgb(ImageOps.exif_transpose(file))
        except DAMAGE as error:  # damage shows only now
            raise ValueError(f"{path}: not an image that can be read ({error})") from error
    if size and picture.size != size[::-1]:
        picture = ImageOps.fit(picture, size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(picture)


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB: transparent ones on white, 16 bits as 8."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def check_enough(count: int, where: str) -> None:
    if count < FEWEST:
        raise ValueError(f"{where}{count} images; expected at least {FEWEST}, and some hundreds for a dissection")


def as_size(size) -> tuple[int, int]:
    """Height and width; ValueError if they are none."""
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(type(s) is int and s > 0 for s in pair):
        raise ValueError(f"size={size!r}: expected a number of pixels, or (height, width)")
    return tuple(pair)
