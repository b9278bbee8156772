"""LoRA on a frozen network (peft): the one that is trained, and others loaded beside it.

Several personalisers can stand on one base, whose weights they share: merging adds LoRAs into copies, and unmerging
gives the shared weights back, bit for bit.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

Weight = TypeVar("Weight", bound=torch.Tensor)
PERSONAL = "personal"  # the trained one
MERGED = "merged_state"
LEFT = "merged_and_deleted"


@dataclass(slots=True)
class Merged:
    """What a layer was before LoRAs were merged into it, and how strongly each of them was, by name."""

    weight: torch.Tensor
    bias: nn.Parameter | None
    strengths: dict[str, float]


def add(unet: nn.Module, targets: Sequence[str], rank: int) -> None:
    """Put a LoRA of rank `rank` on the attention layers `targets` (self, text); it starts without effect."""
    layers = "|".join({"self": "attn1", "text": "attn2"}[target] for target in targets)
    if layers:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=rf".*\.({layers})\.(to_q|to_k|to_v|to_out\.0)")
        inject_adapter_in_model(config, unet, adapter_name=PERSONAL)


def layers(network: nn.Module) -> list[LoraLayer]:
    return [module for module in network.modules() if isinstance(module, LoraLayer)]


def others(network: nn.Module) -> list[str]:
    """Names of the LoRAs beside the trained one, in the order in which they were loaded."""
    return list(dict.fromkeys(name for layer in layers(network) for name in layer.lora_A if name != PERSONAL))


def active(network: nn.Module) -> list[str]:
    """Those of `others` that count."""
    on = {name for layer in layers(network) for name in layer.active_adapters}
    return [name for name in others(network) if name in on]


def merged(network: nn.Module) -> list[str]:
    """Those of `others` that are merged, the deleted ones among them included."""
    names = (name for layer in layers(network) for name in (*getattr(layer, LEFT, ()), *layer.merged_adapters))
    return list(dict.fromkeys(name for name in names if name != PERSONAL))


def activate(network: nn.Module, names: Iterable[str]) -> None:
    """Let the trained LoRA and those in `names` count, and no other."""
    chosen = (PERSONAL, *names)
    for layer in layers(network):
        layer.set_adapter([name for name in chosen if name in layer.lora_A], inference_mode=True)


@contextmanager
def steady(network: nn.Module) -> Iterator[None]:
    """However the block ends: what was trainable before stays so, nothing else becomes so, and the trained LoRA counts.

    peft makes trainable whatever it activates, freezes the rest, and takes the newest LoRA for the only one.
    """
    trained = {id(weight): weight.requires_grad for weight in network.parameters()}
    try:
        yield
    finally:
        activate(network, active(network))
        for weight in network.parameters():
            weight.requires_grad_(trained.get(id(weight), False))


@contextmanager
def scaled(network: nn.Module, share: float) -> Iterator[None]:
    """While it lasts, the LoRAs in `others` are added at `share` of their strength, the merged ones as they are."""
    before = [] if share == 1 else [(layer.scaling, dict(layer.scaling)) for layer in layers(network)]
    try:
        for now, kept in before:
            now.update({name: value * share for name, value in kept.items() if name != PERSONAL})
        yield
    finally:
        for now, kept in before:
            now.update(kept)


def merge(network: nn.Module, names: Sequence[str] | None = None, scale: float = 1.0, safe: bool = False) -> None:
    """Add the trained LoRA and, `scale` times as strong, those in `names` (None: all that count) into copies of the
    weights they adapt: drawing then costs what it costs without them. What is merged already stays. safe: refuse
    weights that are not finite.
    """
    wanted = active(network) if names is None else names
    for layer in layers(network):
        strengths = unmerge_layer(layer) | {name: scale for name in wanted} | {PERSONAL: 1.0}
        merge_layer(layer, {name: value for name, value in strengths.items() if name in layer.lora_A}, safe)


def merge_layer(layer: LoraLayer, strengths: dict[str, float], safe: bool = False) -> None:
    if not strengths:
        return
    base, scaling = adapted(layer), dict(layer.scaling)
    setattr(layer, MERGED, Merged(base.weight, base.bias, strengths))
    base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
    if base.bias is not None:  # some LoRAs change it too
        base.bias = nn.Parameter(base.bias.detach().clone(), requires_grad=False)
    layer.scaling.update({name: scaling[name] * strength for name, strength in strengths.items()})
    try:
        layer.merge(safe_merge=safe, adapter_names=list(strengths))
    finally:
        layer.scaling.update(scaling)


def unmerge(network: nn.Module) -> None:
    for layer in layers(network):
        unmerge_layer(layer)


def unmerge_layer(layer: LoraLayer) -> dict[str, float]:
    """Give the layer its weights back; what was merged, and how strongly."""
    before = getattr(layer, MERGED, None)
    if before is None:
        return {}
    base = adapted(layer)
    base.weight = like(before.weight, base.weight)
    if before.bias is not None:
        base.bias = like(before.bias, base.bias)
    layer.merged_adapters.clear()
    delattr(layer, MERGED)
    return before.strengths


def adapted(layer: LoraLayer) -> nn.Linear:
    """The layer that LoRAs are beside. Its kind may be another: weight and bias are what all have."""
    return cast("nn.Linear", layer.get_base_layer())


def like(kept: Weight, now: torch.Tensor) -> Weight | nn.Parameter:
    """`kept` itself, or, where the network has moved since to another device or dtype, a copy that has too."""
    if kept.device == now.device and kept.dtype == now.dtype:
        return kept
    return nn.Parameter(kept.detach().to(now.device, now.dtype), requires_grad=False)


def remove(network: nn.Module, names: Sequence[str]) -> None:
    """Delete LoRAs. The effect of those that are merged stays in the weights, for good."""
    for layer in layers(network):
        strengths = unmerge_layer(layer)
        gone = {name: strengths.pop(name) for name in names if name in strengths}
        if gone:
            merge_layer(layer, gone)
            layer.merged_adapters.clear()
            delattr(layer, MERGED)
            setattr(layer, LEFT, [*getattr(layer, LEFT, ()), *gone])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that peft chose another one to count, which `steady` mends
            for name in names:
                layer.delete_adapter(name)
        merge_layer(layer, strengths)
    for name in names:
        getattr(network, "peft_config", {}).pop(name, None)
