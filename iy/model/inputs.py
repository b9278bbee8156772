"""What callers may hand to the pipeline, brought to one form; anything else is refused in one sentence."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iy import pictures
from iy.diffusion import to_pixels
from iy.errors import UserError
from iy.model.conditioning import Vision
from iy.model.vision import resize

Picture = Image.Image | np.ndarray | torch.Tensor | str | Path
NEARLY = 1e-2  # how far rounding may take a picture's numbers out of [0, 1]
LIMITS = pictures.Limits(pixels=200_000_000, side=4096)  # of a file: more than any size that is drawn
Cropper = Callable[[np.ndarray], np.ndarray]


def to_array(picture: Picture) -> np.ndarray:
    """PIL, path, array (H, W, 3) uint8 or float in [0, 1], or tensor (3, H, W) in [0, 1], as uint8 RGB (H, W, 3)."""
    try:
        if isinstance(picture, (str, Path)):
            return pictures.decode(pictures.contents(Path(picture)), *LIMITS)
        if isinstance(picture, Image.Image):
            return pictures.pixels(picture)
    except (pictures.Unreadable, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"reference or image {picture}: {error}") from None
    if isinstance(picture, (torch.Tensor, np.ndarray)) and picture.ndim == 4 and len(picture) == 1:
        picture = picture[0]
    if isinstance(picture, torch.Tensor):
        whole = picture.detach().cpu()
        picture = (whole.float() if whole.is_floating_point() else whole).movedim(0, -1).numpy()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
        found = getattr(picture, "shape", type(picture).__name__)
        raise UserError(f"an image must be PIL, a path, an array (H, W, 3) or a tensor (3, H, W), found {found}")
    if picture.dtype == np.uint8:
        return picture
    low, high = picture.min(initial=0), picture.max(initial=0)
    if not (np.issubdtype(picture.dtype, np.floating) and low >= -NEARLY and high <= 1 + NEARLY):
        raise UserError(f"an image of {picture.dtype} from {low:g} to {high:g}: give uint8, or floats from 0 to 1")
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def rows_of(pictures: Picture | Sequence | None) -> Picture | Sequence | None:
    """A batch in one array (B, H, W, 3) or tensor (B, 3, H, W) as a list, or its only row; all else as it is."""
    if not isinstance(pictures, (torch.Tensor, np.ndarray)) or pictures.ndim != 4:
        return pictures
    return list(pictures) if len(pictures) > 1 else pictures[0]


def prompts(prompt: str | Sequence[str]) -> list[str]:
    listed = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, (list, tuple)) else []
    if not listed or not all(isinstance(one, str) for one in listed):
        raise UserError(f"prompt must be a text or a list of texts, found {prompt!r:.80}")
    return listed


def negatives(negative: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    """One negative prompt, or None, per prompt; an empty text counts as none."""
    listed = [negative] * count if negative is None or isinstance(negative, str) else list(negative)
    if len(listed) != count:
        raise UserError(f"negative_prompt: give one text or one per prompt; {len(listed)} for {count} prompts")
    return [text or None for text in listed]


def references(reference: Picture | Sequence | None, single: bool, count: int) -> list[list[Picture]]:
    """The references of each of `count` prompts.

    One picture or None serves all prompts. A list gives, for a list of prompts, each prompt's picture, list of pictures
    or None; for a single prompt (`single`), the several references of that prompt.
    """
    reference = rows_of(reference)
    if reference is None:
        return [[] for _ in range(count)]
    if isinstance(reference, Picture) or not isinstance(reference, Sequence):
        return [[reference] for _ in range(count)]
    listed: list[Any] = [list(reference)] if single else list(reference)
    if len(listed) != count:
        raise UserError(f"reference: give one picture, or one entry per prompt; {len(listed)} for {count} prompts")
    rows: list[list[Any]] = [list(entry) if isinstance(entry, (list, tuple)) else [entry] for entry in listed]
    return [[picture for picture in row if picture is not None] for row in rows]


def reference_pixels(
    rows: list[list[Picture]], size: int, cropper: Cropper | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Pixels (B, N, 3, size, size) in [-1, 1] and presence (B, N), N the most references of a row; None without any."""
    most = max(map(len, rows))
    if most == 0:
        return None
    pixels, present = torch.zeros(len(rows), most, 3, size, size), torch.zeros(len(rows), most, dtype=torch.bool)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            image = to_array(picture)
            pixels[i, j] = resize(to_pixels([image if cropper is None else cropper(image)]), size)[0]
            present[i, j] = True
    return pixels, present


def check_callback(asked: Sequence[str], offered: Sequence[str]) -> None:
    if unknown := set(asked) - set(offered):
        raise UserError(f"callback_on_step_end_tensor_inputs: {sorted(unknown)[0]!r} is not among {list(offered)}")


def check_embeds(name: str, embeds: dict, own: str, device: torch.device, dtype: torch.dtype) -> None:
    """One sentence for embeddings that do not belong together or not to the model that is to read them."""
    if own not in embeds:
        raise UserError(f"{name}: the base's own text branch {own!r} is missing; found {sorted(embeds)}")
    rows = {len(mask) for _, mask in embeds.values()} | {len(hidden) for hidden, _ in embeds.values()}
    if len(rows) != 1:
        raise UserError(f"{name}: branches of {sorted(rows)} rows; give every branch the same prompts")
    for branch, (hidden, mask) in embeds.items():
        if hidden.device != device or mask.device != device:
            raise UserError(f"{name}: branch {branch!r} is on {hidden.device}, the model on {device}: move one of them")
        if hidden.dtype != dtype:
            raise UserError(
                f"{name}: branch {branch!r} is {hidden.dtype}, the model {dtype}: convert one of them".replace(
                    "torch.", ""
                )
            )


def seen(embeds: Vision, count: int, *pictures: object) -> Vision:
    """Reference tokens that the caller kept, one row per prompt; nothing may be asked of their pictures any more."""
    if any(asked is not None for asked in pictures):
        raise UserError(
            "reference_embeds stand in place of reference, person_strength and regions: give one or the other"
        )
    rows = len(embeds.mask)
    if rows not in (1, count):
        raise UserError(f"reference_embeds: {rows} rows for {count} prompts; give one, or one per prompt")
    return embeds if rows == count else embeds.map(lambda part: part.repeat_interleave(count, 0))


def person_weights(strength: Sequence | None, rows: list[list[Picture]]) -> torch.Tensor | None:
    """How strongly each reference is drawn, (B, N), 1 for those that are not there; None when nothing is asked.

    strength: a number per reference, the same for all prompts; or a list of such lists, one per prompt.
    """
    if strength is None:
        return None
    listed = strength if len(strength) and isinstance(strength[0], (list, tuple)) else [strength] * len(rows)
    weights = torch.ones(len(rows), max(map(len, rows), default=0))
    for i, (row, asked) in enumerate(per_reference("person_strength", listed, rows)):
        weights[i, : len(row)] = torch.tensor([float(value) for value in asked])
    return weights


def per_reference(name: str, listed: Sequence, rows: list[list[Picture]]) -> list[tuple[list[Picture], Sequence]]:
    """Each prompt's references beside what is asked of them, one entry per reference."""
    if len(listed) != len(rows):
        raise UserError(f"{name}: give one list, or one per prompt; {len(listed)} for {len(rows)} prompts")
    for row, asked in zip(rows, listed, strict=True):
        if len(row) != len(asked):
            raise UserError(f"{name}: {len(asked)} entries for {len(row)} references; give one per reference")
    return list(zip(rows, listed, strict=True))


def regions(asked: Sequence | None, rows: list[list[Picture]], height: int, width: int) -> torch.Tensor | None:
    """Where each reference belongs, bool (B, N, height, width) in latent cells; None when nothing is asked.

    asked: per reference a box (x0, y0, x1, y1) in shares of the picture, 0 to 1, or a mask (H, W): array, tensor, PIL;
    for all prompts alike. A cell that a mask covers by half belongs to the person.
    """
    if asked is None:
        return None
    found = torch.zeros(len(rows), max(map(len, rows), default=0), height, width, dtype=torch.bool)
    for i, (_, areas) in enumerate(per_reference("regions", [asked] * len(rows), rows)):
        for j, area in enumerate(areas):
            found[i, j] = cells(area, height, width)
            if not found[i, j].any():
                raise UserError(f"regions: number {j + 1} covers nothing of the picture")
    return found


def cells(area: Sequence[float] | np.ndarray | torch.Tensor | Image.Image, height: int, width: int) -> torch.Tensor:
    """One region as bool (height, width)."""
    if isinstance(area, (list, tuple)):
        if len(area) != 4 or not all(0 <= value <= 1 for value in area):
            raise UserError(f"regions: a box is (x0, y0, x1, y1) in shares of the picture, 0 to 1; found {area!r}")
        x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        return ((y >= area[1]) & (y <= area[3]))[:, None] & ((x >= area[0]) & (x <= area[2]))[None]
    mask = torch.as_tensor(np.asarray(area.convert("L")) > 127 if isinstance(area, Image.Image) else np.asarray(area))
    if mask.ndim != 2:
        raise UserError(f"regions: a mask is (H, W), found {tuple(mask.shape)}")
    share = torch.nn.functional.interpolate((mask > 0).float()[None, None], (height, width), mode="area")
    return share[0, 0] >= 0.5


def start_pixels(image: Picture | Sequence[Picture], count: int, height: int, width: int) -> torch.Tensor:
    """Images to start from as pixels (B, 3, height, width) in [-1, 1]; one image serves all."""
    rows = rows_of(image)
    listed: list[Any] = list(rows) if isinstance(rows, (list, tuple)) else [rows] * count
    if len(listed) != count:
        raise UserError(f"image: give one, or one per prompt; {len(listed)} for {count} prompts")
    sized = [Image.fromarray(to_array(one)).resize((width, height), Image.Resampling.LANCZOS) for one in listed]
    return to_pixels([np.asarray(one) for one in sized])


def start_latents(image: Any, count: int, shape: Sequence[int]) -> torch.Tensor | None:
    """Latents in an image's place, (B, C, h, w) as `output_type="latent"` gives them; None if it is an image."""
    if not isinstance(image, torch.Tensor) or image.ndim != 4 or image.shape[1] == 3:
        return None
    if tuple(image.shape[1:]) != tuple(shape) or len(image) not in (1, count):
        raise UserError(f"image: latents must be {(count, *shape)}, got {tuple(image.shape)}")
    return image.expand(count, *shape)


def sizes(
    original: tuple[int, int] | None,
    corner: tuple[int, int] | None,
    target: tuple[int, int] | None,
    drawn: tuple[int, int],
    taken: bool,
) -> torch.Tensor | None:
    """SDXL's conditions (1, 6), see `attention.Context.sizes`; None where nothing is asked.

    drawn: height and width of the picture, which stand for what is None; taken: whether the U-Net takes them.
    """
    asked = {"original_size": original, "crops_coords_top_left": corner, "target_size": target}
    given = {name: pair for name, pair in asked.items() if pair is not None}
    for name, pair in given.items():
        if not taken:
            raise UserError(f"{name}: this U-Net takes no sizes, as SDXL's does: leave it out")
        if len(pair) != 2 or not all(isinstance(value, int) and value >= 0 for value in pair):
            raise UserError(f"{name}: give two whole numbers of pixels, not {pair!r}")
    return torch.tensor([[*(original or drawn), *(corner or (0, 0)), *(target or drawn)]]) if given else None


def generators(
    seeds: Sequence[int] | None, generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> torch.Generator | list[torch.Generator] | None:
    """A generator per image from seeds, or what the caller gave."""
    if seeds is not None and generator is not None:
        raise UserError("give seeds or generator, not both")
    if seeds is not None:
        generator = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    if isinstance(generator, Sequence) and len(generator) != count:
        raise UserError(f"seeds or generators: {len(generator)} for {count} images; give one per image")
    return None if generator is None else generator if isinstance(generator, torch.Generator) else list(generator)
