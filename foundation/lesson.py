"""What the long stage 1 learns from: everything encoded once and kept on the device, every step of the same shapes.

The reference is the masked crop of the very picture to be drawn, as in the paper's real stages, and the caption is what
a captioner would say: pose, expression, gaze and light are named in some third of them, now and then wrongly.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import ByT5Tokenizer

from foundation import autoencoder, perceptual
from foundation.album import Album
from foundation.renders import SIDE, Renders
from iy import params
from iy.diffusion import Base, to_pixels
from iy.diffusion.base import Branch
from iy.faces.crop import face_crop
from iy.finetune.examples import Batch, face_maps, random, rows_at
from iy.model.attention import Tokens
from iy.model.vision import resize

ENCODE = 256  # captions encoded, and references resized, at once
TURNED = [1, 0, 2, 4, 3]  # a face's landmarks in a mirror: eyes and corners of the mouth change places
Draws = dict[str, torch.Tensor]


@dataclass(slots=True)
class Shown(Batch):
    """pictures uint8 (K, 3, 128, 128): the first K rows' targets; ways (K, 2, 3): where their faces are."""

    pictures: torch.Tensor
    ways: torch.Tensor


@dataclass(kw_only=True, slots=True)
class Lesson:
    """P pictures, photos and then what a mirror shows of them, with C captions each; example i has caption i.

    latents (P, 8, 16, 16); images uint8 (P, 3, 128, 128); crops uint8 (P, 3, S, S); weight (P, 1, 16, 16) of the loss;
    landmarks (P, 5, 2), pixels, on the processor; states[name] (P·C + 1, L, D) padded with zeros, the last one of the
    empty caption, and their lengths[name] (P·C + 1,).
    """

    latents: torch.Tensor
    images: torch.Tensor
    crops: torch.Tensor
    weight: torch.Tensor
    landmarks: np.ndarray
    states: dict[str, torch.Tensor]
    lengths: dict[str, torch.Tensor]
    captions: int

    def __len__(self) -> int:
        return len(self.latents) * self.captions

    def text(self, rows: torch.Tensor) -> Tokens:
        """States (B, L, D) at their full length, so that every step has the same shapes, and mask (B, L)."""
        found = {}
        for name, states in self.states.items():
            places = torch.arange(states.shape[1], device=states.device)
            found[name] = states[rows].to(self.latents.dtype), places[None] < self.lengths[name][rows][:, None]
        return found

    def no_text(self) -> Tokens:
        return self.text(torch.tensor([len(self)], device=self.latents.device))

    def batch(self, draws: Draws) -> Shown:
        pick, seen = draws["pick"], len(draws["ways"])
        return Shown(
            self.latents[pick],
            self.text(draws["caption"]),
            (self.crops[pick].float() / 127.5 - 1)[:, None],
            self.weight[pick].float(),
            self.images[pick[:seen]],
            draws["ways"],
        )

    def draws(self, seed: int, step: int, settings: params.Training, timesteps: int, seen: int) -> Draws:
        """What step `step` shows, on the processor: it follows from (seed, step), whatever was drawn before.

        seed: () of the noise; t, no_text, no_image (B,); ways of the first `seen` pictures' faces, a little off.
        """
        chosen = rows_at(seed, step * settings.batch, settings.batch, len(self))
        rng, pick = random(seed, 2, step), chosen // self.captions
        edges = np.cumsum([settings.drop_text, settings.drop_image, settings.drop_both])
        kind = np.searchsorted(edges, rng.random(settings.batch), "right")  # 3: nothing is dropped
        return {
            "seed": torch.tensor(int(rng.integers(2**62))),
            "pick": torch.from_numpy(pick),
            "caption": torch.from_numpy(chosen),
            "t": torch.from_numpy(rng.integers(0, timesteps, settings.batch)),
            "no_text": torch.from_numpy((kind == 0) | (kind == 2)),
            "no_image": torch.from_numpy((kind == 1) | (kind == 2)),
            "ways": perceptual.ways(self.landmarks[pick[:seen]], rng),
        }


def build(album: Album, base: Base, settings: params.Params, size: int, mirror: bool) -> Lesson:
    """The photos whose face was found; `mirror`: and what a mirror shows of those that show no letters.

    size: pixels of a side that the vision tower looks at.
    """
    renders = album.renders
    rows = np.flatnonzero(renders.found)
    images, said = autoencoder.tensor(renders.images[rows]), [album.captions[row] for row in rows]
    box, landmarks = renders.box[rows], renders.landmarks[rows]
    crops = resized([reference(renders, row, settings.model, base.image_size) for row in rows], size)
    if mirror:
        turn = np.flatnonzero(renders.turns[rows])
        images, crops = torch.cat([images, images[turn].flip(3)]), torch.cat([crops, crops[turn].flip(3)])
        box = np.concatenate([box, turned_box(box[turn])])
        landmarks = np.concatenate([landmarks, turned_landmarks(landmarks[turn])])
        said += [album.turned[row] for row in rows[turn]]
    latents = autoencoder.latents(base.vae, images)
    weight = face_maps(box * (latents.shape[-1] / SIDE), latents.shape[-2:], settings.finetune.training.face_weight)
    states, lengths = encoded([*(text for some in said for text in some), ""], base)
    return Lesson(
        latents=latents,
        images=images.to(base.device),
        crops=crops.to(base.device),
        weight=weight.to(base.device),
        landmarks=landmarks,
        states=states,
        lengths=lengths,
        captions=len(said[0]),
    )


def turned_box(box: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) as a mirror shows them."""
    return np.stack([SIDE - box[:, 2], box[:, 1], SIDE - box[:, 0], box[:, 3]], 1)


def turned_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (N, 5, 2) as a mirror shows them."""
    turned = landmarks[:, TURNED].copy()
    turned[..., 0] = SIDE - 1 - turned[..., 0]
    return turned


def reference(renders: Renders, row: int, model: params.Model, side: int) -> np.ndarray:
    """The masked reference uint8 (side, side, 3), cut as the stages do."""
    return face_crop(
        renders.images[row], renders.box[row], renders.landmarks[row], side, model.crop_margin, model.mask_face
    )


def resized(cut: list[np.ndarray], size: int) -> torch.Tensor:
    """References at the tower's size, uint8 (N, 3, size, size)."""
    parts = [resize(to_pixels(cut[first : first + ENCODE]), size) for first in range(0, len(cut), ENCODE)]
    return torch.cat([((part + 1) * 127.5).round().to(torch.uint8) for part in parts])


@torch.no_grad()
def encoded(texts: list[str], base: Base) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every branch's states on the base's device, bfloat16, padded to the branch's longest, and their lengths."""
    found: dict[str, list[torch.Tensor]] = {}
    lengths: dict[str, list[torch.Tensor]] = {}
    for name, branch in base.text.items():
        for first in range(0, len(texts), ENCODE):
            ids, mask = (x.to(base.device) for x in tokenized(branch, texts[first : first + ENCODE]))
            hidden = branch.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            lengths.setdefault(name, []).append(mask.sum(1))
            found.setdefault(name, []).append((hidden * mask[..., None]).bfloat16())
    longest = {name: max(part.shape[1] for part in parts) for name, parts in found.items()}
    states = {
        name: torch.cat([F.pad(part, (0, 0, 0, longest[name] - part.shape[1])) for part in parts])
        for name, parts in found.items()
    }
    return states, {name: torch.cat(several) for name, several in lengths.items()}


def tokenized(branch: Branch, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int (B, L), of captions that may be cut: long ones are by design, and nobody is warned."""
    limit = branch.max_length
    if not isinstance(branch.tokenizer, ByT5Tokenizer):
        tokens = branch.tokenizer(texts, padding="longest", truncation=True, max_length=limit, return_tensors="pt")
        return tokens.input_ids, tokens.attention_mask
    # A token is a byte and three; transformers' own code needs a millisecond a caption, minutes in all.
    rows = [np.frombuffer(text.encode()[: limit - 1], np.uint8).astype(int) + 3 for text in texts]
    ids = [torch.from_numpy(np.append(row, branch.tokenizer.eos_token_id)) for row in rows]
    mask = [torch.ones_like(row) for row in ids]
    return tuple(torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (ids, mask))
