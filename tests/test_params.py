"""Settings: every profile is complete, unknown and wrong values are told in one sentence, the hash means equality."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iy import params
from iy.errors import UserError
from iy.storage import write_json

PROFILES = ("studio", "smoke", "sdxl")
NSFW = {"model": "somewhere", "label": "nsfw", "maximum": 0.5, "input": "photo"}


def keys(value, place=""):
    """Dotted names of a profile's keys; branches of base.text and classifiers are named by the profile itself."""
    for key, inner in value.items():
        name = f"{place}.{key}".lstrip(".")
        yield name
        if isinstance(inner, dict) and key not in ("second", "classifiers", "buckets"):  # each profile's own
            yield from keys(inner, name)


def test_profiles_have_the_same_keys():
    studio, *others = (set(keys(params.read_yaml(params.Path(f"profiles/{name}.yaml")))) for name in PROFILES)
    for other in others:
        assert other == studio


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_load_and_survive_a_round_trip(profile):
    loaded = params.load(profile)
    assert params.parse(loaded.resolved(), "again") == loaded
    assert loaded.bundle_dir(4).as_posix() == f"models/{profile}/finetune4"


def test_smoke_is_the_studio_on_a_smaller_scale():
    studio, smoke = params.load("studio").resolved(), params.load("smoke").resolved()
    assert smoke["base"] == studio["base"] and smoke["model"] == studio["model"] and smoke["faces"] == studio["faces"]


def test_params_yaml_names_the_profile(project):
    assert params.load() == params.load("studio")
    (project / "params.yaml").write_text("profile: smoke\n")
    assert params.load().profile == "smoke"


def edit(project, change):
    path = project / "profiles" / "studio.yaml"
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value))


@pytest.mark.parametrize(
    "change, says",
    [
        (
            lambda v: v["finetune"]["training"].update(bach=3),
            r"unknown key 'finetune.training.bach': did you mean 'batch'\?",
        ),
        (lambda v: v.update(phtos={}), r"unknown key 'phtos': did you mean 'photos'\?"),
        (
            lambda v: v["finetune"]["stages"]["4"].update(step=3),
            r"unknown key 'finetune.stages.4.step': did you mean 'steps'\?",
        ),
        (
            lambda v: v["base"]["text"]["clip"].update(max_len=3),
            r"'base.text.clip.max_len': did you mean 'max_length'\?",
        ),
        (
            lambda v: v["curate"]["classifiers"].update(nsfw=NSFW | {"maximun": 1}),
            r"'curate.classifiers.nsfw.maximun': did you mean 'maximum'\?",
        ),
        (
            lambda v: v["curate"]["classifiers"].update(nsfw=NSFW | {"label": []}),
            r"curate.classifiers.nsfw.label = \[\]",
        ),
        (
            lambda v: v["curate"]["classifiers"].update(nsfw=NSFW | {"maximum": 50}),
            r"curate.classifiers.nsfw.maximum = 50",
        ),
        (lambda v: v["finetune"]["training"].update(batch="many"), r"finetune.training.batch = 'many'"),
        (lambda v: v["finetune"]["training"].update(batch=0), r"finetune.training.batch = 0"),
        (lambda v: v["finetune"]["training"].pop("batch"), r"key 'finetune.training.batch' is missing"),
        (lambda v: v.update(seed=None), r"seed = None"),
        (
            lambda v: v["photos"].update(source="bucket"),
            r"photos.source = 'bucket'.*'studio', 'folder', 's3', 'webdataset' or 'table'",
        ),
    ],
)
def test_mistakes_are_one_sentence(project, change, says):
    edit(project, change)
    with pytest.raises(UserError, match=says) as caught:
        params.load()
    assert "\n" not in str(caught.value) and "profiles/studio.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("profile: [studio]", "is not the name of a file"),
        ("profile: ../studio", "is not the name of a file"),
        ("profile: stduio", "profiles/stduio.yaml does not exist"),
        ("seed: 1", "unknown key 'seed'"),
        ("- a", "must hold `key: value`"),
        ("a: [", "not valid YAML"),
        ("", "must hold `key: value`"),
    ],
)
def test_a_wrong_params_yaml_is_one_sentence(project, text, says):
    (project / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        params.load()
    assert "\n" not in str(caught.value)


def test_away_from_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="params.yaml does not exist: run from the project folder"):
        params.load()


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_digest_means_equal_settings(a, b):
    settings = params.load("studio").resolved()
    one, other = (params.parse({**settings, "seed": seed}, "test") for seed in (a, b))
    assert (one.digest() == other.digest()) == (a == b)
    assert params.parse(dict(reversed(settings.items())), "order").digest() == params.load("studio").digest()


def test_written_settings_carry_their_hash(tmp_path):
    settings = params.load("smoke")
    settings.write(tmp_path)
    decisive = {
        name: value for name, value in settings.resolved().items() if name != "workers"
    }  # they change no result
    write_json(tmp_path / "expected.json", {"sha256": settings.digest(), "settings": decisive})
    assert (tmp_path / "settings.json").read_bytes() == (tmp_path / "expected.json").read_bytes()


def test_who_does_the_work_is_no_part_of_what_was_decided():
    settings = params.load("smoke")
    other = settings.model_copy(update={"workers": params.Workers(map="ray", count=9, address="127.0.0.1:6379")})
    assert other.digest() == settings.digest() != settings.model_copy(update={"seed": 1}).digest()
