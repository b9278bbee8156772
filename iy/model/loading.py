"""Opening and saving the pipeline: the keywords that diffusers' users know, held to or refused in one sentence."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from iy import params
from iy.device import choose_device
from iy.diffusion import Base, Opening
from iy.errors import UserError
from iy.model import bundle
from iy.model.personaliser import Personaliser

PARTS = ("model", "vae", "text")
GIVEN = ("vae", "text", "scheduler")  # may be brought along
ONE_DEVICE = "all parts lie on one device: leave it out, and call enable_model_cpu_offload() where memory is short"
NO_CODE = "a bundle holds no code to run: leave it out"
NOT_HERE = "this pipeline has no such part: leave it out or give None"
CANNOT_HOLD = {
    "variant": "a bundle has one set of weights: leave it out and give torch_dtype=torch.float16 for half precision",
    "revision": "a bundle is a folder, which has no revisions: leave it out",
    "subfolder": "name the bundle's own folder instead",
    "proxies": "set https_proxy in the environment instead",
    "mirror": "set HF_ENDPOINT in the environment instead",
    "quantization_config": "set base.text.<name>.int8 in config.json, which holds text encoders in 8 bits",
    "output_loading_info": "every tensor must fit, or opening fails, so there is nothing to report: leave it out",
    "disable_mmap": "files are read as safetensors reads them: leave it out",
    **dict.fromkeys(("use_onnx", "use_flashpack", "dduf_file"), "a bundle holds safetensors: leave it out"),
    **dict.fromkeys(("provider", "provider_options", "sess_options"), "there is no ONNX here: leave it out"),
    **dict.fromkeys(("max_memory", "offload_folder", "offload_state_dict"), ONE_DEVICE),
    **dict.fromkeys(("custom_pipeline", "custom_revision", "trust_remote_code"), NO_CODE),
    **dict.fromkeys(("safety_checker", "requires_safety_checker", "feature_extractor", "image_encoder"), NOT_HERE),
    **dict.fromkeys(
        ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"), "give text=, all branches together"
    ),
    "unet": "the U-Net is a part of model, which the bundle makes: leave it out",
    "model": "it is what the bundle holds: use ImagineYourselfPipeline.build() for a model in memory",
    "load_connected_pipeline": "there is no connected pipeline: leave it out",
}


class Loading:
    """The part of the pipeline that opens and saves bundles; see `iy.model.pipeline`."""

    model: Personaliser
    loaded: Callable[[], Sequence[str]]
    fused_loras: set[str]
    register_to_config: Callable[..., None]

    @classmethod
    def build(cls, model: Personaliser, base: Base) -> Self:
        raise NotImplementedError

    @classmethod
    def from_base(cls, base: Base, settings: params.Model) -> Self:
        """The base model unchanged: a fresh adapter has no effect."""
        return cls.build(Personaliser(base, settings), base)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Path | str,
        device: torch.device | str | None = None,
        *,
        dtype: torch.dtype | str | Mapping[str, torch.dtype | str] | None = None,
        torch_dtype: torch.dtype | str | Mapping[str, torch.dtype | str] | None = None,
        device_map: Any = None,
        low_cpu_mem_usage: bool = True,
        use_safetensors: bool | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        **others: Any,
    ) -> Self:
        """Open a bundle folder and the base that its config.json names, ready to draw.

        device, or device_map: where, the CPU if neither is given; "auto" is the GPU where there is one. dtype, or
        torch_dtype as it was called: of all parts, or by part (model, vae, text, default); None = as the base is set.
        local_files_only, token, cache_dir and force_download hold for those parts of the base that lie on a hub,
        low_cpu_mem_usage for its U-Net and VAE. vae, text, scheduler: take this one instead; with text=None the text
        encoders are let go, see `free_text`.
        """
        given = brought(others)
        if use_safetensors is False:
            raise UserError("use_safetensors: a bundle holds no pickles: leave it at True")
        folder, where = Path(pretrained_model_name_or_path), place(device, device_map)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a bundle: there is no such folder; what lies on a hub, download first")
        changes = dtypes(dtype if torch_dtype is None else torch_dtype)
        opening = Opening(
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            low_cpu_mem_usage=low_cpu_mem_usage,
        )
        model, base = bundle.open_bundle(folder, where, opening)
        pipeline = cls.build(model.requires_grad_(False).eval(), base)
        for part, wanted in changes.items():
            getattr(pipeline, part).to(wanted)
        for part, value in given.items():
            setattr(pipeline, part, value.to(where) if isinstance(value, nn.Module) else value)
        pipeline.register_to_config(_name_or_path=str(folder))
        return pipeline

    def save_pretrained(
        self,
        save_directory: Path | str,
        lineage: dict | None = None,
        fp16: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write the adapter as a bundle; the base stays where its settings say. Files are never split."""
        if not safe_serialization:
            raise UserError("a bundle holds no pickles: leave safe_serialization at True")
        if variant is not None:
            raise UserError(f"variant: a bundle has no variants: leave {variant!r} out, and give fp16=True to halve it")
        if push_to_hub:
            raise UserError("push_to_hub: a bundle is written to a folder: upload that")
        if loras := sorted({*self.loaded(), *self.fused_loras}):
            raise UserError(f"a bundle would lose LoRA {loras[0]!r}: unload it first, and load it again after opening")
        bundle.save(self.model, save_directory, lineage or {}, fp16)


def brought(others: dict[str, Any]) -> dict[str, Any]:
    """The parts among the keywords that the caller brings along; any other keyword must ask for nothing."""
    for name, value in others.items():
        if name in CANNOT_HOLD and value is not None and value is not False:
            raise UserError(f"from_pretrained: {name}={value!r:.80} cannot hold: {CANNOT_HOLD[name]}")
        if name in ("vae", "scheduler") and value is None:
            raise UserError(f"from_pretrained: {name}=None: the pipeline cannot draw without it: leave it out")
        if name not in CANNOT_HOLD and name not in GIVEN:
            known = [*inspect.signature(Loading.from_pretrained).parameters, *GIVEN, *CANNOT_HOLD]
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f"from_pretrained does not know {name!r}: " + (f"is {near[0]!r} meant?" if near else "leave it out")
            )
    return {name: value for name, value in others.items() if name in GIVEN}


def place(device: torch.device | str | None, device_map: Any) -> torch.device:
    """The one device that is asked for."""
    if isinstance(device_map, Mapping) and len(set(device_map.values())) == 1:
        device_map = next(iter(device_map.values()))
    if device is not None and device_map is not None and str(device) != str(device_map):
        raise UserError(f"device={str(device)!r} and device_map={device_map!r}: give one of them")
    asked = device if device_map is None else device_map
    if isinstance(asked, int) and not isinstance(asked, bool):
        asked = f"cuda:{asked}"
    try:
        chosen = choose_device(str(asked or "cpu"))
    except RuntimeError:
        raise UserError(f"device_map={asked!r} cannot hold: {ONE_DEVICE}, or name one device, such as 'cuda'") from None
    if chosen.type == "cuda":
        choose_device("cuda")  # says so where there is none
    return chosen


def dtypes(asked: torch.dtype | str | Mapping[str, torch.dtype | str] | None) -> dict[str, torch.dtype]:
    """The dtype of each part that shall have another one than its base's settings say."""
    if asked is None or asked == "auto":
        return {}
    if not isinstance(asked, Mapping):
        return dict.fromkeys(PARTS, floating(asked))
    if unknown := set(asked) - {*PARTS, "default"}:
        raise UserError(f"torch_dtype: there is no part {min(unknown)!r}; name {', '.join(PARTS)} or default")
    named = {part: asked.get(part, asked.get("default")) for part in PARTS}
    return {part: floating(value) for part, value in named.items() if value is not None}


def floating(asked: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, asked.removeprefix("torch."), None) if isinstance(asked, str) else asked
    if found not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise UserError(f"torch_dtype: {asked!r} is not one that models compute in: float32, float16 or bfloat16")
    return found
