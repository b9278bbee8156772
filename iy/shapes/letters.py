"""Stand-ins for tokenizers that are not here: they know letters alone, and cut prompts into more tokens than the real
ones do."""

import string
from pathlib import Path
from typing import Any

from iy import params
from iy.diffusion.base import tokenizer_folder

LETTERS = string.ascii_letters + string.digits + string.punctuation


def tokenizer(part: params.TextEncoder) -> Any:
    """The part's own where its files are here, else one of its class that knows letters alone."""
    import transformers

    kind = getattr(transformers, part.tokenizer)
    if Path(part.path, tokenizer_folder(part) or "").is_dir():
        return kind.from_pretrained(part.path, subfolder=tokenizer_folder(part) or "")
    if part.tokenizer == "ByT5Tokenizer":
        return kind()
    if part.tokenizer.startswith("CLIP"):
        return clip_letters(kind)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return kind(vocab=pieces, extra_ids=0)


def clip_letters(kind: Any) -> Any:
    """A CLIP tokenizer of class `kind`."""
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    return kind(vocab={word: i for i, word in enumerate(words)}, merges=[])
