"""The studio's text and vision encoders: a CLIP pair trained on renders and captions, small T5 and ByT5 kinds.

The T5 kind stands in for UL2. Both T5 encoders learn to say what a caption says (every lexicon attribute, read from the
mean of their hidden states); CLIP learns to match captions with renders, to name the attributes from either side, and
to tell people apart from their face crops.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional as F

from foundation.autoencoder import pixels
from foundation.renders import Renders
from foundation.train import Plan, fit
from iy import lexicon

WIDTH, LENGTH, LONG, BYTES = 192, 77, 128, 256
RATE, READING = 8e-4, 2e-3  # learning rates of CLIP, and of a text encoder that learns to read
NAMES = [*lexicon.SHOT, *lexicon.PERSON]


def caption(renders: Renders, index: int, seed: int) -> str:
    return lexicon.describe(renders.attributes[index], np.random.default_rng((seed, index)), person=bool(seed % 4))


def clip_tokenizer(texts: list[str], folder: Path) -> transformers.CLIPTokenizer:
    """A byte-level BPE of the captions' words, in CLIP's layout."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-&/"))
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=letters + [letter + "</w>" for letter in letters],
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=False))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    bpe.train_from_iterator((text.lower() for text in texts), trainer)
    bpe.model.save(str(folder))
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH
    )
    return tokenizer


def t5_tokenizer(texts: list[str]) -> transformers.T5TokenizerFast:
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    unigram.train_from_iterator(texts, trainer)
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", unigram.token_to_id("</s>"))]
    )
    return transformers.T5TokenizerFast(
        tokenizer_object=unigram,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=LONG,
    )


def t5_encoder(vocabulary: int, seed: int) -> transformers.T5EncoderModel:
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return transformers.T5EncoderModel(config)


class Heads(nn.Module):
    """One linear classifier per attribute: (B, D) -> summed cross-entropy against the true values."""

    def __init__(self, width: int, names: list[str]):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(lexicon.LEXICON[name])) for name in names})

    def loss(self, x: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = {name: value.to(x.device) for name, value in targets.items()}
        known = {name: int((targets[name] >= 0).sum()) for name in self.heads}  # a caption need not say everything
        return sum(
            F.cross_entropy(head(x), targets[name], ignore_index=-1, reduction="sum") / max(1, known[name])
            for name, head in self.heads.items()
        ) / len(self.heads)


def targets(attributes: list[dict], names: list[str]) -> dict[str, torch.Tensor]:
    """Class indices; -1 where the attribute is unknown."""
    index = {name: {value: i for i, value in enumerate(lexicon.LEXICON[name])} for name in names}
    return {name: torch.tensor([index[name].get(a.get(name), -1) for a in attributes]) for name in names}


@cache
def said(text: str) -> dict[str, str]:
    return {name: value for name, (value, _, _) in lexicon.find(text).items()}


class Reader(nn.Module):
    """A text encoder with states of `width` numbers, and heads that read off their mean what a caption says."""

    def __init__(self, encoder: nn.Module, width: int):
        super().__init__()
        self.encoder, self.heads = encoder, Heads(width, NAMES)

    def loss(self, hidden: torch.Tensor, mask: torch.Tensor, facts: list[dict]) -> torch.Tensor:
        """Of the states (B, L, width) of captions that say `facts`; mask (B, L)."""
        weight = mask[..., None]
        return self.heads.loss((hidden * weight).sum(1) / weight.sum(1), targets(facts, NAMES))


def train_reader(
    tokenizer, encoder: nn.Module, width: int, texts: list[str], length: int, plan: Plan, seed: int
) -> Reader:
    reader, rng, facts = Reader(encoder, width), np.random.default_rng(seed), [said(text) for text in texts]

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(texts), size=32 * plan.times)
        tokens = tokenizer(
            [texts[i] for i in pick], padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(plan.device)
        mask = tokens.attention_mask
        hidden = reader.encoder(input_ids=tokens.input_ids, attention_mask=mask).last_hidden_state
        return reader.loss(hidden, mask, [facts[i] for i in pick])

    return fit(plan, reader, loss, decay=0.99)


def clip_text(vocabulary: int, bos: int, eos: int, seed: int) -> transformers.CLIPTextModelWithProjection:
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return transformers.CLIPTextModelWithProjection(config)


def clip_vision(seed: int) -> transformers.CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=5,
        num_attention_heads=6,
        image_size=64,
        patch_size=8,
        projection_dim=WIDTH,
    )
    return transformers.CLIPVisionModelWithProjection(config)


class Towers(NamedTuple):
    """CLIP's two towers as they ship."""

    text: nn.Module
    vision: nn.Module


class Clip(nn.Module):
    """CLIP's two towers, its temperature, heads that name attributes, and a matrix from face to identity.

    `reader`: the text tower after it has learnt to read. The U-Net looks at its states, not at the pooled embedding
    that CLIP trains: from contrast alone, 900 steps left expression and pose unread, and the U-Net blind to both.
    """

    def __init__(self, reader: Reader, vision: transformers.CLIPVisionModelWithProjection):
        super().__init__()
        self.reader, self.vision = reader.train(), vision
        self.temperature = nn.Parameter(torch.tensor(2.6))
        self.heads, self.identity = Heads(WIDTH, NAMES), nn.Linear(WIDTH, 128, bias=False)

    @property
    def text(self) -> nn.Module:
        return self.reader.encoder


def train_clip(
    tokenizer,
    clip: Clip,
    renders: Renders,
    captions: list[list[str]],
    faces: np.ndarray,
    identities: np.ndarray,
    plan: Plan,
    batch: int = 40,
    seed: int = 3,
) -> Clip:
    """`captions[i]`: several of render i. `faces` (N, 64, 64, 3): masked crops, as references are later.

    `identities` (P, 128): where the filtering recogniser sees each person; face crops learn to point there.
    """
    rng = np.random.default_rng(seed)
    where, batch = torch.from_numpy(identities).float().to(plan.device), batch * plan.times
    people, first = np.unique(renders.person, return_index=True)
    shots = len(renders.person) // len(people)
    everything = targets(renders.attributes, NAMES)

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(renders.images), size=batch)
        texts = [captions[i][rng.integers(len(captions[i]))] for i in pick]
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt").to(plan.device)
        who = rng.permutation(len(people))[: batch // 2]
        pair = np.concatenate([first[who] + rng.integers(shots, size=len(who)) for _ in range(2)])
        words = clip.text(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        seen = clip.vision(pixels(np.concatenate([renders.images[pick], faces[pair]])).to(plan.device)).image_embeds
        images, portraits = F.normalize(seen[:batch], dim=1), clip.identity(seen[batch:])
        match = clip.temperature.exp().clamp(max=100) * images @ F.normalize(words.text_embeds, dim=1).T
        portraits = F.normalize(portraits, dim=1)
        told = 12.0 * portraits[: len(who)] @ portraits[len(who) :].T
        pointed = 1 - (portraits * where[torch.from_numpy(who)].repeat(2, 1)).sum(1).mean()
        named = {name: value[torch.from_numpy(pick)] for name, value in everything.items()}
        facts = [said(text) for text in texts]
        return (
            contrast(match)
            + contrast(told)
            + 2 * pointed
            + clip.heads.loss(seen[:batch], named)
            + clip.reader.loss(words.last_hidden_state, tokens.attention_mask, facts)
        )

    return fit(plan, clip, loss, decay=0.995)


def embedder(tokenizer, tower: nn.Module):
    """`encode(texts)`: the text tower's pooled embeddings (B, D)."""

    @torch.no_grad()
    def encode(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        return tower(**tokens.to(tower.device)).text_embeds

    return encode


def contrast(match: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy over a (B, B) similarity matrix whose diagonal is right."""
    right = torch.arange(len(match), device=match.device)
    return (F.cross_entropy(match, right) + F.cross_entropy(match.T, right)) / 2
