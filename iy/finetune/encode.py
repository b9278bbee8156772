"""Photos, captions and references to the tensors that training reads, made once and kept under `.iy/encoded`.

Three kinds of rows: the latents of a target, a caption's states of every text branch, a reference's crop. A folder is
named by what makes them (the base's parts, settings, code), a row by what it is made of. Stages and later runs share
them. What is missing is made shard by shard, here, in processes or on Ray's machines, to the same bytes; killed, it
goes on after the last shard.

`finetune.encoding`: `batches` encodes sixteen at a time, which is quickest for small models. What a row's numbers round
to then depends on the size of its batch, and a caption's on how far the others pad it, so that these are part of its
name. `alone` encodes one at a time: a row is the same wherever it is made.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from tqdm import tqdm

from iy import imports, params, project, resume, workers
from iy.device import choose_device
from iy.diffusion import Base, TextEncoders, load_text, load_vae, text_states, to_pixels, vae_encode
from iy.diffusion.fetch import local
from iy.errors import UserError
from iy.faces.crop import reference_crop
from iy.finetune import store
from iy.finetune.buckets import Cut, cut
from iy.finetune.shared import Shared
from iy.finetune.store import ROWS, Row, Store
from iy.model.vision import resize
from iy.params import Params
from iy.storage import file_sha256, read_image

Kind = Literal["latents", "texts", "crops"]
SHARD = 16 * ROWS
ALONE = 8  # shards that are not worth starting processes for, each of which opens the models
CODE: dict[Kind, tuple[str, ...]] = {  # what decides the rows
    "latents": ("diffusion/encode.py", "diffusion/base.py", "finetune/buckets.py"),
    "texts": ("diffusion/encode.py", "diffusion/base.py", "diffusion/int8.py"),
    "crops": ("faces/crop.py", "faces/face.py", "model/vision.py"),
}
OWN = ("finetune/encode.py", "finetune/store.py")
PART: dict[Kind, str | None] = {"latents": "vae", "texts": "text", "crops": None}
SETTINGS: dict[Kind, tuple[str, ...]] = {
    "latents": ("base.dtype", "base.image_size"),
    "texts": ("base.dtype",),
    "crops": ("base.image_size", "model.crop_margin", "model.mask_face"),
}


class How(NamedTuple):
    """What decides the rows besides what they are of, in words that reach other processes. settings: resolved, as JSON;
    size: the vision tower's; threads: torch's, which round differently when they are more or fewer."""

    settings: str
    size: int
    threads: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows of one kind: the key of each position, and `items()`, what each is made of, in the same order. An item's
    `together` is how many are encoded at once with it."""

    kind: Kind
    keys: np.ndarray
    items: Callable[[], Iterator[dict[str, Any]]]


class Job(NamedTuple):
    """One shard."""

    how: How
    kind: Kind
    path: Path
    keys: list[bytes]
    items: list[dict[str, Any]]


@dataclass(slots=True)
class Parts:
    """The models that a kind needs; None where it needs none."""

    vae: Any = None
    text: TextEncoders | None = None


class Encoder:
    """Gives the rows that examples need; `size` is the vision tower's image size."""

    def __init__(self, settings: Params, base: Base, size: int):
        self.settings, self.base, self.size = settings, base, size
        self.places = {kind: place(settings, kind, size) for kind in CODE}
        self.shared = None if settings.finetune.store is None else Shared(settings.finetune.store)

    def encode(self, wanted: Wanted, title: str) -> tuple[Store, np.ndarray]:
        """The store that holds the wanted rows, and the number of each in it; what was missing has been made."""
        state = PartialState(cpu=self.base.device.type == "cpu")
        found, missing = self.look(wanted, state)
        state.wait_for_everyone()  # all have seen the same, and each makes its share
        if missing.any():
            self.make(wanted, missing, title, state.process_index, state.num_processes)
            state.wait_for_everyone()
            found, _ = self.look(wanted, state)
        folder, numbers = self.places[wanted.kind], found.find(wanted.keys)
        if (numbers < 0).any():
            raise UserError(
                f"{folder}: rows that were made are not here: the machines that make them must share this folder, not "
                "have copies of it"
            )
        return found, numbers

    def look(self, wanted: Wanted, state: PartialState) -> tuple[Store, np.ndarray]:
        """What is here, fetched where machines share it, and which positions (N,) have to be made."""
        folder = self.places[wanted.kind]
        found = Store(folder)
        missing = absent(found.find(wanted.keys), wanted.keys)
        if self.shared is None or not missing.any():
            return found, missing
        if state.is_local_main_process:
            self.shared.fetch(folder, wanted.keys[missing])
        state.wait_for_everyone()
        found = Store(folder)
        return found, absent(found.find(wanted.keys), wanted.keys)

    def make(self, wanted: Wanted, missing: np.ndarray, title: str, own: int, processes: int) -> None:
        """Every `processes`th shard of what is missing, from number `own`."""
        how = How(json.dumps(self.settings.resolved()), self.size, torch.get_num_threads())
        several = islice(jobs(wanted, missing, how, self.places[wanted.kind]), own, None, processes)
        count = len(range(own, -(-int(missing.sum()) // SHARD), processes))
        parts = Parts(self.base.vae, self.base.text)
        made = here(several, parts)
        if processes == 1:  # of several, each has the models open
            made = spread(several, count, self.settings.workers, parts, self.base.device.type)
        for path in tqdm(made, title, count, unit="shard", mininterval=1, delay=1, disable=count <= 1):
            if self.shared:
                self.shared.send(path)


def absent(numbers: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which positions (N,) have to be made: the first of each key that has no number."""
    first, missing = np.unique(keys, return_index=True)[1], np.zeros(len(keys), bool)
    missing[first] = numbers[first] < 0
    return missing


def place(settings: Params, kind: Kind, size: int) -> Path:
    """`.iy/encoded/<kind>-<hash>`, of everything that decides all of its rows."""
    values, parts = settings.resolved(), settings.base.parts()
    decided = [resume.setting(values, name) for name in SETTINGS[kind]]
    models = [content(name, part) for name, part in parts.items() if name.partition(".")[0] == PART[kind]]
    code = [file_sha256(imports.ROOT / "iy" / name) for name in (*CODE[kind], *OWN)]
    key = [decided, models, size if kind == "crops" else None, code]
    return project.state() / "encoded" / f"{kind}-{resume.digest(key)}"


def content(name: str, part: params.Component) -> list[Any]:
    """How a part is opened, and what its files are: their hash where they lie here, else the commit that a hub gave."""
    from huggingface_hub import try_to_load_from_cache

    how = part.model_dump(mode="json", exclude={"path", "subfolder", "second"})
    folder = Path(local(part.path, part.subfolder, name, fetched=True), part.subfolder or "")
    if folder.is_dir():
        return [how, resume.content(folder)]
    found = try_to_load_from_cache(part.path, f"{part.subfolder}/config.json" if part.subfolder else "config.json")
    commit = found.partition("/snapshots/")[2].partition("/")[0] if isinstance(found, str) else None
    return [how, part.path, part.subfolder, commit]


def jobs(wanted: Wanted, missing: np.ndarray, how: How, folder: Path) -> Iterator[Job]:
    """The shards of what is missing, one after the other: no more of them are held than are being made."""
    places = np.flatnonzero(missing)
    items = (item for item, lacks in zip(wanted.items(), missing, strict=True) if lacks)
    for start in range(0, len(places), SHARD):
        held = [one.ljust(store.KEY, b"\0") for one in wanted.keys[places[start : start + SHARD]].tolist()]
        yield Job(how, wanted.kind, store.shard_path(folder, held), held, list(islice(items, len(held))))


def spread(several: Iterable[Job], count: int, how: params.Workers, parts: Parts, device: str) -> Iterator[Path]:
    """Make the shards. Here unless they are many, and on one GPU always: processes would be in each other's way."""
    if how.map == "ray":
        return workers.on_ray(open_and_make, several, how, 1, cpus=torch.get_num_threads(), gpu=True)
    if device == "cpu" and count > ALONE:
        return workers.each(open_and_make, several, how, chunk=1, alone=ALONE, count=count)
    return here(several, parts)


def here(several: Iterable[Job], parts: Parts) -> Iterator[Path]:
    return (make(job, settings_of(job.how.settings), parts) for job in several)


def open_and_make(job: Job) -> Path:
    """`make` in a process that has nothing open yet."""
    torch.set_num_threads(job.how.threads)
    return make(job, settings_of(job.how.settings), opened(job.how.settings, job.kind))


@lru_cache(1)
def settings_of(text: str) -> Params:
    return params.parse(json.loads(text), "settings")


@lru_cache(1)
def opened(text: str, kind: Kind) -> Parts:
    settings = settings_of(text)
    device = choose_device(settings.device)
    if kind == "latents":
        return Parts(vae=load_vae(settings.base, device))
    return Parts(text=load_text(settings.base, device)) if kind == "texts" else Parts()


def make(job: Job, settings: Params, parts: Parts) -> Path:
    """Write the shard of a job."""
    if job.path.exists():
        return job.path
    for left in job.path.parent.glob(f".{job.path.name}.*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    starts = range(0, len(job.items), ROWS)
    store.write(job.path, ((job.keys[i : i + ROWS], rows(job, i, settings, parts)) for i in starts))
    return job.path


def rows(job: Job, start: int, settings: Params, parts: Parts) -> list[Row]:
    """The rows from `start` that are written together."""
    found: list[Row] = []
    for together, several in groupby(job.items[start : start + ROWS], lambda item: item["together"]):
        items = list(several)
        if job.kind == "crops":
            found += [{"crop": reference_pixels(settings, item, job.how.size)} for item in items]
            continue
        for first in range(0, len(items), together):
            part = items[first : first + together]
            found += texts(part, parts.text) if job.kind == "texts" else latents(part, together, settings, parts.vae)
    return found


def latents(items: list[dict[str, Any]], together: int, settings: Params, vae: Any) -> list[Row]:
    """latents (C, h, w), the posterior's mode, in the autoencoder's dtype; box float32 (4,) in latent cells; sizes."""
    buckets = settings.finetune.buckets if items[0]["buckets"] else None
    cuts = [
        cut(read_image(Path(item["folder"]), item), item["box"], settings.base.image_size, buckets) for item in items
    ]
    images = [one.image for one in cuts]
    images += images[-1:] * (together - len(images))  # a batch's size decides how its numbers round
    coded = vae_encode(vae, to_pixels(images).to(vae.device)).cpu()
    return [{"latents": one, **described(seen, one.shape[-2:])} for one, seen in zip(coded, cuts, strict=False)]


def described(seen: Cut, cells: torch.Size) -> Row:
    height, width = seen.image.shape[:2]
    box = (seen.box / np.array([width, height] * 2) * np.array([cells[1], cells[0]] * 2)).astype(np.float32)
    return {"box": torch.from_numpy(box), "sizes": torch.from_numpy(seen.sizes)}


def texts(items: list[dict[str, Any]], text: TextEncoders | None) -> list[Row]:
    """The states (L, D) of every branch, without padding."""
    assert text is not None
    coded = text_states(text, [item["caption"] for item in items])
    return [
        {name: hidden[i, : int(mask[i].sum())].cpu().clone() for name, (hidden, mask) in coded.items()}
        for i in range(len(items))
    ]


def reference_pixels(settings: Params, row: dict[str, Any], size: int) -> torch.Tensor:
    """The face of a photo as uint8 (3, size, size), made exactly as a reference is when drawing."""
    crop = reference_crop(settings, Path(row["folder"]), row)
    return ((resize(to_pixels([crop]), size)[0] + 1) * 127.5).round().to(torch.uint8)
