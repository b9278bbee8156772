"""A rewriter behind an OpenAI-compatible endpoint (llama.cpp, vLLM, a hosted service).

Its key is the environment variable IY_OPENAI_API_KEY.
"""

import json
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from iy.errors import UserError
from iy.synpairs.answers import Answers
from iy.synpairs.asking import REPLY_TOKENS, SYSTEM, Request, clean, instruction

PARALLEL = 8  # requests in flight
TIMEOUT = 60.0  # seconds for one reply
RETRIES = 4  # of one request, with the client's exponential back-off; it honours Retry-After
CHARACTERS = 4  # of a token, for servers that do not count
log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam


class Endpoint:
    """A reply that is late, malformed or refused becomes "", which the check rejects; a server that is not there
    stops us, and so does a budget that is used up.

    budget: tokens of prompts and replies that this process may use, or None; up to `PARALLEL` requests go beyond it.
    """

    def __init__(
        self, url: str, model: str, budget: int | None = None, timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> None:
        import openai

        self.budget, self.used, self.counting = budget, 0, threading.Lock()
        self.answers = Answers(url, model, SYSTEM, REPLY_TOKENS)
        self.url, self.model, self.name = url, model, f"openai:{model}"
        self.client = openai.OpenAI(
            base_url=url, api_key=os.environ.get("IY_OPENAI_API_KEY", "none"), timeout=timeout, max_retries=retries
        )

    def answer(self, requests: Sequence[Request]) -> list[str]:
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(self.reply, requests))

    def reply(self, request: Request) -> str:
        [text] = self.answers([instruction(request), request.seed], lambda: [self.ask(request)])
        return text

    def ask(self, request: Request) -> str:
        import openai

        if self.budget is not None and self.used >= self.budget:
            raise UserError(
                f"synpairs.rewriter_budget: {self.budget} tokens are used up: raise it and run the same command again; "
                "what was answered is kept"
            )
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": instruction(request)},
        ]
        try:
            answer = self.client.chat.completions.create(
                model=self.model, messages=messages, max_tokens=REPLY_TOKENS, temperature=0.5, seed=request.seed
            )
            self.count(answer, messages)
            return clean(answer.choices[0].message.content or "")
        except (
            openai.APITimeoutError,
            openai.RateLimitError,
            openai.InternalServerError,
            openai.APIResponseValidationError,
        ) as error:
            log.warning("rewriter %s: %s", self.name, error)
        except openai.APIConnectionError as error:
            raise UserError(
                f"synpairs.rewriter_endpoint: {self.url} does not answer ({error.__cause__ or error}): start it, "
                "then run the same command again; finished pairs are kept"
            ) from None
        except openai.APIStatusError as error:
            raise UserError(
                f"synpairs.rewriter_endpoint: {self.url} refuses with status {error.status_code}: check the model "
                f"name {self.model!r} and the key in IY_OPENAI_API_KEY"
            ) from None
        except (json.JSONDecodeError, AttributeError, IndexError, TypeError) as error:
            log.warning("rewriter %s: the reply is not a chat completion (%s)", self.name, error)
        return ""

    def count(self, answer: "ChatCompletion", messages: "list[ChatCompletionMessageParam]") -> None:
        """What the server says it took; else by the length of what was said."""
        said = json.dumps(messages) + (answer.choices[0].message.content or "")
        tokens = answer.usage.total_tokens if answer.usage else len(said) // CHARACTERS
        with self.counting:
            self.used += tokens
