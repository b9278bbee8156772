"""Captions by any image-to-text model that transformers opens: BLIP, GIT, ViT-GPT2, or one with a chat template."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    VisionEncoderDecoderModel,
)

from iy.curate.networks import Batches, opening

KEY = "curate.caption_model"
QUESTION = (
    "Describe this photo of a person in one sentence: expression, head pose, gaze, light, clothing and background."
)
LONGEST = 80  # tokens
EMPTY = "a portrait of a person"


class Captioner:
    def __init__(self, model: str, batch: int, device: torch.device | str) -> None:
        with opening(KEY, model, "an image-to-text model"):
            self.processor, self.words = open_processor(model)
            self.network: Any = open_model(model).to(device).eval()
        self.chats, self.batches = bool(getattr(self.processor, "chat_template", None)), Batches(batch, KEY)
        if self.chats:
            answers_side_by_side(self.processor.tokenizer)

    def __call__(self, images: Sequence[np.ndarray]) -> list[str]:
        """A sentence about each uint8 RGB (H, W, 3); the same for the same image (greedy decoding)."""
        return self.batches(self.several, images)

    def several(self, images: Sequence[np.ndarray]) -> list[str]:
        said = self.answers(self.inputs([Image.fromarray(image) for image in images]))
        return [" ".join(text.split()) or EMPTY for text in self.words.batch_decode(said, skip_special_tokens=True)]

    @torch.inference_mode()
    def answers(self, inputs) -> torch.Tensor:
        """Tokens (B, L) of what the model says."""
        said = self.network.generate(**inputs.to(self.network.device), do_sample=False, max_new_tokens=LONGEST)
        return said[:, inputs["input_ids"].shape[1] :] if self.chats else said  # those repeat the question

    def inputs(self, images: list[Image.Image]):
        if not self.chats:
            return self.processor(images=images, return_tensors="pt")
        contents = [[{"type": "image", "image": image}, {"type": "text", "text": QUESTION}] for image in images]
        return self.processor.apply_chat_template(
            [[{"role": "user", "content": content}] for content in contents],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def answers_side_by_side(tokenizer) -> None:
    """Questions of several lengths, for pictures of several sizes, end at one place: there the answers begin."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def open_processor(model: str) -> tuple[Any, Any]:
    """What prepares pictures, with the question where the model takes one, and what makes text of tokens."""
    found = AutoProcessor.from_pretrained(model)
    if isinstance(found, PreTrainedTokenizerBase):  # of a model whose two halves come from two others
        return AutoImageProcessor.from_pretrained(model), found
    return found, found if hasattr(found, "batch_decode") else AutoTokenizer.from_pretrained(model)


def open_model(model: str) -> torch.nn.Module:
    try:
        return AutoModelForImageTextToText.from_pretrained(model)
    except ValueError as error:
        if "VisionEncoderDecoder" not in str(error):  # not among the auto class's kinds
            raise
        return VisionEncoderDecoderModel.from_pretrained(model)
