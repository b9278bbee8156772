"""Open the base model: every part through the class that the settings name, all frozen and in inference mode."""

from collections.abc import ItemsView
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from safetensors import SafetensorError
from torch import nn

from iy import params
from iy.diffusion.fetch import local
from iy.diffusion.int8 import narrow
from iy.errors import UserError, one_line
from iy.storage import LFS_POINTER

ENCODER, TOKENIZER_FILE = "text_encoder", "tokenizer_config.json"
POOLED = "pooled"  # beside the branches' states: one vector per prompt, for a U-Net that takes one


class Branch(nn.Module):
    """One text encoder with its tokenizer. `own`: the encoder that the base's own cross-attention was trained with.

    `second`: another one whose states stand beside the first one's, as in SDXL (see `params.TextBranch`).
    """

    tokenizer: Any
    encoder: Any
    max_length: int
    own: bool
    second: "Branch | None"

    def __init__(self, tokenizer: Any, encoder: nn.Module, max_length: int, own: bool, second: "Branch | None" = None):
        super().__init__()
        self.tokenizer, self.encoder, self.max_length, self.own = tokenizer, encoder, max_length, own
        self.second = second

    @property
    def width(self) -> int:
        """Size D of the hidden states (B, L, D)."""
        config = self.encoder.config
        width = config.hidden_size if hasattr(config, "hidden_size") else config.d_model
        return width + (self.second.width if self.second else 0)


class TextEncoders(nn.ModuleDict):
    """Branches by name, in the order of the settings."""

    if TYPE_CHECKING:  # torch says `Module` of what it holds

        def __getitem__(self, key: str) -> Branch: ...

        def items(self) -> ItemsView[str, Branch]: ...

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @apply_forward_hook
    def ready(self) -> "TextEncoders":
        """Themselves; where diffusers offloads models, this is when they come to the device that computes."""
        return self


@dataclass(kw_only=True, slots=True)
class Base:
    """The parts of a latent-diffusion model, each of the class that the settings name.

    `text` keeps their order; exactly one branch is `own`.
    `image_mean` and `image_std` (three numbers each, for pixels in [0, 1]) are the vision tower's own normalisation.
    """

    unet: Any
    vae: Any
    scheduler: Any
    vision: Any
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    text: TextEncoders
    image_size: int
    dtype: torch.dtype
    settings: params.Base

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def own(self) -> str:
        """Name of the text branch that the base was trained with."""
        return next(name for name, branch in self.text.items() if branch.own)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents of one image of `image_size` pixels."""
        side = self.image_size // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, side, side

    def to(self, device: torch.device | str) -> "Base":
        for part in (self.unet, self.vae, self.vision, self.text):
            part.to(device)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How the files of a base are got at: what `from_pretrained` of diffusers and of transformers calls the same.

    low_cpu_mem_usage: of diffusers' parts alone; transformers always spares memory.
    """

    local_files_only: bool = False
    token: str | bool | None = None
    cache_dir: Path | str | None = None
    force_download: bool = False
    low_cpu_mem_usage: bool = True

    def hub(self) -> dict[str, Any]:
        """Those that hold for whatever lies on a hub."""
        asked = {"token": self.token, "cache_dir": self.cache_dir, "force_download": self.force_download}
        return {"local_files_only": self.local_files_only} | {name: value for name, value in asked.items() if value}


def load_base(base: params.Base, device: torch.device | str = "cpu", opening: Opening | None = None) -> Base:
    """Open every part of the base in `base.dtype` on `device`. All parts are frozen."""
    import diffusers
    import transformers

    if [branch.own for branch in base.text.values()].count(True) != 1:
        raise UserError("base.text: exactly one branch must have `own: true`, the encoder the base was trained with")
    transformers.utils.logging.disable_progress_bar()
    dtype, opening = getattr(torch, base.dtype), opening or Opening()
    mean, std = normalisation(base.vision, opening)
    if taken := {"vision", POOLED} & set(base.text):
        raise UserError(f"base.text: {sorted(taken)[0]!r} is not free as a branch's name")
    text = load_text(base, device, opening)
    return Base(
        unet=open_model(diffusers, base.unet, "unet", dtype, device, opening),
        vae=load_vae(base, device, opening),
        scheduler=open_part(diffusers, base.scheduler, "scheduler", base.scheduler.cls, opening),
        vision=open_model(transformers, base.vision, "vision", dtype, device, opening),
        image_mean=mean,
        image_std=std,
        text=text,
        image_size=base.image_size,
        dtype=dtype,
        settings=base,
    )


def load_vae(base: params.Base, device: torch.device | str = "cpu", opening: Opening | None = None) -> Any:
    """The autoencoder alone."""
    import diffusers

    return open_model(diffusers, base.vae, "vae", getattr(torch, base.dtype), device, opening or Opening())


def load_text(base: params.Base, device: torch.device | str = "cpu", opening: Opening | None = None) -> TextEncoders:
    """The text encoders alone."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    dtype, how = getattr(torch, base.dtype), opening or Opening()

    def encoder(part: params.TextEncoder, key: str) -> tuple[Any, nn.Module]:
        return (
            open_part(transformers, part, f"{key}.tokenizer", part.tokenizer, how),
            open_model(transformers, part, key, dtype, device, how, part.int8),
        )

    def branch(name: str, part: params.TextBranch) -> Branch:
        second = part.second and Branch(*encoder(part.second, f"text.{name}.second"), part.max_length, own=False)
        return Branch(*encoder(part, f"text.{name}"), part.max_length, part.own, second)

    return TextEncoders({name: branch(name, part) for name, part in base.text.items()}).eval()


def open_model(
    library: Any,
    part: params.Component,
    key: str,
    dtype: torch.dtype,
    device: torch.device | str,
    opening: Opening,
    int8: bool = False,
) -> nn.Module:
    """`int8`: its linear layers are narrowed before they go to the device."""
    ours = library.__name__ == "diffusers"
    named = {"torch_dtype": dtype, "low_cpu_mem_usage": opening.low_cpu_mem_usage} if ours else {"dtype": dtype}
    model = open_part(library, part, key, part.cls, opening, use_safetensors=True, **named)
    return (narrow(model) if int8 else model).to(device).requires_grad_(False).eval()


def open_part(library: Any, part: params.Component, key: str, name: str, opening: Opening, **options: Any) -> Any:
    """`<library>.<name>.from_pretrained(part.path, subfolder)`; what goes wrong becomes one sentence naming the key."""
    cls = getattr(library, name, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise UserError(f"base.{key}: {library.__name__} has no loadable class {name!r}: name one that it has")
    below = tokenizer_folder(part) if key.endswith(".tokenizer") else part.subfolder
    place = f"{part.path}/{below}" if below else part.path
    if below:
        options["subfolder"] = below
    folder = local(part.path, below, key, opening.local_files_only)
    try:
        return cls.from_pretrained(folder, **opening.hub(), **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = pointer(Path(folder, below or "")) or one_line(error)
        raise UserError(f"base.{key}: cannot open {name} at {place}: {why}") from None


def tokenizer_folder(part: params.Component) -> str | None:
    """The subfolder of `part.path` with its tokenizer: beside the weights, or as diffusers lays out whole pipelines,
    where `text_encoder_2` reads what `tokenizer_2` cuts."""
    if not (part.subfolder or "").startswith(ENCODER) or Path(part.path, part.subfolder or "", TOKENIZER_FILE).exists():
        return part.subfolder
    return f"tokenizer{(part.subfolder or '').removeprefix(ENCODER)}"


def pointer(folder: Path) -> str | None:
    """What to do where git was cloned without its large files; None where it was not."""
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                return f"{file.name} is a Git LFS pointer, not the weights: run git lfs pull where it was cloned"
    return None


def normalisation(part: params.Component, opening: Opening) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour that the vision tower's `preprocessor_config.json` states."""
    from transformers.image_processing_base import ImageProcessingMixin

    folder = local(part.path, part.subfolder, "vision", opening.local_files_only)
    try:
        config, _ = ImageProcessingMixin.get_image_processor_dict(
            folder, subfolder=part.subfolder or "", **opening.hub()
        )
        return tuple(config["image_mean"]), tuple(config["image_std"])
    except (OSError, KeyError) as error:
        raise UserError(
            f"base.vision: {part.path}/{part.subfolder or ''} lacks a preprocessor_config.json with "
            f"image_mean and image_std ({one_line(error)})"
        ) from None
