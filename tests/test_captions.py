"""Captions by real transformers models of tiny sizes: a batch says what a photo alone gets, nothing is asked twice."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from iy.curate import captions
from iy.curate.captioner import QUESTION, Captioner
from iy.curate.run import run
from iy.errors import UserError
from iy.photos.run import run as take_photos
from iy.records import ACCEPTED
from iy.storage import png, write_shard
from tests.att_faces import copy_folders
from tests.curating import settings, table

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = SPECIAL + sorted(set(QUESTION.replace(":", " : ").replace(",", " , ").replace(".", " .").split()))
END = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SEES = LAYERS | {"image_size": 16, "patch_size": 8}
LOUD = 0.8  # standard deviation of the weights: at transformers' own every picture is told the same of
TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}<image> "
    "{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
)


def words(padding: str | None = "<pad>") -> transformers.PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(SPECIAL)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=padding,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )


def blip(folder: Path) -> torch.nn.Module:
    looks = transformers.BlipImageProcessor(size={"height": 16, "width": 16})
    transformers.BlipProcessor(looks, words()).save_pretrained(folder)
    text = LAYERS | END | {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "sep_token_id": 2}
    return transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(projection_dim=16, vision_config=SEES, text_config=text | {"projection_dim": 16})
    )


def git(folder: Path) -> torch.nn.Module:
    looks = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    transformers.GitProcessor(looks, words()).save_pretrained(folder)
    return transformers.GitForCausalLM(
        transformers.GitConfig(vocab_size=len(WORDS), max_position_embeddings=128, **LAYERS, **END, vision_config=SEES)
    )


def vit_gpt2(folder: Path) -> torch.nn.Module:
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    words().save_pretrained(folder)
    sees = transformers.ViTConfig(**SEES)
    says = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=128, **END)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(sees, says)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return transformers.VisionEncoderDecoderModel(config)


def llava_next(folder: Path, padding: str | None = "<pad>") -> torch.nn.Module:
    """With a chat template; pictures are cut into more or fewer tiles by their shape, so questions differ in length."""
    tiles = [[16, 32], [32, 16], [32, 32]]
    looks = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=tiles
    )
    transformers.LlavaNextProcessor(
        looks,
        words(padding),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    sees = transformers.CLIPVisionConfig(**SEES, projection_dim=16)
    says = transformers.LlamaConfig(**LAYERS, **END, vocab_size=len(WORDS), num_key_value_heads=2)
    return transformers.LlavaNextForConditionalGeneration(
        transformers.LlavaNextConfig(
            vision_config=sees,
            text_config=says,
            image_token_index=WORDS.index("<image>"),
            image_grid_pinpoints=tiles,
            vision_feature_layer=-1,
        )
    )


def saved(folder: Path, make: Callable[[Path], torch.nn.Module]) -> str:
    """A model of random weights; loud ones, so that what it says hangs on the picture."""
    torch.manual_seed(0)
    model = make(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=LOUD)
    model.save_pretrained(folder)
    return str(folder)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sides = [(40, 20), (20, 40), (32, 32), (60, 20), (16, 18)]
    return [
        np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((h // 2, w // 2, 1))).astype(np.uint8)
        for h, w in (sides[i % len(sides)] for i in range(count))
    ]


@pytest.mark.parametrize(
    "make",
    [blip, git, vit_gpt2, llava_next, partial(llava_next, padding=None)],
    ids=["BLIP", "GIT", "ViT-GPT2", "LLaVA-Next", "LLaVA-Next without a padding token"],
)
def test_a_batch_says_what_one_at_a_time_says(tmp_path, make):
    model, images = saved(tmp_path, make), pictures(7)
    alone = Captioner(model, 1, "cpu")(images)
    assert len(set(alone)) > 2, "what is said hangs on the picture"
    assert Captioner(model, 3, "cpu")(images) == Captioner(model, 7, "cpu")(images) == alone


def asked(monkeypatch) -> list[np.ndarray]:
    """The pictures that a captioner will have been asked about."""
    seen, several = [], Captioner.several

    def noted(self, images):
        seen.extend(images)
        return several(self, images)

    monkeypatch.setattr(Captioner, "several", noted)
    return seen


def test_equal_photos_are_asked_about_once_and_those_with_a_caption_never(tmp_path, monkeypatch):
    model, seen = saved(tmp_path / "model", git), asked(monkeypatch)
    places = write_shard(tmp_path / "0.tar", [(f"{i}.png", png(image)) for i, image in enumerate(pictures(3))])
    rows = [
        place._asdict() | {"id": name, "verdict": ACCEPTED, "caption": said}
        for name, place, said in (
            ("a", places[0], None),
            ("b", places[1], "mine"),
            ("a", places[0], None),
            ("c", places[2], None),
        )
    ]
    wanted = settings(captioner="transformers", caption_model=model, caption_batch=2)
    done = [row["caption"] for row in captions.caption(rows, tmp_path, wanted, tmp_path / "said.json")]
    assert len(seen) == 2 and done[0] == done[2] != done[3] and done[1] == "mine"
    assert captions.caption(rows, tmp_path, wanted, tmp_path / "said.json")[3]["caption"] == done[3] and len(seen) == 2


def test_captions_survive_a_stage_that_is_interrupted(empty_project, tmp_path, monkeypatch):
    """Stopped within the second of three parts: all but the batch at work were kept.

    The end is an undisturbed run's.
    """
    copy_folders(empty_project / "in", 10, 4)
    wanted = settings(
        photos={"source": "folder", "path": "in"},
        minimum_sharpness=0.0,
        duplicate_bits=0,
        captioner="transformers",
        caption_model=saved(tmp_path / "model", git),
        caption_batch=3,
    )
    take_photos(wanted)
    seen, several = asked(monkeypatch), Captioner.several
    run(wanted)
    whole, count = Path("data/tried/curate/photos.parquet").read_bytes(), len(seen)

    def stops_once(self, images):
        if len(seen) >= count + 24:
            monkeypatch.setattr(Captioner, "several", several)
            raise KeyboardInterrupt
        return several(self, images)

    monkeypatch.setattr(Captioner, "several", stops_once)
    with pytest.raises(KeyboardInterrupt):
        run(wanted)
    run(wanted)
    assert len(seen) == 2 * count, "nothing was asked about twice"
    assert (
        Path("data/tried/curate/photos.parquet").read_bytes() == whole and len({row["caption"] for row in table()}) > 2
    )
    assert not list(Path(".iy/resume/tried").glob("curate-*"))


def test_a_model_that_is_not_there_is_told_before_any_face_is_looked_for(empty_project, monkeypatch):
    copy_folders(empty_project / "in", 4, 1)
    wanted = settings(photos={"source": "folder", "path": "in"}, captioner="transformers", caption_model="nowhere")
    take_photos(wanted)
    monkeypatch.setattr("iy.curate.measure.columns", lambda *_: pytest.fail("photos were measured"))
    with pytest.raises(UserError, match="curate.caption_model nowhere cannot be opened"):
        run(wanted)


def test_what_another_model_said_is_not_taken(tmp_path):
    def place(**changes: object) -> Path:
        return captions.place(Path("work"), settings(captioner="transformers", **changes).curate)

    first = place(caption_model=saved(tmp_path, git))
    assert place(caption_model=str(tmp_path)) == first != place(caption_model=str(tmp_path), caption_batch=2)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert place(caption_model=str(tmp_path)) != first
