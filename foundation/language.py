"""The studio's text and vision encoders: a CLIP pair trained on renders and captions, small T5 and ByT5 kinds.

All learn from captions and pictures alone. CLIP matches captions with renders, and its text tower learns to say what a
caption says (the U-Net looks at its states, not at the pooled one: from contrast alone they left expression and
pose unread). The T5 kind, which stands in for UL2, learns the same from captions of up to 100 words; the ByT5 kind
besides spells the word in quotes, letter by letter. Nobody tells CLIP's tower what a word's letters are.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional as F

from foundation.autoencoder import pixels
from foundation.train import Batch, Plan, fit, mixed
from iy import lexicon
from iy.narration import Caption

WIDTH, LENGTH, LONG, BYTES = 192, 77, 192, 320
RATE, READING = 8e-4, 2e-3  # learning rates of CLIP, and of a text encoder that learns to read
NAMES = [*lexicon.SHOT, *lexicon.PERSON]
LETTERS, PLACES = " ABCDEFGHIJKLMNOPQRSTUVWXYZ", 6  # of a spelt word; a space: none
EYE = 96  # pixels of a side that the vision tower looks at


def clip_tokenizer(texts: list[str], folder: Path) -> transformers.CLIPTokenizer:
    """A byte-level BPE of the captions' words, in CLIP's layout."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-&/"))
    trainer = trainers.BpeTrainer(
        vocab_size=1600,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=letters + [letter + "</w>" for letter in letters],
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=False))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    bpe.train_from_iterator((text.lower() for text in texts), trainer)
    bpe.model.save(str(folder))
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH)


def t5_tokenizer(texts: list[str]) -> transformers.T5TokenizerFast:
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1600, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
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
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=EYE,
        patch_size=EYE // 8,
        projection_dim=WIDTH,
    )
    return transformers.CLIPVisionModelWithProjection(config)


class Tokens:
    """Captions as ids int (N, L) and mask bool (N, L), and what they say: one (N,) of class indices per attribute, -1
    where it is not said, and letters int (N, PLACES) of the word in quotes, -1 without one."""

    def __init__(self, tokenizer, captions: list[Caption], length: int):
        texts = [one.text for one in captions]
        read = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        self.ids, self.mask = read.input_ids, read.attention_mask.bool()
        self.said = targets([one.said for one in captions], NAMES)
        self.letters = torch.tensor([spelt(text) for text in texts])

    def to(self, device: torch.device) -> "Tokens":
        self.ids, self.mask, self.letters = (x.to(device) for x in (self.ids, self.mask, self.letters))
        self.said = {name: value.to(device) for name, value in self.said.items()}
        return self


def spelt(text: str) -> list[int]:
    parts = text.split('"')
    if len(parts) < 3:
        return [-1] * PLACES
    return [LETTERS.index(letter) for letter in parts[1].ljust(PLACES)[:PLACES]]


def targets(attributes: list[dict], names: list[str]) -> dict[str, torch.Tensor]:
    """Class indices; -1 where the attribute is unknown."""
    index = {name: {value: i for i, value in enumerate(lexicon.LEXICON[name])} for name in names}
    return {name: torch.tensor([index[name].get(a.get(name), -1) for a in attributes]) for name in names}


class Heads(nn.Module):
    """One linear classifier per attribute: (B, D) -> mean cross-entropy against the true values."""

    def __init__(self, width: int, names: list[str]):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(lexicon.LEXICON[name])) for name in names})

    def loss(self, x: torch.Tensor, right: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(among_known(head(x).float(), right[name]) for name, head in self.heads.items()) / len(self.heads)


def among_known(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the rows whose answer is known; 0 when none is. (No host ever asks how many there are.)"""
    wrong = F.cross_entropy(logits, right, ignore_index=-1, reduction="sum")
    return wrong / (right >= 0).sum().clamp(min=1)


class Reader(nn.Module):
    """A text encoder, and heads that read off its states' mean what a caption says; `spells`: its word's letters."""

    def __init__(self, encoder: nn.Module, width: int, spells: bool):
        super().__init__()
        self.encoder, self.heads = encoder, Heads(width, NAMES)
        self.letters = nn.Linear(width, PLACES * len(LETTERS)) if spells else None

    def loss(self, hidden: torch.Tensor, mask: torch.Tensor, said: dict[str, torch.Tensor], letters: torch.Tensor):
        """Of the states (B, L, width) of captions; mask (B, L)."""
        mean = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        told = self.heads.loss(mean, said)
        if self.letters is None:
            return told
        return told + among_known(self.letters(mean).reshape(-1, len(LETTERS)), letters.reshape(-1))


def train_reader(tokens: Tokens, encoder: nn.Module, width: int, spells: bool, plan: Plan, seed: int) -> Reader:
    reader, rng, tokens = Reader(encoder, width, spells), np.random.default_rng(seed), tokens.to(plan.device)

    def draw(step: int) -> Batch:
        return {"pick": torch.from_numpy(rng.integers(len(tokens.ids), size=plan.batch))}

    def loss(batch: Batch) -> torch.Tensor:
        pick = batch["pick"]
        mask = tokens.mask[pick]
        with mixed(plan.device):
            hidden = reader.encoder(input_ids=tokens.ids[pick], attention_mask=attention(mask)).last_hidden_state
        return reader.loss(
            hidden, mask, {name: value[pick] for name, value in tokens.said.items()}, tokens.letters[pick]
        )

    return fit(plan, reader, draw, loss, decay=0.99)


def attention(mask: torch.Tensor) -> torch.Tensor:
    """Padding mask (B, L) bool as T5 adds it to its scores, (B, 1, 1, L); see `text_states`."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e4)[:, None, None]


class Clip(nn.Module):
    """CLIP's two towers, its temperature, and heads that name attributes from either side."""

    def __init__(self, text: nn.Module, vision: nn.Module):
        super().__init__()
        self.reader, self.vision = Reader(text, WIDTH, spells=False), vision
        self.temperature = nn.Parameter(torch.tensor(2.6))
        self.heads = Heads(WIDTH, NAMES)

    @property
    def text(self) -> nn.Module:
        return self.reader.encoder


def train_clip(
    clip: Clip,
    tokens: Tokens,
    styles: int,
    images: torch.Tensor,
    attributes: list[dict],
    plan: Plan,
    seed: int = 3,
) -> Clip:
    """images uint8 (N, 3, 128, 128); tokens of `styles` captions of each of them, in their order."""
    rng, tokens = np.random.default_rng(seed), tokens.to(plan.device)
    images, shown = images.to(plan.device), {k: v.to(plan.device) for k, v in targets(attributes, NAMES).items()}

    def draw(step: int) -> Batch:
        pick = rng.integers(len(images), size=plan.batch)
        caption = pick * styles + rng.integers(styles, size=plan.batch)
        return {"pick": torch.from_numpy(pick), "caption": torch.from_numpy(caption)}

    def loss(batch: Batch) -> torch.Tensor:
        pick, caption = batch["pick"], batch["caption"]
        mask = tokens.mask[caption]
        with mixed(plan.device):
            states = text_states(clip.text, tokens.ids[caption], mask)
            seen = clip.vision(pixel_values=small(pixels(images[pick]))).image_embeds.float()
        words = clip.text.text_projection(pooled(states, tokens.ids[caption], clip.text.config.eos_token_id))
        match = clip.temperature.exp().clamp(max=100) * F.normalize(seen, dim=1) @ F.normalize(words.float(), dim=1).T
        right = torch.arange(len(match), device=match.device)
        contrast = (F.cross_entropy(match, right) + F.cross_entropy(match.T, right)) / 2
        said = {name: value[caption] for name, value in tokens.said.items()}
        named = clip.heads.loss(seen, {name: value[pick] for name, value in shown.items()})
        return contrast + named + clip.reader.loss(states, mask, said, tokens.letters[caption])

    return fit(plan, clip, draw, loss, decay=0.995)


def small(pictures: torch.Tensor) -> torch.Tensor:
    return F.interpolate(pictures, (EYE, EYE), mode="bilinear", antialias=True)


def text_states(tower: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The CLIP text tower's last hidden state (B, L, D). The mask is given whole, causal part included: transformers
    would look whether it is needed, and a GPU would wait for the answer."""
    past = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    return tower.text_model(input_ids=ids, attention_mask=mask[:, None, None] & past).last_hidden_state


def pooled(states: torch.Tensor, ids: torch.Tensor, eos: int) -> torch.Tensor:
    """The state at the first end-of-text token, as CLIP takes it (B, D)."""
    at = (ids == eos).int().argmax(1)
    return states.gather(1, at[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


@torch.no_grad()
def encoded(tower: nn.Module, tokens: Tokens, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP states bfloat16 (N, L, D) and mask bool (N, L) of captions, on the device."""
    run, states = partial(text_states, tower.to(device)), []
    for ids, mask in zip(tokens.ids.split(512), tokens.mask.split(512), strict=True):
        with mixed(device):
            states.append(run(ids.to(device), mask.to(device)).bfloat16())
    return torch.cat(states), tokens.mask.to(device)
