"""Does the image show what the prompt asks for? CLIP's cosine, and in the studio attribute probes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from iy.diffusion import Base, to_pixels
from iy.errors import UserError, one_line
from iy.evaluate.prompts import Prompt

PROBED = {
    "probe_expression": ("expression",),
    "probe_pose": ("pose",),
    "probe_backdrop": ("backdrop",),
    "probe_clothing": ("garment", "garment_colour"),
}
BATCH = 64


class Clip:
    """Text and image into one space: a named CLIP model, or the base's own text branch and vision tower (never
    finetuned)."""

    text: Any
    vision: Any

    def __init__(self, base: Base, name: str | None, device: torch.device) -> None:
        if name is not None:
            self.open(name)
            self.text.to(device)
            self.vision.to(device)
            return
        branch = base.text[base.own]
        self.tokenizer, self.text, self.vision, self.max_length = (
            branch.tokenizer,
            branch.encoder,
            base.vision,
            branch.max_length,
        )
        self.mean, self.std = base.image_mean, base.image_std
        width = getattr(getattr(self.text, "text_projection", None), "out_features", None)
        if width != self.vision.config.projection_dim:
            raise UserError(
                "evaluate.clip is null, but the base's own text encoder and its vision tower do not share a space: "
                "name a CLIP model there (e.g. openai/clip-vit-large-patch14)"
            )

    def open(self, name: str) -> None:
        from transformers import (
            CLIPImageProcessor,
            CLIPTextModelWithProjection,
            CLIPTokenizer,
            CLIPVisionModelWithProjection,
        )

        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(name)
            self.text = CLIPTextModelWithProjection.from_pretrained(name).eval()
            self.vision = CLIPVisionModelWithProjection.from_pretrained(name).eval()
            processor = CLIPImageProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise UserError(f"evaluate.clip: cannot open {name} as a CLIP model: {one_line(error)}") from None
        self.mean, self.std, self.max_length = (
            processor.image_mean,
            processor.image_std,
            self.text.config.max_position_embeddings,
        )

    @torch.no_grad()
    def score(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """Cosine (N,) of image i and text i, in [-1, 1]."""
        known = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        tokens = self.tokenizer(
            list(known), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        words = self.text(
            **{key: tokens[key].to(self.text.device) for key in ("input_ids", "attention_mask")}
        ).text_embeds.float()
        seen = torch.cat([self.see(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
        return F.cosine_similarity(seen, words[[known[text] for text in texts]]).cpu().numpy()

    def see(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Embeddings (N, D) of uint8 images (H, W, 3) of one size."""
        side = self.vision.config.image_size
        pixels = F.interpolate(to_pixels(images) / 2 + 0.5, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(list(values)).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return self.vision(
            pixel_values=((pixels - mean) / std).to(self.vision.device, self.vision.dtype)
        ).image_embeds.float()


def probe_scores(seen: Mapping[str, Sequence[str]], asked: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """Per measure (N,): the share of the attributes it stands for that the probes have `seen` as asked."""
    scores = {}
    for name, attributes in PROBED.items():
        right = [
            [value == prompt.attributes[one] for value, prompt in zip(seen[one], asked, strict=True)]
            for one in attributes
            if one in seen
        ]
        if right:
            scores[name] = np.mean(np.array(right, float), 0)
    return scores
