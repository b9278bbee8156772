"""A rewriter behind an OpenAI-compatible endpoint (llama.cpp, vLLM, a hosted service). Key: environment
IY_OPENAI_API_KEY."""

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from iy.errors import UserError
from iy.synpairs.rewriters import REPLY_TOKENS, SYSTEM, Request, clean, instruction

PARALLEL = 8  # requests in flight
TIMEOUT = 60.0  # seconds for one reply
RETRIES = 4  # of one request, with the client's exponential back-off; it honours Retry-After
log = logging.getLogger(__name__)


class Endpoint:
    """A reply that is late, malformed or refused becomes "", which the check rejects; a server that is not there
    stops us."""

    def __init__(self, url: str, model: str, timeout: float = TIMEOUT, retries: int = RETRIES) -> None:
        import openai

        self.url, self.model, self.name = url, model, f"openai:{model}"
        self.client = openai.OpenAI(
            base_url=url, api_key=os.environ.get("IY_OPENAI_API_KEY", "none"), timeout=timeout, max_retries=retries
        )

    def answer(self, requests: Sequence[Request]) -> list[str]:
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(self.reply, requests))

    def reply(self, request: Request) -> str:
        import openai

        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": instruction(request)}]
        try:
            answer = self.client.chat.completions.create(
                model=self.model, messages=messages, max_tokens=REPLY_TOKENS, temperature=0.5, seed=request.seed
            )
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
