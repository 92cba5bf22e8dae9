"""Concepts that the user types, found by CLIPSeg (Lüddecke & Ecker, CVPR 2022)."""

import hashlib
import os
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ganlens.segmenters.base import Concept, Segmenter, as_concepts
from ganlens.segmenters.huggingface import (
    Preparation,
    check_sizes,
    digest,
    local_first,
    name_of,
    open_pretrained,
)

MODEL = "CIDAS/clipseg-rd64-refined"
NAMES = {"clipseg": f"the concepts that you type: concepts=[…] ({MODEL})"}


def load(name: str, **options) -> "ClipSegSegmenter":
    """CLIPSeg, for the concepts in the options."""
    return ClipSegSegmenter(MODEL, **options)


class ClipSegSegmenter(Segmenter):
    """Any words as concepts.

    Each image passes the vision network once, for all concepts together; only the small decoder runs for each of them.

    Parameters
    ----------
    source, grid, batch_size
        As of `ganlens.segmenters.huggingface.HuggingFaceSegmenter`, which also says what errors there are.
    concepts : sequence
        What to look for: words, or (word, category) pairs.
    threshold : float
        A pixel is labelled only where the best score of its category exceeds this.
    prompt : str
        What the text network reads; {} stands for the word.

    Raises
    ------
    ValueError
        No concepts, one that is given twice, or a model of another kind.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        concepts: Sequence[str | tuple[str, str] | Concept] = (),
        threshold: float = 0.5,
        prompt: str = "{}",
        grid: tuple[int, int] | None = None,
        batch_size: int = 4,
    ):
        if not concepts:
            raise ValueError("type what to look for: load_segmenter('clipseg', concepts=['a red roof', 'ivy'])")
        self.concepts = as_concepts([concepts] if isinstance(concepts, str) else concepts)
        check_sizes(None, grid, batch_size)
        config, net, processor = open_pretrained(source)
        if config.model_type != "clipseg":
            raise ValueError(f"{source} is a {config.model_type}, which has its own concepts; leave out concepts=")
        self.net = net.requires_grad_(False).eval()
        self.prepare = Preparation.from_config(processor)
        self.threshold, self.grid, self.batch_size, self.name = threshold, grid, batch_size, name_of(source)
        self.words = self.read([prompt.format(concept.name) for concept in self.concepts], source)
        self.weights_ = ""  # their hash, once it was asked for

    def read(self, texts: list[str], source: str | os.PathLike) -> torch.Tensor:
        """What the text network makes of each text (C, D)."""
        config = self.net.config.text_config
        tokenizer = local_first(os.fspath(source), read_tokenizer)
        if 2 * len(tokenizer) < config.vocab_size:  # transformers makes an empty one where the files are missing
            raise OSError(
                f"the tokenizer of {source} knows {len(tokenizer)} of {config.vocab_size} tokens; put vocab.json, "
                "merges.txt and tokenizer_config.json into the same folder as the model"
            )
        limit = config.max_position_embeddings
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            return self.net.get_conditional_embeddings(len(texts), tokens["input_ids"], tokens["attention_mask"])

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.scores_of(some) for some in images.split(self.batch_size)])

    def scores_of(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (N, C, h, w) of one pass; unlike the network's own forward, it lets gradients reach the images."""
        net, words = self.net.to(images.device), self.words.to(images.device)
        seen = net.clip.vision_model(self.prepare(images), output_hidden_states=True).hidden_states
        features = [seen[i + 1] for i in net.extract_layers]
        maps = [net.decoder(features, word.expand(len(images), -1)).logits for word in words]
        return F.interpolate(torch.stack(maps, 1), self.grid or images.shape[2:], mode="bilinear").sigmoid()

    @property
    def fingerprint(self) -> str:
        self.weights_ = self.weights_ or digest(self.net)
        text = f"{self.weights_} {self.words.tolist()} {self.concepts} {self.threshold} {self.prepare} {self.grid}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_tokenizer(source: str, **options):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
