"""The pipeline's LoRA methods, under the names and with the meaning that diffusers gives them.

The LoRA that was trained is a part of the model and not one of the adapters: it is not listed, always counts, cannot be
deleted, and is merged along with the others by `fuse_lora`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
from safetensors import SafetensorError
from torch import nn

from iy.diffusion import Branch, TextEncoders
from iy.errors import UserError, one_line
from iy.model import lora
from iy.model.personaliser import Personaliser, share

Source = Path | str | dict[str, torch.Tensor]
PARTS = ("unet", "text_encoder", "text_encoder_2")


class Loras(StableDiffusionXLLoraLoaderMixin):
    """diffusers' loader for SDXL, which reads SD 1.5's files too, around a model with a trained LoRA of its own."""

    _lora_loadable_modules = list(PARTS)
    model: Personaliser
    text: TextEncoders | None

    @property
    def unet(self) -> nn.Module:
        return self.model.unet

    @property
    def text_encoder(self) -> nn.Module | None:
        """The encoder that the base's own text comes from."""
        return None if self.own_branch is None else self.own_branch.encoder

    @property
    def text_encoder_2(self) -> nn.Module | None:
        """SDXL's second one."""
        return None if self.own_branch is None or self.own_branch.second is None else self.own_branch.second.encoder

    @property
    def own_branch(self) -> Branch | None:
        """None once the text encoders were freed."""
        return None if self.text is None else self.text[self.model.own]

    def adapted(self, parts: Sequence[str] | None = None) -> dict[str, nn.Module]:
        """The networks of this pipeline that LoRAs can adapt, by diffusers' names."""
        if unknown := set(parts or ()) - set(PARTS):
            raise UserError(f"components: {sorted(unknown)[0]!r} takes no LoRA; those that do are {', '.join(PARTS)}")
        networks = {name: getattr(self, name) for name in parts or PARTS}
        return {name: network for name, network in networks.items() if network is not None}

    @contextmanager
    def adapting(self, what: str) -> Iterator[None]:
        """A change of adapters: it leaves the trained LoRA as it was, and says in one sentence why it failed."""
        with ExitStack() as stack:
            for network in self.adapted().values():
                stack.enter_context(lora.steady(network))
            try:
                yield
            except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
                raise UserError(f"{what} ({one_line(error)})") from None

    @classmethod
    def lora_state_dict(cls, pretrained_model_name_or_path_or_dict: Source, **kwargs: Any) -> tuple:
        """diffusers' own, of safetensors alone."""
        file = kwargs.get("weight_name") or pretrained_model_name_or_path_or_dict
        pickled = isinstance(file, (str, Path)) and Path(file).suffix in (".bin", ".pt", ".pth", ".ckpt")
        if pickled or kwargs.pop("use_safetensors", None) is False:
            raise UserError("a LoRA is read from a .safetensors file, never from a pickle: convert it first")
        source = pretrained_model_name_or_path_or_dict
        source = source if isinstance(source, dict) else str(source)
        return super().lora_state_dict(source, use_safetensors=True, **kwargs)

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Source,
        adapter_name: str | None = None,
        hotswap: bool = False,
        low_cpu_mem_usage: bool = True,
        **kwargs: Any,
    ) -> None:
        """Put another LoRA, a style's say, beside the trained one; of the loaded ones it then is the one that counts.

        From a safetensors file in diffusers' or kohya's layout for this base, a folder or hub id of such (`weight_name`
        says which), or its tensors.
        """
        source = pretrained_model_name_or_path_or_dict
        named = "its tensors" if isinstance(source, dict) else source
        with self.adapting(f"LoRA {named} cannot be read"):
            source = dict(source) if isinstance(source, dict) else str(source)
            asked = {"unet_config": self.unet.config, "return_lora_metadata": True}
            state, alphas, metadata = self.lora_state_dict(source, **asked, **kwargs)
        name = self.new_name(adapter_name, hotswap)
        prefixes = self.prefixes(name, state)
        shared = {"network_alphas": alphas, "metadata": metadata, "adapter_name": name, "_pipeline": self}
        shared |= {"hotswap": hotswap, "low_cpu_mem_usage": low_cpu_mem_usage}
        if prefixes - {"unet"} and self.text is not None:
            self.text = share(self.text)  # other pipelines on this base keep theirs
        try:
            with self.adapting(f"LoRA {name!r} does not fit this base"):
                if "unet" in prefixes:
                    self.load_lora_into_unet(state, unet=self.unet, **shared)
                for prefix in sorted(prefixes - {"unet"}):
                    self.load_lora_into_text_encoder(state, text_encoder=getattr(self, prefix), prefix=prefix, **shared)
        except UserError:
            if not hotswap:
                self.forget([name])
            raise
        self.activate([name])

    def new_name(self, asked: str | None, hotswap: bool) -> str:
        """The name of the LoRA to be loaded, once nothing stands in its way."""
        names = self.loaded()
        if hotswap:
            if asked not in names:
                raise UserError(f"hotswap: no LoRA {asked!r} is loaded; loaded are {names}")
        elif asked == lora.PERSONAL or asked in names:
            raise UserError(f"LoRA name {asked!r} is taken: choose another")
        if any(set(lora.merged(network)) & set(names) for network in self.adapted().values()):
            raise UserError("a LoRA cannot be loaded while others are fused: call unfuse_lora() first")
        self.unfuse_lora()  # the trained one, which may be
        return asked or next(name for i in range(len(names) + 1) if (name := f"default_{i}") not in names)

    def prefixes(self, name: str, state: dict[str, torch.Tensor]) -> set[str]:
        """Which networks the file is for, all of which must be here."""
        prefixes = {key.partition(".")[0] for key in state}
        if unknown := prefixes - set(self.adapted()):
            have = ", ".join(f"{part}.…" for part in self.adapted())
            raise UserError(f"LoRA {name!r}: tensors of it are named {min(unknown)}.…; this pipeline takes {have}")
        if not all("lora" in key for key in state):
            raise UserError(f"LoRA {name!r}: a tensor of it is not named …lora…, so it is none")
        if not state:
            raise UserError(f"LoRA {name!r} holds no tensors")
        if alone := [key for key in state if other_half(key) not in state]:
            raise UserError(f"LoRA {name!r}: {other_half(alone[0])} is missing, the other half of {alone[0]}")
        return prefixes

    def loaded(self) -> list[str]:
        return list(dict.fromkeys(name for network in self.adapted().values() for name in lora.others(network)))

    def known(self, names: Sequence[str] | str, change: str) -> list[str]:
        """`names` as a list of loaded LoRAs, which may be changed."""
        names = [names] if isinstance(names, str) else list(names)
        if unknown := [name for name in names if name not in self.loaded()]:
            raise UserError(f"no LoRA {unknown[0]!r} is loaded; loaded are {self.loaded()}")
        if any(set(lora.merged(network)) & set(self.loaded()) for network in self.adapted().values()):
            raise UserError(f"LoRAs are fused, so {change} would have no effect: call unfuse_lora() first")
        return names

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The loaded LoRAs of each network that has any."""
        found = {part: lora.others(network) for part, network in self.adapted().items()}
        return {part: names for part, names in found.items() if names}

    def get_active_adapters(self) -> list[str]:
        """The loaded LoRAs that count."""
        return list(dict.fromkeys(name for network in self.adapted().values() for name in lora.active(network)))

    def set_adapters(self, adapter_names: Sequence[str] | str, adapter_weights: Any = None) -> None:
        """Which of the loaded LoRAs count, and how much: 1 if not given; for weights by block see diffusers."""
        names = self.known(adapter_names, "set_adapters()")
        if not names:
            return self.activate([])
        weights = list(adapter_weights) if isinstance(adapter_weights, tuple) else adapter_weights
        for weight in weights if isinstance(weights, list) else [weights]:
            if isinstance(weight, Mapping) and (unknown := set(weight) - set(PARTS)):
                raise UserError(f"set_adapters: there is no {min(unknown)!r} here; weights are by {', '.join(PARTS)}")
        with self.adapting("set_adapters()"):
            super().set_adapters(names, weights)
        self.activate(names)

    def activate(self, names: Sequence[str]) -> None:
        with self.adapting("LoRA"):
            for network in self.adapted().values():
                lora.activate(network, names)

    @contextmanager
    def loras_at(self, cross_attention_kwargs: Mapping[str, Any] | None) -> Iterator[None]:
        """While it lasts, the loaded LoRAs that count do so at the share that {"scale": share} says."""
        asked = dict(cross_attention_kwargs or {})
        share = asked.pop("scale", 1.0)
        if asked:
            raise UserError(f"cross_attention_kwargs: {min(asked)!r} cannot hold: it takes scale, of the loaded LoRAs")
        with ExitStack() as stack:
            for network in self.adapted().values():
                stack.enter_context(lora.scaled(network, share))
            yield

    def disable_lora(self) -> None:
        """Draw without the loaded LoRAs until `enable_lora`."""
        self.known([], "disable_lora()")
        if self.get_active_adapters():
            self._disabled_loras = self.get_active_adapters()
        self.activate([])

    def enable_lora(self) -> None:
        """Let those count again that did before `disable_lora`."""
        self.known([], "enable_lora()")
        self.activate(self.get_active_adapters() or getattr(self, "_disabled_loras", []))

    def fuse_lora(
        self,
        components: Sequence[str] = PARTS,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> None:
        """Add the trained LoRA and the loaded ones that count (or `adapter_names`) into the weights, to draw faster.

        Other pipelines on the same base do not change. lora_scale: how strongly the loaded ones are added.
        """
        if unknown := [name for name in adapter_names or () if name not in self.loaded()]:
            raise UserError(f"no LoRA {unknown[0]!r} is loaded; loaded are {self.loaded()}")
        try:
            with self.adapting("the LoRAs cannot be fused, and none is now"):
                for network in self.adapted(components).values():
                    lora.merge(network, adapter_names, lora_scale, safe_fusing)
        except UserError:
            self.unfuse_lora()
            raise

    def unfuse_lora(self, components: Sequence[str] = PARTS) -> None:
        """Give the weights back as they were before `fuse_lora`, bit for bit."""
        for network in self.adapted(components).values():
            lora.unmerge(network)

    @property
    def fused_loras(self) -> set[str]:
        """The loaded LoRAs that are fused, those among them that were unloaded since included."""
        return {name for network in self.adapted().values() for name in lora.merged(network)}

    @property
    def num_fused_loras(self) -> int:
        return len(self.fused_loras)

    def delete_adapters(self, adapter_names: Sequence[str] | str) -> None:
        self.forget(self.known(adapter_names, "delete_adapters()"))

    def unload_lora_weights(self) -> None:
        """Delete the loaded LoRAs; what of them is fused stays in the weights for good."""
        self.forget(self.loaded())

    def forget(self, names: Sequence[str]) -> None:
        with self.adapting("LoRA"):
            for network in self.adapted().values():
                lora.remove(network, names)

    def enable_lora_hotswap(self, **kwargs: Any) -> None:
        raise UserError("LoRAs of other ranks cannot be swapped in a compiled model here: load, then compile")


def other_half(key: str) -> str:
    """The name of the matrix B that belongs to a matrix A, or the reverse, in all of diffusers' layouts."""
    for one, other in (("lora_A.", "lora_B."), ("lora.down.", "lora.up."), ("layer.down.", "layer.up.")):
        if one in key:
            return key.replace(one, other)
        if other in key:
            return key.replace(other, one)
    return key
