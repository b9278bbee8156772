"""What `describe` says, `find` reads back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iy.lexicon import LEXICON, PERSON, SHOT, describe, find

ATTRIBUTES = st.fixed_dictionaries({name: st.sampled_from(list(values)) for name, values in LEXICON.items()})


@given(ATTRIBUTES, st.integers(0, 2**32 - 1))
def test_a_caption_says_the_whole_shot_and_nothing_false(attributes, seed):
    caption = describe(attributes, np.random.default_rng(seed))
    found = {name: value for name, (value, _, _) in find(caption).items()}
    silent = {"gaze"} if attributes["expression"] == "sleeping" else set()
    assert set(SHOT) - silent <= set(found)
    assert all(attributes[name] == value for name, value in found.items())
    assert len(caption.split()) <= 55


@given(ATTRIBUTES, st.integers(0, 2**32 - 1))
def test_a_caption_without_the_person_names_no_person_attribute(attributes, seed):
    found = find(describe(attributes, np.random.default_rng(seed), person=False))
    assert found and not set(found) & set(PERSON)


@given(st.sets(st.sampled_from(SHOT)), ATTRIBUTES, st.integers(0, 99))
def test_any_subset_can_be_described(names, attributes, seed):
    caption = describe({name: attributes[name] for name in names}, np.random.default_rng(seed), person=False)
    silent = {"gaze"} if attributes["expression"] == "sleeping" and "expression" in names else set()
    expected = names - silent
    if "garment" in names and "garment_colour" not in names:
        assert "garment_colour" not in find(caption)
    assert set(find(caption)) == expected


def test_no_phrase_means_two_things():
    said = {}
    for name in (
        "expression",
        "pose",
        "gaze",
        "light",
        "backdrop",
        "garment",
        "gender",
        "age",
        "skin",
        "glasses",
        "beard",
    ):
        for value, phrases in LEXICON[name].items():
            for phrase in phrases:
                assert said.setdefault(phrase, (name, value)) == (name, value)
    assert len(said) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A woman with long red hair in a green hoodie, looking left",
            {
                "gender": "woman",
                "hair": "long",
                "hair_colour": "red",
                "garment": "hoodie",
                "garment_colour": "green",
                "gaze": "left",
            },
        ),
        ("HEAD TURNED LEFT, a striped backdrop", {"pose": "left", "backdrop": "stripes"}),
        ("no glasses", {"glasses": "none"}),
        ("a mankind of wonders", {}),
    ],
)
def test_reading_free_text(text, expected):
    assert {name: value for name, (value, _, _) in find(text).items()} == expected


def test_spans_are_the_words():
    text = "A photo of a man, tongue out, in a blue suit jacket."
    found = find(text)
    assert text[slice(*found["expression"][1:])] == "tongue out"
    assert text[slice(*found["garment"][1:])] == "suit jacket"
    assert text[slice(*found["garment_colour"][1:])] == "blue"


def test_captions_vary():
    attributes = {"expression": "smiling", "pose": "left", "gaze": "camera", "light": "soft", "backdrop": "blue"}
    captions = {describe(attributes, np.random.default_rng(seed), person=False) for seed in range(50)}
    assert len(captions) > 40


def test_the_values_are_as_many_as_promised():
    assert [len(LEXICON[name]) for name in ("expression", "pose", "gaze")] == [12, 9, 5]
    assert len(LEXICON["light"]) >= 5 and len(LEXICON["backdrop"]) >= 8
