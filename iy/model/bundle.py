"""A finetuned model on disk: config.json, adapter.safetensors, lora.safetensors and the vision tower in vision/.

The frozen base is not in it; config.json names its parts. LoRA weights have diffusers' names (`unet.….lora_A.weight`).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from iy import params
from iy.diffusion import Base, Opening, load_base
from iy.errors import UserError, one_line
from iy.model.lora import PERSONAL
from iy.model.personaliser import Personaliser
from iy.storage import atomic_folder, write_json

FORMAT = 4
ADAPTER, LORA_FILE, TOWER = "adapter.safetensors", "lora.safetensors", "vision/model.safetensors"


def save(model: Personaliser, folder: Path | str, lineage: dict, fp16: bool = False) -> None:
    """Write the bundle; it appears whole or not at all. `lineage`: what made it, plain JSON. `fp16` halves it."""
    dtype = torch.float16 if fp16 else None
    with atomic_folder(folder) as aside:
        for file, state in states(model).items():
            if file != TOWER:
                save_file(
                    {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}, aside / file
                )
        tower = model.vision.tower
        tower.save_pretrained(
            aside / "vision",
            state_dict={name: value.detach().to("cpu", dtype) for name, value in tower.state_dict().items()},
        )
        write_json(
            aside / "config.json",
            {
                "format": FORMAT,
                "class": "ImagineYourselfPipeline",
                "lineage": lineage,
                "branches": list(model.branches),
                "base": model.base_settings.model_dump(mode="json", by_alias=True),
                "model": model.settings.model_dump(mode="json", by_alias=True),
            },
        )
        for file in aside.rglob("*.safetensors"):
            file.chmod(0o644)


def states(model: Personaliser) -> dict[str, dict[str, torch.Tensor]]:
    """The trained tensors of `model` by file of the bundle; the very tensors, under their names in the file."""
    files: dict[str, dict[str, torch.Tensor]] = {ADAPTER: {}, LORA_FILE: {}, TOWER: {}}
    for name, value in model.named_parameters():
        if "lora_" in name:
            if f".{PERSONAL}." in name:  # others are not ours to save
                files[LORA_FILE][name.replace(f".{PERSONAL}.", ".")] = value
        elif name.startswith("vision.tower."):
            files[TOWER][name.removeprefix("vision.tower.")] = value
        elif name.startswith("vision.") or ".processor." in name:
            files[ADAPTER][name] = value
    return {file: state for file, state in files.items() if state}


def read_config(folder: Path | str) -> dict:
    """config.json of a bundle, with the base's and the model's settings checked (keys `base` and `model`)."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise UserError(f"{path}: format {config['format']} is not {FORMAT}: use the iy version that wrote it")
        # JSON objects are written sorted; the branches' order decides the order of summation, so it is kept apart.
        base = config["base"] | {"text": {name: config["base"]["text"][name] for name in config["branches"]}}
        return config | {
            "base": params.Base.model_validate(base),
            "model": params.Model.model_validate(config["model"]),
        }
    except FileNotFoundError:
        raise UserError(f"{folder} is not a bundle: it has no config.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a bundle's configuration: {one_line(error)}") from None


def load(folder: Path | str, base: Base) -> Personaliser:
    """The bundle in `folder` on an opened base, ready to draw or to train on."""
    model = Personaliser(base, read_config(folder)["model"])
    with torch.no_grad():
        for file, state in states(model).items():
            fill(state, Path(folder) / file)
    return model


def fill(state: dict[str, torch.Tensor], path: Path) -> None:
    """Copy a safetensors file into tensors of exactly the same names and shapes."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the bundle again") from None
    for name in sorted(state.keys() ^ stored.keys()):
        fault = "missing" if name in state else "unknown"
        raise UserError(f"{path} does not fit this base: tensor {name!r} is {fault}")
    for name, value in state.items():
        if value.shape != stored[name].shape:
            raise UserError(
                f"{path} does not fit this base: {name} is {tuple(stored[name].shape)}, not {tuple(value.shape)}"
            )
        value.copy_(stored[name])


def open_bundle(
    folder: Path | str, device: torch.device | str = "cpu", opening: Opening | None = None
) -> tuple[Personaliser, Base]:
    """The bundle and the base that its config.json names."""
    base = load_base(locate(read_config(folder)["base"], Path(folder)), device, opening)
    return load(folder, base), base


def locate(base: params.Base, folder: Path) -> params.Base:
    """`base` with relative paths that do not exist from here looked up from the folders above the bundle instead.

    So a bundle inside a project opens from any working directory. Hub ids, found nowhere on disk, stay as they are.
    """

    def find(path: str) -> str:
        if Path(path).exists():
            return path
        return next((str(above / path) for above in folder.resolve().parents if (above / path).exists()), path)

    return base.moved(find)
