"""The diffusers pipeline: prompts and faces in, images out; from noise, or from an image to be redrawn."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor

from iy.diffusion import Base, TextEncoders, vae_decode, vae_encode
from iy.errors import UserError
from iy.model import inputs
from iy.model.attention import Tokens
from iy.model.conditioning import Vision
from iy.model.encoding import Encoding, repeat
from iy.model.guidance import Guide, plan
from iy.model.loading import Loading
from iy.model.loras import Loras
from iy.model.memory import Memory, in_one_place
from iy.model.personaliser import Personaliser


class ImagineYourselfPipeline(Loading, Loras, Encoding, Memory, DiffusionPipeline):
    """Portraits of the person on the reference, as the prompt says.

        pipeline = ImagineYourselfPipeline.from_pretrained("models/studio/finetune4")
        pipeline("a smiling person in a blue jacket", face_crop, seeds=[0]).images[0]

    References are face crops (as `iy.faces.crop` makes them), or whole photos together with a `face_cropper`.
    """

    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        model: Personaliser,
        vae: AutoencoderKL | AutoencoderTiny,
        text: TextEncoders | None,
        scheduler: Any,
    ):
        super().__init__()
        self.register_modules(model=model, vae=vae, text=text, scheduler=scheduler)
        self.vae_scale = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.processor = VaeImageProcessor(vae_scale_factor=self.vae_scale)

    @classmethod
    def build(cls, model: Personaliser, base: Base) -> "ImagineYourselfPipeline":
        """A pipeline around a model in memory (while training, say), with DPM-Solver++ on the base's noise schedule.

        Trailing timesteps begin at pure noise, which few steps need (arXiv 2305.08891); our choice.
        """
        scheduler = DPMSolverMultistepScheduler.from_config(base.scheduler.config, timestep_spacing="trailing")
        return cls(model, base.vae, base.text, scheduler)

    @in_one_place
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
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] | None = None,
        target_size: tuple[int, int] | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Draw `num_images_per_prompt` images of every prompt.

        reference: see `inputs.references`; None draws from the text alone. image: start from it and redraw the last
        `strength` (0 to 1] of the noise schedule. guidance_scale: 1 or less is without guidance, as in diffusers.
        identity_guidance_scale: None = guidance_scale, the cheaper joint form (see `iy.model.guidance`). seeds: one per
        image, in the output's order. latents: starting noise.
        fixed_length: pad prompts to each tokenizer's limit, so that an image does not depend on its batch, bit for bit.
        branch_strength: weights of branches besides the learnt α, e.g. {"vision": 0.5}; 1 where not named.
        person_strength: a number per reference, 1 = as trained; 0 leaves the person out. regions: where each reference
        belongs, a box in shares of the picture or a mask each; see `inputs.regions`.
        prompt_embeds, negative_prompt_embeds: from `encode_prompt`, in place of the texts; reference_embeds: from
        `encode_reference`, in place of the pictures. One row each per prompt.
        original_size, crops_coords_top_left, target_size: what SDXL is told of the picture, (height, width) or (top,
        left) in pixels; None: a whole picture of the size that is drawn.
        cross_attention_kwargs: {"scale": 0.7} draws with the loaded LoRAs at that share of their strength.
        output_type: pil | np (B, H, W, 3 in [0, 1]) | pt (B, 3, H, W in [0, 1]) | latent.
        callback_on_step_end(pipeline, step, timestep, {"latents": …}) may return changed latents; setting
        `pipeline._interrupt = True` there ends the denoising after that step, and `pipeline._guidance_scale` changes
        the guidance from the next one on.
        """
        side: int = self.model.unet.config["sample_size"] * self.vae_scale
        height = side if height is None else height
        width = side if width is None else width
        check_scheduler(self.scheduler)
        self.check(height, width, num_inference_steps, strength, output_type, num_images_per_prompt)
        wanted = callback_on_step_end_tensor_inputs
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            wanted = callback_on_step_end.tensor_inputs
        inputs.check_callback(wanted, self._callback_tensor_inputs)
        with self.loras_at(cross_attention_kwargs):
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
        sizes = inputs.sizes(original_size, crops_coords_top_left, target_size, (height, width), self.model.pooled)
        guided = partial(
            self.guide_at, (words, blank, faces), identity_guidance_scale, guidance_rescale, branch_strength, sizes
        )
        timesteps = self.schedule(num_inference_steps, 1.0 if image is None else strength)
        noise = self.noise(count, height, width, draws, latents)
        latents = self.start(image, noise, timesteps, prompts, num_images_per_prompt, height, width)
        self._guidance_scale = guidance_scale
        with self.loras_at(cross_attention_kwargs):
            latents = self.denoise(latents, timesteps, guided, draws, callback_on_step_end, wanted)
        images = (
            latents
            if output_type == "latent"
            else self.processor.postprocess(vae_decode(self.vae, latents).float(), output_type)
        )
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=cast("Any", images)) if return_dict else (images,)

    @property
    def guidance_scale(self) -> float:
        """Of the call that draws, or drew last; a callback changes it as `_guidance_scale`."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """How many steps the call that draws, or drew last, takes."""
        return self._num_timesteps

    def guide_at(
        self,
        rows: tuple[Tokens, Tokens, Vision | None],
        identity: float | None,
        rescale: float,
        strength: dict[str, float] | None,
        sizes: torch.Tensor | None,
        guidance: float,
    ) -> Guide:
        guidance = max(1.0, guidance)
        guide = self.guide(*rows, guidance, guidance if identity is None else identity, rescale, strength)
        guide.context.sizes = sizes
        return guide

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
        step = self.vae_scale * 2 ** (len(self.model.unet.config["block_out_channels"]) - 1)
        if height % step or width % step or min(height, width) <= 0:
            raise UserError(f"height and width must be multiples of {step}, got {height} and {width}")
        if steps < 1 or images < 1:
            raise UserError(f"num_inference_steps and num_images_per_prompt must be positive, got {steps}, {images}")
        if not 0 < strength <= 1:
            raise UserError(f"strength must lie above 0 and at most at 1, got {strength}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise UserError(f"output_type must be pil, np, pt or latent, got {output_type!r}")

    def schedule(self, steps: int, strength: float) -> torch.Tensor:
        """Timesteps to run: all of them, or the last `strength` (at least one)."""
        self.scheduler.set_timesteps(steps, device=self._execution_device)
        skipped = steps - max(1, min(steps, round(steps * strength)))
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(skipped * self.scheduler.order)
        return self.scheduler.timesteps[skipped * self.scheduler.order :]

    def noise(self, count: int, height: int, width: int, draws: Any, given: torch.Tensor | None) -> torch.Tensor:
        """Standard normal (B, C, h, w), each image from its own generator; or the caller's."""
        shape = (count, self.model.unet.config["in_channels"], height // self.vae_scale, width // self.vae_scale)
        if given is None:
            return randn_tensor(shape, generator=draws, device=self._execution_device, dtype=self._execution_dtype)
        if tuple(given.shape) != shape:
            raise UserError(f"latents must be {shape}, got {tuple(given.shape)}")
        return given.to(self._execution_device, self._execution_dtype)

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
        """Where denoising begins: pure noise, or the noised latents that are given or of the images to redraw."""
        if image is None:
            return noise * self.scheduler.init_noise_sigma
        clean = inputs.start_latents(image, count, noise.shape[1:])
        if clean is None:
            pixels = inputs.start_pixels(image, count, height, width).to(self._execution_device)
            clean = vae_encode(self.vae, pixels)
        clean = clean.to(self._execution_device, noise.dtype).repeat_interleave(repeats, 0)
        return self.scheduler.add_noise(clean, noise, timesteps[:1].expand(len(noise)))

    def denoise(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        guided: Callable[[float], Guide],
        draws: Any,
        callback: Callable | None,
        wanted: Sequence[str],
    ) -> torch.Tensor:
        accepted = inspect.signature(self.scheduler.step).parameters
        options = {"generator": draws} if "generator" in accepted else {}
        self._interrupt, self._num_timesteps = False, len(timesteps)
        scale = self._guidance_scale
        guide = guided(scale)
        bar = cast("Callable[[torch.Tensor], Iterable]", self.progress_bar)  # a decorator hides its form
        for i, t in enumerate(bar(timesteps)):
            if self._guidance_scale != scale:
                scale = self._guidance_scale
                guide = guided(scale)
            prediction = guide.denoise(self.model, self.scheduler.scale_model_input(latents, t), t)
            latents = self.scheduler.step(prediction, t, latents, **options, return_dict=False)[0]
            if callback is not None:
                known = {"latents": latents}
                changed = callback(self, i, t, {name: known[name] for name in wanted})
                latents = (changed or known).get("latents", latents)
            if self._interrupt:
                break
        return latents


def check_scheduler(scheduler: Any) -> None:
    """One sentence for a scheduler of another kind of model: of flow matching, or one that draws pixels or tokens."""
    needed = ("set_timesteps", "step", "scale_model_input", "add_noise", "init_noise_sigma", "order")
    lacking = [name for name in needed if not hasattr(scheduler, name)]
    if not lacking:
        taken = inspect.signature(scheduler.step).parameters.values()
        given = ("model_output", "timestep", "sample")
        lacking = [
            p.name for p in taken if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in given
        ]
    if lacking:
        raise UserError(
            f"{type(scheduler).__name__} does not fit this U-Net, which predicts noise ({lacking[0]} is between them): "
            "choose another, such as DPMSolverMultistepScheduler or EulerDiscreteScheduler"
        )
