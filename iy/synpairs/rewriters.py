"""Turn a photo's caption into that of another photo of the same person: other pose, expression, gaze, light, place.

A rewriter answers a batch of requests with one text each, or with "" where it has nothing to say; `rewrite` checks
every answer and asks again. What comes back from a language model is only ever text to be checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from iy.errors import UserError
from iy.params import SynPairs
from iy.seeds import derived_seed
from iy.synpairs.asking import Request
from iy.synpairs.check import check_rewrite
from iy.synpairs.endpoint import Endpoint
from iy.synpairs.grammar import Grammar
from iy.synpairs.language_model import LanguageModel


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
        ...


def rewrite(rewriter: Rewriter, requests: Sequence[Request], attempts: int) -> list[Rewrite]:
    """Ask until the check is content, at most `attempts` times each; later attempts draw with other seeds."""
    found: dict[int, Rewrite] = {}
    waiting = list(range(len(requests)))
    for attempt in range(attempts):
        asked = [requests[i]._replace(seed=derived_seed(requests[i].seed, attempt)) for i in waiting]
        for i, text in zip(waiting, rewriter.answer(asked), strict=True):
            changed, problem = check_rewrite(requests[i].caption, text)
            found[i] = Rewrite(text, changed, problem)
        waiting = [i for i in waiting if found[i].problem]
        if not waiting:
            break
    return [found[i] for i in range(len(requests))]


def load_rewriter(settings: SynPairs, device: str) -> Rewriter:
    """The rewriter that the settings name. device: auto, cpu or cuda, as there."""
    if settings.rewriter == "grammar":
        return Grammar()
    if settings.rewriter_model is None:
        raise UserError(f"synpairs.rewriter_model is null: rewriter {settings.rewriter!r} needs the name of a model")
    if settings.rewriter == "transformers":
        return LanguageModel(settings.rewriter_model, settings.batch, device)
    if settings.rewriter_endpoint is None:
        raise UserError(
            "synpairs.rewriter_endpoint is null: rewriter 'openai' needs a base URL, e.g. http://127.0.0.1:8080/v1"
        )
    return Endpoint(settings.rewriter_endpoint, settings.rewriter_model, settings.rewriter_budget)
