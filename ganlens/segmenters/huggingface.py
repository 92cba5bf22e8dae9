"""Semantic segmentation by the networks of the `transformers` package: UPerNet, SegFormer, Mask2Former and others."""

import hashlib
import json
import math
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F

from ganlens.segmenters.base import Concept, Segmenter

HUB = {  # short names, and the models that they mean
    "upernet": "openmmlab/upernet-convnext-tiny",
    "upernet-swin": "openmmlab/upernet-swin-tiny",
    "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
    "mask2former": "facebook/mask2former-swin-tiny-ade-semantic",
}
NAMES = {
    "upernet": f"150 concepts of ADE20K, the network of the paper ({HUB['upernet']})",
    "upernet-swin": f"150 concepts of ADE20K ({HUB['upernet-swin']})",
    "segformer": f"150 concepts of ADE20K, fast ({HUB['segformer']})",
    "mask2former": f"150 concepts of ADE20K ({HUB['mask2former']})",
}
NOTHING = {"background", "unlabeled", "unlabelled", "void"}  # classes that are no concepts
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
FAMILIES = {  # ends of config.architectures, and what opens such a network
    "ForSemanticSegmentation": "AutoModelForSemanticSegmentation",
    "ForUniversalSegmentation": "AutoModelForUniversalSegmentation",
    "ForInstanceSegmentation": "AutoModelForUniversalSegmentation",
    "CLIPSegForImageSegmentation": "CLIPSegForImageSegmentation",
}


def load(name: str, **options) -> "HuggingFaceSegmenter":
    """The segmenter behind a short name."""
    return HuggingFaceSegmenter(HUB[name], **options)


@dataclass(frozen=True)
class Preparation:
    """What a network expects of its images; read from its ``preprocessor_config.json``.

    Attributes
    ----------
    size : tuple of int, int or None
        Height and width, or the shorter side, or as the images are.
    longest : int or None
        Limit of the longer side, where only the shorter one is given.
    multiple : int
        Sides are rounded up to multiples of this.
    scale : float
        What a white pixel becomes before normalisation.
    mean, std : tuple of float
        Of each channel.
    flip : bool
        Whether channels are in the order blue, green, red.
    mode : str
        Interpolation, with antialiasing.
    """

    size: tuple[int, int] | int | None
    longest: int | None = None
    multiple: int = 1
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    flip: bool = False
    mode: str = "bilinear"

    @classmethod
    def from_config(cls, config: dict, size: tuple[int, int] | int | None = None) -> "Preparation":
        """Read the processor's settings; another size may be asked for."""
        given, longest = config.get("size"), config.get("max_size")
        if isinstance(given, dict):
            longest = given.get("longest_edge")
            given = given.get("shortest_edge") or (given["height"], given["width"])
        elif isinstance(given, list):
            given = tuple(given)
        elif given and not longest:
            given = (given, given)
        if size is not None or not config.get("do_resize", True):
            given, longest = size, None
        normal = config.get("do_normalize", True)
        return cls(
            size=given if given is None or isinstance(given, int) else tuple(given),
            longest=longest,
            multiple=config.get("size_divisor") or config.get("size_divisibility") or 1,
            scale=255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0,
            mean=tuple(config.get("image_mean", (0.485, 0.456, 0.406))) if normal else cls.mean,
            std=tuple(config.get("image_std", (0.229, 0.224, 0.225))) if normal else cls.std,
            flip=config.get("do_flip_channel_order", False),
            mode=RESAMPLING.get(config.get("resample", 2), "bilinear"),
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Input of the network (N, 3, Y', X') for images (N, 3 or 1, Y, X) in [-1, 1]; differentiable."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"the network needs images of 3 channels, or grey ones of 1; got {tuple(images.shape)}")
        x = (images.float() / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)
        size = self.target(*x.shape[2:])
        if size != tuple(x.shape[2:]):
            x = F.interpolate(x, size, mode=self.mode, antialias=True)
        x = x.flip(1) if self.flip else x
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        return (x * self.scale - mean) / std

    def target(self, y: int, x: int) -> tuple[int, int]:
        """Height and width that the network gets for images of y times x pixels.

        Examples
        --------
        >>> Preparation(size=512, longest=800, multiple=32).target(100, 200)
        (416, 800)
        """
        height, width = y, x
        if isinstance(self.size, tuple):
            height, width = self.size
        elif self.size:
            short = self.size
            if self.longest:
                short = min(short, round(self.longest * min(y, x) / max(y, x)))
            height, width = (short, int(short * x / y)) if y <= x else (int(short * y / x), short)
        height, width = (math.ceil(side / self.multiple) * self.multiple for side in (height, width))
        return height, width


class HuggingFaceSegmenter(Segmenter):
    """A semantic-segmentation network of `transformers`, category "object".

    It runs on the images' device; label planes and scores have the images' own size unless ``grid`` says otherwise.

    Parameters
    ----------
    source : str or path
        Folder with ``config.json``, ``preprocessor_config.json`` and the weights, or a model id such as
        "openmmlab/upernet-convnext-tiny", which is taken from the cache or else downloaded.
    size : int or tuple of int, optional
        Size of the images that the network sees: the shorter side, or height and width; by default what the model's
        processor says.
    grid : tuple of int, optional
        Height and width of the label planes.
    batch_size : int
        Images per pass of the network.

    Raises
    ------
    ImportError
        transformers is not installed.
    OSError
        A file is missing, or cannot be downloaded; the message says where to put which files.
    ValueError
        The model is of another kind, or its files are damaged or incomplete.

    Notes
    -----
    Labels are the classes with the highest score, 0 where that is a background class. Names of several words are cut
    to the first that no class before has: "building, edifice" becomes "building".
    """

    def __init__(
        self,
        source: str | os.PathLike,
        size: tuple[int, int] | int | None = None,
        grid: tuple[int, int] | None = None,
        batch_size: int = 4,
    ):
        check_sizes(size, grid, batch_size)
        config, net, processor = open_pretrained(source)
        if config.model_type == "clipseg":
            raise ValueError(f"{source} is a CLIPSeg, which finds what you type: load_segmenter(…, concepts=[…])")
        self.net = net.requires_grad_(False).eval()
        self.by_masks = not type(net).__name__.endswith("ForSemanticSegmentation")
        self.prepare = Preparation.from_config(processor, size)
        self.grid, self.batch_size, self.name = grid, batch_size, name_of(source)
        names = class_names([config.id2label[i] for i in range(len(config.id2label))])
        self.kept = [i for i, name in enumerate(names) if name.lower() not in NOTHING]
        self.concepts = tuple(Concept(names[i]) for i in self.kept)
        number = torch.zeros(len(names), dtype=torch.int64)  # label of each class
        number[torch.tensor(self.kept)] = torch.arange(len(self.kept)) + 1
        self.number = number
        self.weights_ = ""  # their hash, once it was asked for

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = [self.probabilities(self.evidence(some))[:, self.kept] for some in images.split(self.batch_size)]
        return torch.cat(scores)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            classes = [self.evidence(some).argmax(1, keepdim=True) for some in images.split(self.batch_size)]
        return self.number.to(images.device)[torch.cat(classes)]

    def evidence(self, images: torch.Tensor) -> torch.Tensor:
        """What speaks for each class (N, K, h, w): logits, or sums over the masks of a Mask2Former."""
        found = self.net.to(images.device)(pixel_values=self.prepare(images))
        maps = found.masks_queries_logits if self.by_masks else found.logits
        maps = F.interpolate(maps, self.grid or images.shape[2:], mode="bilinear")
        if not self.by_masks:
            return maps
        classes = found.class_queries_logits.softmax(-1)[..., :-1]  # the last is "no object"
        return torch.einsum("nqc,nqyx->ncyx", classes, maps.sigmoid())

    def probabilities(self, evidence: torch.Tensor) -> torch.Tensor:
        """Scores (N, K, h, w) in [0, 1], in the order of the evidence."""
        if self.by_masks:
            return evidence / evidence.sum(1, keepdim=True).clamp(min=1)  # several masks may cover a pixel
        return evidence.softmax(1)

    @property
    def fingerprint(self) -> str:
        self.weights_ = self.weights_ or digest(self.net)
        text = f"{self.weights_} {self.concepts} {self.prepare} {self.grid}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_sizes(size, grid, batch_size: int) -> None:
    for name, value in {"size": size, "grid": grid}.items():
        sides = value if isinstance(value, tuple) else (value, value)
        if value is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"{name}={value}: expected height and width in pixels, such as (256, 384)")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1")


def class_names(labels: Sequence[str]) -> list[str]:
    """Short, distinct names of classes: of each the first synonym that no class before it has.

    Examples
    --------
    >>> class_names(["building, edifice", "screen;silver screen", "screen, CRT screen", "building"])
    ['building', 'screen', 'CRT screen', 'building 2']
    """
    names = []
    for label in labels:
        synonyms = [word.strip() for word in re.split("[,;]", label) if word.strip()] or [label]
        counted = (f"{synonyms[0]} {k}" for k in range(2, len(labels) + 2))
        names.append(next(name for name in (*synonyms, *counted) if name not in names))
    return names


def name_of(source: str | os.PathLike) -> str:
    """Last part of a model id or folder."""
    return Path(source).resolve().name if os.path.isdir(source) else str(source).split("/")[-1]


def digest(net: nn.Module) -> str:
    """Hash of every number of a network."""
    hash_ = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        hash_.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hash_.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hash_.hexdigest()


# ---- loading


def open_pretrained(source: str | os.PathLike) -> tuple:
    """Configuration, network and processor settings of a folder or model id; nothing in the files is executed."""
    return local_first(os.fspath(source), read_pretrained)


def local_first(source: str, read: Callable):
    """What ``read(source)`` makes of a folder, or of a model in the cache, or else of its download."""
    import_transformers(source)
    if os.path.exists(source) and not os.path.isfile(os.path.join(source, "config.json")):
        raise OSError(f"{source} cannot be opened: it has no config.json; give the folder of a model of transformers")
    try:
        with quiet():
            return read(source, local_files_only=True)
    except OSError as error:
        if os.path.exists(source):
            raise OSError(f"{source} cannot be opened: {error}") from error
    try:
        check_reachable()
        return read(source)
    except OSError as error:
        from transformers.utils.hub import constants

        page, kept = f"https://huggingface.co/{source}/tree/main", f"models--{source.replace('/', '--')}"
        raise OSError(
            f"{source} is not in the cache and cannot be downloaded ({str(error).splitlines()[0]}). Fetch config.json, "
            "preprocessor_config.json and model.safetensors or pytorch_model.bin (for CLIPSeg also the tokenizer's "
            f"files) from {page}, put them in one folder, and give that folder: load_segmenter('path/to/folder'). "
            f"Or run `hf download {source}` elsewhere, and bring the folder {kept} to {constants.HF_HUB_CACHE}"
        ) from error


def check_reachable(timeout: float = 5.0) -> None:
    """Find out at once whether there is a network; transformers would retry for half a minute."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        raise OSError(f"{endpoint} does not answer: {getattr(error, 'reason', error)}") from error


def import_transformers(wanted: str):
    """The package, or an error that says how to install it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"segmenter {wanted!r} needs transformers, which is not installed: pip install 'ganlens[segmenters]'"
        ) from error
    return transformers


def read_pretrained(source: str, **options) -> tuple:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except ValueError as error:
        raise ValueError(f"{source} has a configuration that transformers does not know: {error}") from error
    kind = (config.architectures or [type(config).__name__])[0]
    family = next((family for end, family in FAMILIES.items() if kind.endswith(end)), None)
    if family is None:
        raise ValueError(f"{source} is a {kind}; expected a network whose kind ends with {' or '.join(FAMILIES)}")
    processor = read_processor(source, **options)
    opener = getattr(transformers, family)
    try:
        options |= {"trust_remote_code": False, "output_loading_info": True}
        net, info = opener.from_pretrained(source, config=config, **options)
    except pickle.UnpicklingError as error:
        raise ValueError(f"the weights of {source} hold more than tensors; nothing in them was executed") from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        reason = next(iter(str(error).splitlines()), "cut off")
        raise ValueError(f"the weights of {source} are damaged or of another network: {reason}") from error
    if info["missing_keys"] or info.get("mismatched_keys"):
        lacking = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", ())]))
        raise ValueError(f"the weights of {source} lack {len(lacking)} tensors of a {kind}, such as {lacking[0]}")
    return config, net.float(), processor


def read_processor(source: str, **options) -> dict:
    """Settings of the model's image processor."""
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            path = cached_file(source, name, **options)
        except OSError:
            continue
        try:
            settings = json.loads(Path(cast(str, path)).read_text(encoding="utf-8"))
            return dict(settings.get("image_processor", settings))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{name} of {source} is damaged: {error}") from error
    raise OSError(f"{source} has no preprocessor_config.json, which says how images are resized and normalised")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing reports and bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
