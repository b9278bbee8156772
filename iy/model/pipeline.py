"""The diffusers pipeline: prompts and faces in, images out; from noise, or from an image to be redrawn."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from iy import params
from iy.diffusion import POOLED, Base, TextEncoders, text_states, vae_decode, vae_encode
from iy.errors import UserError
from iy.model import bundle, inputs, lora
from iy.model.attention import Tokens
from iy.model.conditioning import Vision
from iy.model.guidance import Guide, plan
from iy.model.personaliser import Personaliser


class ImagineYourselfPipeline(DiffusionPipeline):
    """Portraits of the person on the reference, as the prompt says.

        pipeline = ImagineYourselfPipeline.from_pretrained("models/studio/finetune4")
        pipeline("a smiling person in a blue jacket", face_crop, seeds=[0]).images[0]

    References are face crops (as `iy.faces.crop` makes them), or whole photos together with a `face_cropper`.
    """

    model_cpu_offload_seq = "text->model->vae"
    _exclude_from_cpu_offload = [
        "model"
    ]  # its branches are more than modules with a forward: moved whole or not at all
    _callback_tensor_inputs = ["latents"]

    def __init__(self, model: Personaliser, vae: nn.Module, text: TextEncoders, scheduler: Any):
        super().__init__()
        self.register_modules(model=model, vae=vae, text=text, scheduler=scheduler)
        self.vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self.processor = VaeImageProcessor(vae_scale_factor=self.vae_scale)

    @classmethod
    def build(cls, model: Personaliser, base: Base) -> "ImagineYourselfPipeline":
        """A pipeline around a model in memory (while training, say), with DPM-Solver++ on the base's noise schedule.

        Trailing timesteps begin at pure noise, which few steps need (arXiv 2305.08891); our choice.
        """
        scheduler = DPMSolverMultistepScheduler.from_config(base.scheduler.config, timestep_spacing="trailing")
        return cls(model, base.vae, base.text, scheduler)

    @classmethod
    def from_base(cls, base: Base, settings: params.Model) -> "ImagineYourselfPipeline":
        """The base model unchanged: a fresh adapter has no effect."""
        return cls.build(Personaliser(base, settings), base)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, device: torch.device | str = "cpu", torch_dtype: torch.dtype | None = None
    ) -> "ImagineYourselfPipeline":
        """Open a bundle folder and the base that its config.json names, ready to draw; `torch_dtype`: in another dtype."""
        model, base = bundle.open_bundle(folder, device)
        pipeline = cls.build(model.requires_grad_(False).eval(), base)
        return pipeline if torch_dtype is None else pipeline.to(torch_dtype)

    def save_pretrained(
        self, folder: Path | str, lineage: dict | None = None, fp16: bool = False, safe_serialization: bool = True
    ) -> None:
        """Write the adapter as a bundle; the base stays where its settings say."""
        if not safe_serialization:
            raise UserError("a bundle holds no pickles: leave safe_serialization at True")
        bundle.save(self.model, folder, lineage or {}, fp16)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        reference: inputs.Picture | Sequence | None = None,
        image: inputs.Picture | Sequence | None = None,
        strength: float = 0.5,
        negative_prompt: str | Sequence | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        identity_guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        num_images_per_prompt: int = 1,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        face_cropper: inputs.Cropper | None = None,
        fixed_length: bool = False,
        branch_strength: dict[str, float] | None = None,
        person_strength: Sequence | None = None,
        regions: Sequence | None = None,
        prompt_embeds: Tokens | None = None,
        negative_prompt_embeds: Tokens | None = None,
        reference_embeds: Vision | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Draw `num_images_per_prompt` images of every prompt.

        reference: see `inputs.references`; None draws from the text alone. image: start from it and redraw the last
        `strength` (0 to 1] of the noise schedule. identity_guidance_scale: None = guidance_scale, the cheaper joint
        form (see `iy.model.guidance`). seeds: one per image, in the output's order. latents: starting noise.
        fixed_length: pad prompts to each tokenizer's limit, so that an image does not depend on its batch, bit for bit.
        branch_strength: weights of branches besides the learnt α, e.g. {"vision": 0.5}; 1 where not named.
        person_strength: a number per reference, 1 = as trained; 0 leaves the person out. regions: where each reference
        belongs, a box in shares of the picture or a mask each; see `inputs.regions`.
        prompt_embeds, negative_prompt_embeds: from `encode_prompt`, in place of the texts; reference_embeds: from
        `encode_reference`, in place of the pictures. One row each per prompt.
        output_type: pil | np (B, H, W, 3 in [0, 1]) | pt (B, 3, H, W in [0, 1]) | latent.
        callback_on_step_end(pipeline, step, timestep, {"latents": …}) may return changed latents; setting
        `pipeline._interrupt = True` there ends the denoising after that step.
        """
        side = self.model.unet.config.sample_size * self.vae_scale
        height, width = height or side, width or side
        self.check(height, width, num_inference_steps, strength, output_type, num_images_per_prompt)
        inputs.check_callback(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        words, blank = self.read(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, fixed_length)
        prompts = len(words[self.model.own][1])
        count = prompts * num_images_per_prompt
        draws = inputs.generators(seeds, generator, count)
        if reference_embeds is None:
            rows = inputs.references(reference, isinstance(prompt, str), prompts)
            faces = self.see(
                rows,
                face_cropper,
                inputs.person_weights(person_strength, rows),
                inputs.regions(regions, rows, height // self.vae_scale, width // self.vae_scale),
            )
        else:
            faces = inputs.seen(reference_embeds, prompts, reference, person_strength, regions)
        words, blank, faces = (repeat(part, num_images_per_prompt) for part in (words, blank, faces))
        identity = guidance_scale if identity_guidance_scale is None else identity_guidance_scale
        guide = self.guide(words, blank, faces, guidance_scale, identity, guidance_rescale, branch_strength)
        timesteps = self.schedule(num_inference_steps, 1.0 if image is None else strength)
        noise = self.noise(count, height, width, draws, latents)
        latents = self.start(image, noise, timesteps, prompts, num_images_per_prompt, height, width)
        latents = self.denoise(
            latents, timesteps, guide, draws, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        images = (
            latents
            if output_type == "latent"
            else self.processor.postprocess(vae_decode(self.vae, latents).float(), output_type)
        )
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def load_lora(self, source: Path | str | dict[str, torch.Tensor], name: str, weight: float = 1.0) -> None:
        """Draw with another LoRA, a style's say, beside the trained one; see `iy.model.lora.load`."""
        lora.load(self.model.unet, source, name, weight)

    def set_lora_weights(self, **weights: float) -> None:
        """How much loaded LoRAs count, by name; 0 = not at all."""
        lora.weigh(self.model.unet, weights)

    def merge_lora(self) -> None:
        """Add all LoRAs into the U-Net's weights, to draw faster; other pipelines on the same base do not change."""
        lora.merge(self.model.unet)

    def unmerge_lora(self) -> None:
        lora.unmerge(self.model.unet)

    def guide(
        self,
        words: Tokens,
        blank: Tokens,
        faces: Vision | None,
        guidance: float,
        identity: float,
        rescale: float,
        strength: dict[str, float] | None,
    ) -> Guide:
        """Everything that the denoising steps share; see `iy.model.guidance.plan`."""
        return plan(self.model, words, blank, faces, guidance, identity, rescale, strength)

    def check(self, height: int, width: int, steps: int, strength: float, output_type: str, images: int) -> None:
        step = self.vae_scale * 2 ** (len(self.model.unet.config.block_out_channels) - 1)
        if height % step or width % step or min(height, width) <= 0:
            raise UserError(f"height and width must be multiples of {step}, got {height} and {width}")
        if steps < 1 or images < 1:
            raise UserError(f"num_inference_steps and num_images_per_prompt must be positive, got {steps}, {images}")
        if not 0 < strength <= 1:
            raise UserError(f"strength must lie above 0 and at most at 1, got {strength}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise UserError(f"output_type must be pil, np, pt or latent, got {output_type!r}")

    def see(
        self,
        rows: list[list[inputs.Picture]],
        cropper: inputs.Cropper | None,
        weights: torch.Tensor | None,
        regions: torch.Tensor | None,
    ) -> Vision | None:
        """Tokens and mask of each prompt's references, how strongly each is drawn (B, N), and where (B, N, h, w)."""
        seen = inputs.reference_pixels(rows, self.model.vision.image_size, cropper)
        if seen is None:
            return None
        pixels, present = seen
        device = self._execution_device
        vision = self.model.vision_tokens(pixels.to(device, self.model.dtype), present.to(device))
        if weights is not None:
            weights = weights.repeat_interleave(self.model.vision.tokens, 1).to(vision.tokens)
        return vision._replace(weight=weights, regions=None if regions is None else regions.to(device))

    def encode_prompt(self, prompt: str | Sequence[str], fixed_length: bool = False) -> Tokens:
        """States and masks of the prompts for `prompt_embeds`: the text encoders need not run again."""
        return self.states(inputs.prompts(prompt), fixed_length)

    def encode_negative(
        self, prompt: str | Sequence[str | None] | None, count: int = 1, fixed_length: bool = False
    ) -> Tokens:
        """What guidance leads away from, for `negative_prompt_embeds`: `count` negative prompts, or no text."""
        texts = inputs.negatives(prompt, count)
        return self.away(self.states([text or "" for text in texts], fixed_length), texts)

    def away(self, states: Tokens, negatives: list[str | None]) -> Tokens:
        written = torch.tensor([text is not None for text in negatives], device=self._execution_device)[:, None]
        # Without a negative prompt the own branch reads "", as the base was trained to; the added ones nothing.
        return {
            name: (hidden, mask if name in (self.model.own, POOLED) else mask & written)
            for name, (hidden, mask) in states.items()
        }

    def encode_reference(
        self, reference: inputs.Picture | Sequence[inputs.Picture], face_cropper: inputs.Cropper | None = None
    ) -> Vision:
        """Tokens of one person's picture or pictures, for `reference_embeds`."""
        return self.see(inputs.references(reference, True, 1), face_cropper, None, None)

    def states(self, prompts: Sequence[str], fixed_length: bool) -> Tokens:
        if self.text is None:
            raise UserError("the text encoders were freed: give prompt_embeds and negative_prompt_embeds")
        return text_states(self.text.ready(), prompts, fixed_length, self._execution_device)

    def free_text(self) -> None:
        """Give the text encoders' memory back; from here on prompts come as `prompt_embeds`."""
        self.register_modules(text=None)

    def read(
        self,
        prompt: str | Sequence[str] | None,
        negative: str | Sequence | None,
        embeds: Tokens | None,
        negative_embeds: Tokens | None,
        fixed_length: bool,
    ) -> tuple[Tokens, Tokens]:
        """States of the prompts and of what guidance leads away from, encoded or as they were given."""
        if (prompt is None) == (embeds is None):
            raise UserError("give prompt or prompt_embeds, and not both")
        if negative is not None and negative_embeds is not None:
            raise UserError("give negative_prompt or negative_prompt_embeds, not both")
        if embeds is None and negative_embeds is None:  # one pass of the encoders for both
            texts = inputs.prompts(prompt)
            negatives = inputs.negatives(negative, len(texts))
            both = self.states(texts + [text or "" for text in negatives], fixed_length)
            first, second = (
                {name: (hidden[rows], mask[rows]) for name, (hidden, mask) in both.items()}
                for rows in (slice(len(texts)), slice(len(texts), None))
            )
            return first, self.away(second, negatives)
        words = self.encode_prompt(prompt, fixed_length) if embeds is None else self.given("prompt_embeds", embeds)
        count = len(words[self.model.own][1])
        if negative_embeds is None:
            return words, self.encode_negative(negative, count, fixed_length)
        blank = self.given("negative_prompt_embeds", negative_embeds)
        rows = len(blank[self.model.own][1])
        if rows not in (1, count):
            raise UserError(f"negative_prompt_embeds: {rows} rows for {count} prompts; give one, or one per prompt")
        return words, blank if rows == count else repeat(blank, count)

    def given(self, name: str, embeds: Tokens) -> Tokens:
        """Embeddings of the caller, checked to be of this model's branches, on its device and in its dtype."""
        inputs.check_embeds(name, embeds, self.model.own, self._execution_device, self.model.dtype)
        return embeds

    def schedule(self, steps: int, strength: float) -> torch.Tensor:
        """Timesteps to run: all of them, or the last `strength` (at least one)."""
        self.scheduler.set_timesteps(steps, device=self._execution_device)
        skipped = steps - max(1, min(steps, round(steps * strength)))
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(skipped * self.scheduler.order)
        return self.scheduler.timesteps[skipped * self.scheduler.order :]

    def noise(self, count: int, height: int, width: int, draws: Any, given: torch.Tensor | None) -> torch.Tensor:
        """Standard normal (B, C, h, w), each image from its own generator; or the caller's."""
        shape = (count, self.model.unet.config.in_channels, height // self.vae_scale, width // self.vae_scale)
        if given is None:
            return randn_tensor(shape, generator=draws, device=self._execution_device, dtype=self.model.dtype)
        if tuple(given.shape) != shape:
            raise UserError(f"latents must be {shape}, got {tuple(given.shape)}")
        return given.to(self._execution_device, self.model.dtype)

    def start(
        self,
        image: Any,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        count: int,
        repeats: int,
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Where denoising begins: pure noise, or the noised latents of the images to redraw."""
        if image is None:
            return noise * self.scheduler.init_noise_sigma
        pixels = inputs.start_pixels(image, count, height, width).to(self._execution_device)
        clean = vae_encode(self.vae, pixels).to(noise.dtype).repeat_interleave(repeats, 0)
        return self.scheduler.add_noise(clean, noise, timesteps[:1].expand(len(noise)))

    def denoise(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        guide: Guide,
        draws: Any,
        callback: Callable | None,
        wanted: Sequence[str],
    ) -> torch.Tensor:
        accepted = inspect.signature(self.scheduler.step).parameters
        options = {"generator": draws} if "generator" in accepted else {}
        self._interrupt = False
        for i, t in enumerate(self.progress_bar(timesteps)):
            prediction = guide.denoise(self.model, self.scheduler.scale_model_input(latents, t), t)
            latents = self.scheduler.step(prediction, t, latents, **options, return_dict=False)[0]
            if callback is not None:
                known = {"latents": latents}
                changed = callback(self, i, t, {name: known[name] for name in wanted})
                latents = (changed or known).get("latents", latents)
            if self._interrupt:
                break
        return latents


def repeat(part: Any, times: int) -> Any:
    """Every row of a token map, of a (tokens, mask) pair or of a `Vision`, `times` times in a row."""
    if part is None or times == 1:
        return part
    if isinstance(part, dict):
        return {name: repeat(pair, times) for name, pair in part.items()}
    if isinstance(part, Vision):
        return part.map(lambda x: x.repeat_interleave(times, 0))
    return tuple(x.repeat_interleave(times, 0) for x in part)
