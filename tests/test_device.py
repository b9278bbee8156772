"""Where there is a GPU, `device: cpu` is obeyed by everything that computes. (Here one only seems to be.)"""

import ast
import warnings
from pathlib import Path

import pytest
import transformers

from iy import device, faces, params
from iy.diffusion import load_base
from iy.errors import UserError
from iy.generate.portrait import Portraitist, Terms
from iy.model import Personaliser, bundle
from iy.synpairs.language_model import LanguageModel
from tests import tiny


@pytest.fixture
def seeming_gpu(monkeypatch):
    monkeypatch.setattr(device, "torch_has_gpu", lambda: True)
    monkeypatch.setattr(device, "onnx_has_gpu", lambda: True)


def test_auto_takes_a_gpu_where_there_is_one_and_cuda_insists(seeming_gpu, monkeypatch):
    assert [device.choose_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    first = [device.onnx_providers(name)[0] for name in ("auto", "cuda", "cpu")]
    assert first == [device.CUDA, device.CUDA, device.CPU]
    monkeypatch.setattr(device, "torch_has_gpu", lambda: False)
    monkeypatch.setattr(device, "onnx_has_gpu", lambda: False)
    assert device.choose_device("auto").type == "cpu" and device.onnx_providers("cuda") == [device.CPU]
    with pytest.raises(UserError, match="device = 'cuda': no GPU"):
        device.choose_device("cuda")


def test_nothing_else_asks_for_a_gpu():
    asking = {
        str(path)
        for path in Path("iy").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("is_available", "get_available_providers", "device_count")
    }
    assert asking == {"iy/device.py"}


def test_the_language_model_obeys(seeming_gpu, tmp_path):
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=len(tiny.clip_words()))
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tiny.tokenizers()["clip"].save_pretrained(tmp_path)
    assert LanguageModel(str(tmp_path), 1, "cpu").model.device.type == "cpu"
    with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
        LanguageModel(str(tmp_path), 1, "auto")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of a tiny random model, and its settings."""
    folder = tmp_path_factory.mktemp("made")
    settings = tiny.tiny_params(tiny.tiny_base(folder / "base"))
    bundle.save(Personaliser(load_base(settings.base), settings.model), folder / "bundle", {})
    return folder / "bundle", settings


def test_drawing_obeys(seeming_gpu, made):
    """`iy generate` and the served model alike: both draw through this."""
    folder, settings = made
    terms = Terms.of(settings)._replace(usage="research")
    assert Portraitist(folder, terms._replace(device="cpu")).pipeline.device.type == "cpu"
    with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
        Portraitist(folder, terms._replace(device="auto"))


def opened(settings: params.Faces, where: str) -> None:
    """The analyser and the second recogniser that these settings mean."""
    for cached in (faces.sessions.session, faces.dlibnet.load):
        cached.cache_clear()
    faces.load_analyser(settings, "research", where)


def test_face_models_obey(seeming_gpu, made):
    """ONNX Runtime warns of what it is asked for and has not."""
    _, settings = made
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        opened(settings.faces, "cpu")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        opened(settings.faces, "auto")
    for cached in (faces.sessions.session, faces.dlibnet.load):
        cached.cache_clear()
