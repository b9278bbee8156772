"""The pictures of one shard: orders that share their options, in full batches, by one worker.

Every distinct prompt and face is encoded once, alone, and kept. All batches hold the same number of rows, the last of
them repeated where there are fewer, and texts as long as each row's own ask for (in quarters of the encoders' limits):
a picture is the same, bit for bit, whatever it is drawn beside, by whichever worker, before or after a run was killed.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pad

from iy.errors import UserError
from iy.generate import in_batches
from iy.generate.portrait import Portraitist, open_artist
from iy.jobs.faces import Crop
from iy.jobs.kept import Kept
from iy.jobs.orders import How, Order
from iy.model import ImagineYourselfPipeline, inputs
from iy.model.attention import Tokens
from iy.model.conditioning import Vision, stack, together
from iy.params import parse
from iy.storage import sha256, write_bytes, write_json

KEPT = 2**30  # bytes of encoded prompts and faces
QUARTERS = 4


class Task(NamedTuple):
    """An order with its faces' crops; `key` stands for everything that decides the picture."""

    order: Order
    crops: tuple[Crop, ...]
    key: str


class Shard(NamedTuple):
    """Tasks that share their options, drawn into `folder`; what was drawn is noted in `note`.

    settings: resolved, as JSON. when: the time that the pictures say they were drawn at.
    """

    tasks: tuple[Task, ...]
    settings: str
    bundle: Path
    folder: Path
    note: Path
    when: datetime


class Encoder:
    """A pipeline's encoders, asked once for each distinct prompt and face while `KEPT` bytes hold the answers."""

    def __init__(self, pipeline: ImagineYourselfPipeline):
        self.pipeline = pipeline
        self.kept = Kept(KEPT, weight)
        assert pipeline.text is not None, "a bundle opens with them"
        self.limits = [(name, branch.max_length) for name, branch in pipeline.text.items()]

    def words(self, prompt: str) -> Tokens:
        return self.kept.get(("prompt", prompt), lambda: self.pipeline.encode_prompt(prompt))

    def away(self, prompt: str | None) -> Tokens:
        return self.kept.get(("away", prompt), lambda: self.pipeline.encode_negative(prompt))

    def face(self, crop: Crop) -> Vision:
        return self.kept.get(("face", crop.sha256), lambda: self.pipeline.encode_reference(pixels(crop)))

    def quarters(self, order: Order) -> int:
        """How many quarters of the text encoders' limits its texts fill, the fullest one's."""
        read = self.words(order.prompt), self.away(order.negative)
        return max(-(-QUARTERS * states[name][1].shape[1] // most) for states in read for name, most in self.limits)

    def texts(self, orders: Sequence[Order]) -> tuple[Tokens, Tokens]:
        """What they ask for and what they lead away from, a row each; all of them fill as many quarters."""
        filled = self.quarters(orders[0])
        long = {name: -(-most * filled // QUARTERS) for name, most in self.limits}
        words = [padded(self.words(order.prompt), long) for order in orders]
        return stack(words), stack([padded(self.away(order.negative), long) for order in orders])

    def people(self, task: Task) -> Vision:
        """One row of all its people's tokens, as the pipeline makes it of their pictures."""
        order, seen = task.order, [self.face(crop) for crop in task.crops]
        tokens = torch.cat([one.tokens for one in seen], 1)
        mask = torch.cat([one.mask for one in seen], 1)
        shares = torch.tensor([order.strengths], dtype=tokens.dtype, device=tokens.device)
        regions = None
        if order.regions:
            scale = self.pipeline.vae_scale
            rows: list[list[inputs.Picture]] = [[crop.path for crop in task.crops]]
            regions = inputs.regions(order.regions, rows, order.how.height // scale, order.how.width // scale)
            regions = None if regions is None else regions.to(tokens.device)
        return Vision(tokens, mask, shares.repeat_interleave(mask.shape[1] // len(seen), 1), regions)


def weight(answer: Tokens | Vision) -> int:
    """Bytes of encoded text, or of a face."""
    if isinstance(answer, Vision):
        return answer.tokens.nbytes + answer.mask.nbytes
    return sum(hidden.nbytes + mask.nbytes for hidden, mask in answer.values())


def padded(states: Tokens, lengths: dict[str, int]) -> Tokens:
    """Every branch of `lengths` with masked zeros up to its length."""

    def to(name: str, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        missing = lengths.get(name, mask.shape[1]) - mask.shape[1]
        return pad(hidden, (0, 0, 0, missing)), pad(mask, (0, missing))

    return {name: to(name, *pair) for name, pair in states.items()}


def pixels(crop: Crop) -> np.ndarray:
    return np.asarray(Image.open(crop.path).convert("RGB"))


@lru_cache(1)
def opened(text: str, bundle: Path) -> tuple[Portraitist, Encoder, int]:
    """What this process draws with, and how many pictures at a time."""
    settings = parse(json.loads(text), "settings")
    torch.set_num_threads(settings.jobs.threads)
    artist = open_artist(bundle, settings)
    artist.pipeline.set_progress_bar_config(disable=True)
    return artist, Encoder(artist.pipeline), settings.jobs.batch


@torch.no_grad()
def draw_shard(shard: Shard) -> dict[int, str]:
    """Draw its pictures and note them; row -> reason of those that cannot be drawn."""
    artist, encoder, batch = opened(shard.settings, shard.bundle)
    ready, refused = prepared(shard.tasks, encoder)
    if ready:
        groups: dict[int, list[int]] = {}
        for number, task in enumerate(ready):
            groups.setdefault(encoder.quarters(task.order), []).append(number)
        images = in_batches(artist.pipeline, list(groups.values()), batch, partial(one_batch, encoder, ready), None)
        note = []
        for number, task in enumerate(ready):
            data = artist.export(images[number], task.order.prompt, shard.when)
            write_bytes(shard.folder / task.order.file, data)
            note.append([task.key, task.order.file, sha256(data)])
        write_json(shard.note, note)
    return refused


def prepared(tasks: Sequence[Task], encoder: Encoder) -> tuple[list[Task], dict[int, str]]:
    """The tasks that this model can draw, and why the others cannot be; their prompts and faces are encoded by then."""
    ready, refused = [], {}
    for task in tasks:
        how = task.order.how
        try:
            encoder.pipeline.check(how.height, how.width, how.steps, 1.0, "pil", 1)
            encoder.quarters(task.order)
            encoder.people(task)  # a region may cover nothing
        except UserError as error:
            refused[task.order.row] = str(error)
        else:
            ready.append(task)
    return ready, refused


def one_batch(encoder: Encoder, tasks: Sequence[Task], rows: Sequence[int]) -> list[np.ndarray]:
    """The images of these rows of `tasks`, uint8 (H, W, 3), drawn beside each other."""
    chosen = [tasks[row] for row in rows]
    how: How = chosen[0].order.how
    words, away = encoder.texts([task.order for task in chosen])
    drawn = encoder.pipeline(
        prompt_embeds=words,
        negative_prompt_embeds=away,
        reference_embeds=together([encoder.people(task) for task in chosen]),
        seeds=[task.order.seed for task in chosen],
        height=how.height,
        width=how.width,
        num_inference_steps=how.steps,
        guidance_scale=how.guidance,
        identity_guidance_scale=how.identity_guidance,
        guidance_rescale=how.rescale,
        branch_strength=dict(how.branches),
        output_type="pil",
        return_dict=False,
    )[0]
    return [np.asarray(image) for image in drawn]
