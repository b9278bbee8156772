"""A complete tiny random base of the same classes as the real ones, and settings that point at it: a second to make."""

import string
from pathlib import Path

import diffusers
import torch
import transformers

from iy import params
from iy.diffusion import Base
from iy.model import Personaliser
from iy.params import read_yaml

CROSS, HIDDEN, SECOND = 32, 32, 16
LIKE = {  # built as the published U-Nets are, with few channels and layers
    "studio": dict(
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
    ),
    "sd15": dict(
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ),
    "sdxl": dict(
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        attention_head_dim=(2, 4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    ),
}


def tiny_base(folder: Path, prediction: str = "epsilon", like: str = "studio") -> Path:
    """Write a foundation folder: 64 px images, latents (4, 16, 16), tokens 32 wide.

    With `like="sdxl"` they are 48 wide, the second encoder's beside the first one's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {"unet": unet(like), "vae": vae(), "vision": vision(), **encoders()}
        if like == "sdxl":  # whose first encoder has no projection
            parts |= {"text_clip": parts["text_clip"].text_model, "text_second": clip_text(SECOND, 20)}
    for name, part in parts.items():
        part.save_pretrained(folder / name, safe_serialization=True)
    for name, tokenizer in tokenizers().items():
        tokenizer.save_pretrained(folder / f"text_{name}")
    if like == "sdxl":
        tokenizers()["clip"].save_pretrained(folder / "text_second")
    diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, prediction_type=prediction
    ).save_pretrained(folder / "scheduler")
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder / "vision")
    return folder


def tiny_settings(folder: Path) -> dict:
    """The studio profile's settings, base paths at `folder` and a smaller adapter; edit, then `params.parse`."""
    settings = read_yaml(Path(__file__).parents[1] / "profiles" / "studio.yaml")
    base = settings["base"]
    for part in (base["unet"], base["vae"], base["scheduler"], base["vision"], *base["text"].values()):
        part["path"] = str(folder)
    settings["model"]["lora_rank"] = 4
    settings["device"] = "cpu"
    if (folder / "text_second").exists():
        base["text"]["clip"] |= {"class": "CLIPTextModel"}
        base["text"]["clip"]["second"] = {
            "class": "CLIPTextModelWithProjection",
            "tokenizer": "CLIPTokenizer",
            "path": str(folder),
            "subfolder": "text_second",
            "int8": False,
        }
    settings["finetune"] |= {"init": "none", "pretrained": None}
    settings["finetune"]["training"]["identity_model"] = None
    return {"profile": "tiny", **settings}


def tiny_params(folder: Path, **model: object) -> params.Params:
    """`tiny_settings` as checked settings; keyword arguments replace keys of the model section."""
    settings = tiny_settings(folder)
    settings["model"] |= model
    return params.parse(settings, "tests/tiny.py")


def moved(base: Base, settings: params.Model) -> Personaliser:
    """A model whose every trainable weight has changed, as after training."""
    model = Personaliser(base, settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def unet(like: str = "studio") -> diffusers.UNet2DConditionModel:
    width = CROSS + (SECOND if like == "sdxl" else 0)
    return diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, cross_attention_dim=width, norm_num_groups=8, **LIKE[like]
    )


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16),
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def vision() -> transformers.CLIPVisionModelWithProjection:
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=HIDDEN,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=24,
            image_size=32,
            patch_size=16,
        )
    )


def encoders() -> dict[str, torch.nn.Module]:
    clip = clip_text(CROSS, 24)
    t5 = dict(d_model=40, d_kv=10, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    return {
        "text_clip": clip,
        "text_ul2": transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(t5_pieces()), **t5)),
        "text_byt5": transformers.T5EncoderModel(transformers.T5Config(vocab_size=384, **t5 | {"d_model": 24})),
    }


def clip_text(width: int, projection: int) -> transformers.CLIPTextModelWithProjection:
    return transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=len(clip_words()),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=projection,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def tokenizers() -> dict[str, object]:
    return {
        "clip": transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(clip_words())}, merges=[]),
        "ul2": transformers.T5TokenizerFast(vocab=t5_pieces(), extra_ids=0),
        "byt5": transformers.ByT5Tokenizer(),
    }


def clip_words() -> list[str]:
    letters = string.ascii_lowercase + string.digits + string.punctuation
    return ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]


def t5_pieces() -> list[tuple[str, float]]:
    letters = string.ascii_letters + string.digits + string.punctuation
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
