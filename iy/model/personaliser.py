"""The personalised U-Net: the frozen base, parallel attention over text and faces, and LoRA."""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from diffusers.models.attention_processor import Attention
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from iy import params
from iy.diffusion import POOLED, Base
from iy.errors import UserError
from iy.model import lora
from iy.model.attention import KINDS, Context, ParallelAttention, Tokens, places, readable
from iy.model.conditioning import Vision
from iy.model.vision import VisionBranch

VISION = "vision"
Network = TypeVar("Network", bound=nn.Module)


class Personaliser(nn.Module):
    """Noise prediction conditioned on text and on N references of a person.

    Trainable: the vision tower and its projection, the added branches' K, V and output, α, LoRA. The U-Net's own
    weights stay frozen and are shared with `base` (several personalisers can stand on one base). New weights are drawn
    from a fixed seed: a fresh model is the same wherever it is made.
    """

    def __init__(self, base: Base, settings: params.Model):
        super().__init__()
        names = [VISION, *base.text]
        if set(settings.alpha) != set(names):
            raise UserError(f"model.alpha: give one starting value for each of {names}, found {sorted(settings.alpha)}")
        self.settings, self.base_settings = settings, base.settings
        self.own, self.branches = base.own, list(base.text)
        self.scale = base.image_size // base.latent_shape[1]  # pixels of a latent cell
        self.unet = share(base.unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.add_branches(base)
            lora.add(self.unet, self.settings.lora_targets, self.settings.lora_rank)
        self.to(base.device, base.dtype)
        self.set_trainable()

    def add_branches(self, base: Base) -> None:
        width = self.unet.config["cross_attention_dim"]
        self.vision = VisionBranch(copy.deepcopy(base.vision), base.image_mean, base.image_std, width)
        widths = {VISION: width} | {name: branch.width for name, branch in base.text.items() if not branch.own}
        for index, attention in enumerate(self.cross_attentions()):
            processor = KINDS[self.settings.attention](attention, index, self.own, widths, self.settings.alpha)
            processor.copy_text_projections(attention, VISION)
            attention.set_processor(processor)

    def cross_attentions(self) -> list[Attention]:
        return [module for module in self.unet.modules() if isinstance(module, Attention) and module.is_cross_attention]

    def personal_attentions(self) -> Iterator[tuple[Attention, ParallelAttention]]:
        for layer in self.cross_attentions():
            assert isinstance(layer.processor, ParallelAttention), "nothing else is set since `add_branches`"
            yield layer, layer.processor

    def set_trainable(self) -> None:
        self.requires_grad_(True)
        self.unet.requires_grad_(False)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(".processor." in name or f".{lora.PERSONAL}." in name)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Vision tower, projection, added K/V/output, α and LoRA: all that training may change."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def pooled(self) -> bool:
        """Whether the U-Net takes a pooled text embedding, as SDXL's does."""
        return self.unet.config["addition_embed_type"] == "text_time"

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @apply_forward_hook
    def vision_tokens(self, references: torch.Tensor, present: torch.Tensor) -> Vision:
        """Face crops (B, N, 3, H, W) in [-1, 1], presence (B, N) -> tokens (B, N·T, D) and their mask (B, N·T)."""
        return Vision(*self.vision(references, present))

    @apply_forward_hook
    def context(self, text: Tokens, vision: Vision | None = None, strength: dict[str, float] | None = None) -> Context:
        """K and V of every branch and layer, once for all denoising steps.

        text: per branch hidden states (B, L, D) and mask (B, L); the own branch must be there, others may be left out.
        vision: from `vision_tokens`. A branch without any unmasked token contributes exactly 0. strength: run-time
        weights of branches besides α, 1 where not named.
        """
        if unknown := set(strength or {}) - {VISION, *self.branches}:
            raise UserError(f"unknown branch {sorted(unknown)[0]!r}: this model has {[VISION, *self.branches]}")
        if self.own not in text:
            raise UserError(f"text branch {self.own!r} is the base's own and must be given; found {sorted(text)}")
        if unknown := set(text) - {POOLED, *self.branches}:
            raise UserError(f"unknown text branch {sorted(unknown)[0]!r}: this model has {self.branches}")
        if self.pooled != (POOLED in text):
            raise UserError(
                f"this U-Net takes {'a' if self.pooled else 'no'} pooled text embedding: give its base's own "
                f"text branch {'a' if self.pooled else 'no'} second encoder (base.text.{self.own}.second)"
            )
        tokens = {name: text[name] for name in self.branches if name in text}
        where = {}
        if vision is not None:
            tokens = {VISION: (vision.tokens, vision.mask), **tokens}
            if vision.regions is not None:
                levels = len(self.unet.config["block_out_channels"])
                where = {VISION: places(vision.mask, vision.regions, levels)}
        read = {name: readable(mask) for name, (_, mask) in tokens.items()}
        layers = [processor.keys_values(layer, tokens) for layer, processor in self.personal_attentions()]
        if vision is not None and vision.weight is not None:
            share = vision.weight[:, None, :, None]
            layers = [layer | {VISION: (layer[VISION][0], layer[VISION][1] * share)} for layer in layers]
        return Context(
            layers,
            {name: mask for name, (mask, _) in read.items()},
            {name: flag for name, (_, flag) in read.items()},
            dict(strength or {}),
            where,
            text[POOLED][0][:, 0] if self.pooled else None,
        )

    @apply_forward_hook
    def denoise(self, latents: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
        """The U-Net's prediction (noise or v, as the scheduler says) for latents (B, 4, h, w) at timesteps t."""
        return self.unet(
            latents,
            t,
            encoder_hidden_states=context,
            added_cond_kwargs=self.added(latents, context.pooled, context.sizes),
        ).sample

    def added(
        self, latents: torch.Tensor, pooled: torch.Tensor | None, sizes: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor] | None:
        """SDXL's conditions besides the tokens: the pooled text, and `Context.sizes`."""
        if pooled is None:
            return None
        if sizes is None:
            height, width = (side * self.scale for side in latents.shape[2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]])
        sizes = sizes.to(pooled.device, pooled.dtype)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(latents), -1)}

    def forward(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        text: Tokens,
        references: torch.Tensor | None = None,
        reference_mask: torch.Tensor | None = None,
        sizes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One training or inference step with gradients to all that is trainable; shapes as in `context`.

        sizes (B, 6): see `Context.sizes`; a U-Net that takes none ignores them.
        """
        if (references is None) != (reference_mask is None):
            raise UserError("give references together with reference_mask, or neither")
        vision = None
        if references is not None and reference_mask is not None:
            vision = self.vision_tokens(references, reference_mask)
        context = self.context(text, vision)
        context.sizes = sizes
        return self.denoise(latents, t, context)


def share(network: Network) -> Network:
    """A copy of the module tree that holds the very same parameters: no memory is spent on frozen weights."""
    return copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
