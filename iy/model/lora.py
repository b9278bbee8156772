"""LoRA on the frozen U-Net (peft): the one that is trained, and others loaded beside it.

Several personalisers can stand on one base, whose weights they share: merging adds the trained LoRA into copies, and
unmerging gives the shared weights back, bit for bit.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn

from iy.errors import UserError, one_line

PERSONAL = "personal"  # the trained one
SHARED = "shared_weight"


def add(unet: UNet2DConditionModel, targets: list[str], rank: int) -> None:
    """Put a LoRA of rank `rank` on the attention layers `targets` (self, text); it starts without effect."""
    layers = "|".join({"self": "attn1", "text": "attn2"}[target] for target in targets)
    if layers:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=rf".*\.({layers})\.(to_q|to_k|to_v|to_out\.0)")
        inject_adapter_in_model(config, unet, adapter_name=PERSONAL)


def layers(unet: UNet2DConditionModel) -> list[LoraLayer]:
    return [module for module in unet.modules() if isinstance(module, LoraLayer)]


def merge(unet: UNet2DConditionModel) -> None:
    """Add every active LoRA into (copies of) the weights they adapt: drawing then costs what it costs without them."""
    for layer in layers(unet):
        if not layer.merged:
            shared = layer.base_layer.weight
            object.__setattr__(layer, SHARED, shared)  # not as a parameter of the layer
            layer.base_layer.weight = nn.Parameter(shared.detach().clone(), requires_grad=False)
            layer.merge()


def unmerge(unet: UNet2DConditionModel) -> None:
    for layer in layers(unet):
        if layer.merged:
            layer.unmerge()
            layer.base_layer.weight = getattr(layer, SHARED)


def load(unet: UNet2DConditionModel, source: Path | str | dict[str, torch.Tensor], name: str, weight: float) -> None:
    """Put another LoRA, a style's say, beside the trained one. source: a safetensors file in diffusers' or kohya's
    layout for this U-Net, a folder or hub id of such, or its tensors.
    """
    if any(layer.merged for layer in layers(unet)):
        raise UserError("a LoRA cannot be loaded while others are merged: call unmerge_lora() first")
    if name == PERSONAL or name in others(unet):
        raise UserError(f"LoRA name {name!r} is taken: choose another")
    try:
        unet.load_lora_adapter(source, prefix="unet", adapter_name=name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"LoRA {name!r} does not fit this U-Net ({one_line(error)})") from None
    if name not in others(unet):
        raise UserError(f"LoRA {name!r}: no tensor of it is named unet.…, so none was loaded")
    weigh(unet, {name: weight})


def others(unet: UNet2DConditionModel) -> set[str]:
    return {name for layer in layers(unet) for name in layer.lora_A} - {PERSONAL}


def weigh(unet: UNet2DConditionModel, weights: dict[str, float]) -> None:
    """Set how much loaded LoRAs count, 0 = not at all. The trained one stays as it is."""
    if unknown := set(weights) - others(unet):
        raise UserError(f"no LoRA {sorted(unknown)[0]!r} is loaded; loaded are {sorted(others(unet))}")
    trained = {id(value): value.requires_grad for name, value in unet.named_parameters() if f".{PERSONAL}." in name}
    for layer in layers(unet):
        for name, weight in weights.items():
            if name in layer.lora_A:
                layer.set_scale(name, weight)
        layer.set_adapter([name for name in (PERSONAL, *sorted(others(unet))) if name in layer.lora_A])
        for value in (value for name, value in layer.named_parameters() if "lora_" in name):
            value.requires_grad_(trained.get(id(value), False))  # set_adapter() would have all of them train
