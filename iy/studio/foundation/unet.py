"""The studio's text-to-image U-Net: v-prediction on 16 x 16 x 4 latents, conditioned on CLIP text alone, as SD is."""

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from iy.finetune.examples import face_map
from iy.studio.foundation.language import LENGTH, WIDTH
from iy.studio.foundation.train import Plan, fit

CONFIG = dict(
    sample_size=16,
    in_channels=4,
    out_channels=4,
    block_out_channels=(96, 128, 160),
    layers_per_block=1,
    norm_num_groups=16,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=WIDTH,
    attention_head_dim=(3, 4, 5),
)
RATE = 6e-4
FACE = 3.0  # weight of the latent cells that the face is in
SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=False,
    timestep_spacing="trailing",
    clip_sample=False,
)


def build(seed: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)


def train(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    boxes: np.ndarray,
    texts: list[list[str]],
    encode,
    plan: Plan,
    batch: int = 32,
    seed: int = 4,
) -> UNet2DConditionModel:
    """`latents` (N, 4, 16, 16) scaled; `texts[i]` several captions of render i; `encode`: see `text_encoder`.

    `boxes` (N, 4): faces in latent cells, NaN without one. The error of v, every timestep alike: Min-SNR all but
    silences the noisiest ones, where pose and expression are settled. One caption in ten is empty, for classifier-free
    guidance.
    """
    schedule, rng = DDPMScheduler(**SCHEDULE), np.random.default_rng(seed)
    unet.set_attn_processor(
        AttnProcessor()
    )  # on CPU, plain matrix products train faster than the fused attention's backward
    noise_source = torch.Generator().manual_seed(seed)

    def loss(step: int) -> torch.Tensor:
        pick = rng.integers(len(latents), size=batch)
        words = ["" if rng.random() < 0.1 else texts[i][rng.integers(len(texts[i]))] for i in pick]
        hidden, mask = encode(words)
        clean = latents[torch.from_numpy(pick)]
        noise = torch.randn(clean.shape, generator=noise_source)
        t = torch.randint(0, 1000, (batch,), generator=noise_source)
        noisy, target = schedule.add_noise(clean, noise, t), schedule.get_velocity(clean, noise, t)
        v = unet(noisy.contiguous(memory_format=torch.channels_last), t, hidden, encoder_attention_mask=mask).sample
        weight = torch.stack([face_map(box, clean.shape[2:], FACE) for box in boxes[pick]])
        return ((v - target).square() * weight).mean()

    fit(plan, unet, loss, decay=0.9985)
    unet.set_default_attn_processor()
    return unet


def text_encoder(tokenizer, model):
    """`encode(texts)`: the CLIP text tower's last hidden state (B, L, D) and the mask (B, L) of real tokens."""

    @torch.no_grad()
    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokenizer(texts, padding="longest", truncation=True, max_length=LENGTH, return_tensors="pt")
        hidden = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return hidden, tokens.attention_mask.bool()

    return encode
