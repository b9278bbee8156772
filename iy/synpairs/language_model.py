"""A rewriter in this process: a causal language model, which answers a batch of captions at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iy.device import choose_device
from iy.errors import UserError, one_line
from iy.synpairs.answers import Answers
from iy.synpairs.asking import REPLY_TOKENS, SYSTEM, Request, clean, instruction
from iy.synpairs.models import digest


class LanguageModel:
    """Any causal language model that transformers opens: a folder, hub id or .gguf file. device: auto, cpu or cuda."""

    def __init__(self, path: str, batch: int, device: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source, options = (
            (str(Path(path).parent), {"gguf_file": Path(path).name}) if path.endswith(".gguf") else (path, {})
        )
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
            model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **options)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"synpairs.rewriter_model: cannot open {path} as a causal language model: {one_line(error)}"
            ) from None
        self.name, self.batch = f"transformers:{Path(path).name if options else path}", batch
        self.answers = Answers(digest(path), SYSTEM, REPLY_TOKENS)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = model.to(choose_device(device)).eval()

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
