"""diffusers' switches for memory and speed, where what they do by default would not fit a personalised U-Net.

Its branches live in attention processors, and its entrances are more than one `forward`: whoever replaces a processor
takes the person away, and hooks on `forward` alone are not asked.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from torch import nn

from iy.diffusion import TextEncoders
from iy.errors import UserError
from iy.model.personaliser import Personaliser

Call = TypeVar("Call", bound=Callable)


def in_one_place(call: Call) -> Call:
    """A call within which no part is moved: device and dtype are looked for once."""

    @functools.wraps(call)
    def within(pipeline: "Memory", *args: Any, **how: Any) -> Any:
        pipeline._found = pipeline._execution_device, pipeline._execution_dtype
        try:
            return call(pipeline, *args, **how)
        finally:
            pipeline._found = None

    return cast("Call", within)


class Memory(StableDiffusionMixin):
    """The part of the pipeline that spares memory; see `iy.model.pipeline`."""

    model_cpu_offload_seq = "text->model->vae"
    _exclude_from_cpu_offload = ["model"]
    model: Personaliser
    vae: nn.Module
    text: TextEncoders | None
    components: dict[str, Any]
    _found: tuple[torch.device, torch.dtype] | None = None  # while a call draws

    @property
    def _execution_device(self) -> torch.device:
        """diffusers' own, which walks through every module of every part: a call that draws looks once."""
        return self._found[0] if self._found else cast("Any", super())._execution_device

    @property
    def _execution_dtype(self) -> torch.dtype:
        return self._found[1] if self._found else self.model.dtype

    def enable_group_offload(
        self,
        onload_device: torch.device | str,
        offload_device: torch.device | str = "cpu",
        offload_type: str = "block_level",
        num_blocks_per_group: int | None = None,
        offload_to_disk_path: Path | str | None = None,
        exclude_modules: Sequence[str] | str | None = None,
        **how: Any,
    ) -> None:
        """diffusers' own for the text encoders and the VAE; the U-Net stays on `onload_device` as a whole."""
        excluded = {exclude_modules} if isinstance(exclude_modules, str) else set(exclude_modules or ())
        networks = {} if self.text is None or "text" in excluded else encoders(self.text)
        networks |= {} if "vae" in excluded else {"vae": self.vae}
        if offload_to_disk_path is not None and offload_type == "leaf_level":
            refuse_shared(networks)
        how |= {"onload_device": torch.device(onload_device), "offload_device": torch.device(offload_device)}
        how |= {"offload_type": offload_type, "num_blocks_per_group": num_blocks_per_group}
        for name, network in networks.items():
            # A folder each: diffusers names the files by layer, and encoders have layers of the same names.
            folder = None if offload_to_disk_path is None else str(Path(offload_to_disk_path, name))
            apply_group_offloading(network, offload_to_disk_path=folder, **how)
        for name in {"model", *excluded} & {name for name, part in self.components.items() if part is not None}:
            getattr(self, name).to(how["onload_device"])

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Callable | None = None) -> None:
        if valid:
            raise UserError("xformers would take the person's attention out: leave it off; PyTorch's own is as sparing")

    def fuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        if unet:
            raise UserError("fuse_qkv_projections would take the person's attention out: give unet=False for the VAE's")
        super().fuse_qkv_projections(unet=False, vae=vae)

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        super().unfuse_qkv_projections(unet=False, vae=vae)


def encoders(text: TextEncoders) -> dict[str, nn.Module]:
    """Every encoder of every branch, by name; each has a `forward` of its own, which `text` as a whole has not."""
    first = {name: branch.encoder for name, branch in text.items()}
    return first | {f"{name}_second": branch.second.encoder for name, branch in text.items() if branch.second}


def refuse_shared(networks: dict[str, nn.Module]) -> None:
    """diffusers writes a weight that two layers share (T5's embedding) a second time when it is no longer there."""
    for name, network in networks.items():
        if len(list(network.parameters())) < len(list(network.named_parameters(remove_duplicate=False))):
            raise UserError(
                f"offload_to_disk_path: layers of {name!r} share weights, which leaf_level would lose on "
                "disk: use block_level, or exclude_modules=['text']"
            )
