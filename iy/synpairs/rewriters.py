"""Turn a photo's caption into the caption of another photo of the same person: other pose, expression, gaze, light,
place.

A rewriter answers a batch of requests with one text each, or with "" where it has nothing to say; `rewrite` checks
every answer and asks again. What comes back from a language model is only ever text to be checked.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from iy import lexicon, params
from iy.errors import UserError
from iy.synpairs.answers import Answers
from iy.synpairs.check import check_rewrite
from iy.synpairs.grammar import new_shot, rewrite_by_grammar, words
from iy.synpairs.models import digest

REPLY_TOKENS = 100
SYSTEM = (
    "You edit captions of portraits. Keep every word about the person (gender, age, skin, hair, beard, glasses) and "
    "the clothes. Change only what you are told. Answer with the new caption alone."
)


class Request(NamedTuple):
    caption: str
    seed: int


@dataclass(frozen=True)
class Rewrite:
    """The last answer, the shot attributes it changed, and what is wrong with it (None: accepted)."""

    text: str
    changed: list[str]
    problem: str | None


class Rewriter(Protocol):
    name: str

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One text per request; equal requests give equal answers."""


def rewrite(rewriter: Rewriter, requests: Sequence[Request], attempts: int) -> list[Rewrite]:
    """Ask until the check is content, at most `attempts` times each; later attempts draw with other seeds."""
    found: list[Rewrite | None] = [None] * len(requests)
    waiting = list(range(len(requests)))
    for attempt in range(attempts):
        asked = [requests[i]._replace(seed=derived_seed(requests[i].seed, attempt)) for i in waiting]
        for i, text in zip(waiting, rewriter.answer(asked), strict=True):
            changed, problem = check_rewrite(requests[i].caption, text)
            found[i] = Rewrite(text, changed, problem)
        waiting = [i for i in waiting if found[i].problem]
        if not waiting:
            break
    return found


def derived_seed(*parts: object) -> int:
    """An integer in [0, 2^31) that only these parts decide."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


def load_rewriter(settings: params.SynPairs) -> Rewriter:
    if settings.rewriter == "grammar":
        return Grammar()
    if settings.rewriter_model is None:
        raise UserError(f"synpairs.rewriter_model is null: rewriter {settings.rewriter!r} needs the name of a model")
    if settings.rewriter == "transformers":
        return LanguageModel(settings.rewriter_model, settings.batch)
    if settings.rewriter_endpoint is None:
        raise UserError(
            "synpairs.rewriter_endpoint is null: rewriter 'openai' needs a base URL, e.g. http://127.0.0.1:8080/v1"
        )
    from iy.synpairs.endpoint import Endpoint

    return Endpoint(settings.rewriter_endpoint, settings.rewriter_model, settings.rewriter_budget)


class Grammar:
    """Replaces the caption's own shot words by others from the lexicon; the words about the person stay as they are."""

    name = "grammar"

    def answer(self, requests: Sequence[Request]) -> list[str]:
        return [rewrite_by_grammar(request.caption, random.Random(request.seed)) for request in requests]


def instruction(request: Request) -> str:
    """What a language model is asked: the caption and the new shot, drawn as the grammar draws it, in the lexicon's
    words."""
    rng = random.Random(request.seed)
    shot = new_shot({name: found[0] for name, found in lexicon.find(request.caption).items()}, rng)
    wanted = "; ".join(f"{name}: {words(name, value, rng)}" for name, value in shot.items())
    return f"Caption: {request.caption}\nChange the {wanted}.\nNew caption:"


def clean(reply: str) -> str:
    """The caption in a model's reply: its first sentence-like line, without labels, quotes, fences and list marks."""
    for line in reply.replace("```", "\n").splitlines():
        line = re.sub(
            r"^\s*(?:[-*•]|\d+[.)])?\s*(?:(?:the )?(?:new|rewritten)?\s*caption\s*:)?\s*", "", line, flags=re.I
        )
        line = " ".join(line.strip("\"'“”* ").split())
        if len(line.split()) >= 4 and not line.endswith(":"):
            return line
    return ""


class LanguageModel:
    """Any causal language model that transformers opens: a folder, a hub id, or a .gguf file."""

    def __init__(self, path: str, batch: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source, options = (
            (str(Path(path).parent), {"gguf_file": Path(path).name}) if path.endswith(".gguf") else (path, {})
        )
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
            model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **options)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"synpairs.rewriter_model: cannot open {path} as a causal language model: "
                f"{' '.join(str(error).split())[:300]}"
            ) from None
        self.name, self.batch = f"transformers:{Path(path).name if options else path}", batch
        self.answers = Answers(digest(path), SYSTEM, REPLY_TOKENS)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def answer(self, requests: Sequence[Request]) -> list[str]:
        return [
            text
            for start in range(0, len(requests), self.batch)
            for text in self.answer_batch(requests[start : start + self.batch])
        ]

    def answer_batch(self, requests: Sequence[Request]) -> list[str]:
        """Kept as a whole: which answers are drawn together decides them."""
        asked = [[instruction(request), request.seed] for request in requests]
        return self.answers(asked, lambda: self.ask(requests))

    def ask(self, requests: Sequence[Request]) -> list[str]:
        import torch

        prompts = [self.prompt(instruction(request)) for request in requests]
        tokens = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(
            self.model.device
        )
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(requests[0].seed)
            out = self.model.generate(
                **tokens,
                max_new_tokens=REPLY_TOKENS,
                do_sample=True,
                temperature=0.5,
                top_p=0.9,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        replies = self.tokenizer.batch_decode(out[:, tokens.input_ids.shape[1] :], skip_special_tokens=True)
        return [clean(reply) for reply in replies]

    def prompt(self, text: str) -> str:
        """Through the model's chat template where it has one."""
        if self.tokenizer.chat_template is None:
            return f"{SYSTEM}\n\n{text}"
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
