"""The studio: people and shots by seed, and pictures that show what their attributes say."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from iy import lexicon
from iy.params import Workers
from iy.studio import Person, Shot, Studio, render_many, sample_people, sample_person, sample_shot, shot_from
from iy.studio.camera import rotation
from iy.studio.mesh import noise
from iy.workers import ALONE
from tests.depth import THOROUGH

PLAIN = {
    "expression": "neutral",
    "pose": "frontal",
    "gaze": "camera",
    "light": "soft",
    "backdrop": "white",
    "garment": "t-shirt",
    "garment_colour": "blue",
}


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


@pytest.fixture(scope="module")
def person() -> Person:
    return next(p for p in sample_people(72, 3) if p.hair == "short" and p.glasses == "none" and p.beard == "none")


def picture(studio, person, **changes):
    return studio.render(person, shot_from(PLAIN | changes, 5), 64).astype(float)


def test_people_and_shots_are_set_by_their_seed_and_survive_json():
    assert sample_person(4) == sample_person(4) != sample_person(5)
    assert sample_shot(4) == sample_shot(4) != sample_shot(5)
    assert Person.from_json(sample_person(4).to_json()) == sample_person(4)
    assert Shot.from_json(sample_shot(4).to_json()) == sample_shot(4)


def test_people_are_balanced():
    people = sample_people(72, 1)
    for name, groups in (("gender", 2), ("age", 3), ("ancestry", 6)):
        counts = Counter(getattr(person, name) for person in people)
        assert len(counts) == groups and set(counts.values()) == {72 // groups}
    assert sample_people(10, 1) == people[:10]
    assert not set(people) & set(sample_people(72, 2))


def test_attributes_are_words_of_the_lexicon():
    for seed in range(100):
        for attributes, names in (
            (sample_person(seed).attributes(), lexicon.PERSON),
            (sample_shot(seed).attributes(), lexicon.SHOT),
        ):
            assert set(attributes) <= set(names)
            assert all(value in lexicon.LEXICON[name] for name, value in attributes.items())


def test_a_shot_keeps_what_it_is_asked_and_refuses_what_it_cannot():
    assert shot_from(PLAIN, 1).attributes() == PLAIN
    assert shot_from({"pose": "left"}, 1).pose == "left"
    with pytest.raises(ValueError, match="grinning"):
        shot_from({"expression": "grinning"}, 1)


def test_turning_right_faces_the_viewers_right_and_up_faces_up():
    ahead = np.array([0, -1, 0])
    assert (rotation(30, 0) @ ahead)[0] > 0.4 and (rotation(0, 20) @ ahead)[2] > 0.3
    assert (rotation(0, 0, 20) @ [0, 0, 1])[0] > 0.3


def test_noise_is_smooth_and_uses_its_range():
    line = np.zeros((2000, 3), np.float32)
    line[:, 0] = np.linspace(0, 0.4, 2000)
    value = noise(line, 0.01)
    assert 0 <= value.min() < 0.1 and 0.9 < value.max() <= 1 and abs(np.diff(value)).max() < 0.05


def test_same_arguments_same_bytes(studio, person):
    first = studio.render(person, sample_shot(1), 32)
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    studio.bodies.clear()
    assert (studio.render(person, sample_shot(1), 32) == first).all()


def test_every_expression_is_seen(studio, person):
    faces = {name: picture(studio, person, expression=name)[16:52, 16:48] for name in lexicon.EXPRESSIONS}
    for one, other in combinations(faces, 2):
        assert abs(faces[one] - faces[other]).max(2).max() > 40, f"{one} looks like {other}"


def test_the_head_turns_and_the_shoulders_stay(studio, person):
    ahead, left = picture(studio, person), picture(studio, person, pose="left")
    assert abs(ahead - left)[20:45, 20:44].mean() > 12
    assert abs(ahead - left)[60:, :10].mean() < 3


def test_light_from_the_left_is_brighter_on_the_left(studio, person):
    skin = np.s_[24:44, 18:46]
    left, right = (picture(studio, person, light=side)[skin].mean(2) for side in ("left", "right"))
    assert left[:, :14].mean() > left[:, 14:].mean() + 10
    assert right[:, 14:].mean() > right[:, :14].mean() + 10


def test_backdrop_and_cloth_have_their_colours(studio, person):
    red, green, blue = picture(studio, person, backdrop="green")[:8, :8].mean((0, 1))
    assert green > red + 40 and green > blue + 40
    red, green, blue = picture(studio, person, garment_colour="red")[60:, 20:44].mean((0, 1))
    assert red > green + 60 and red > blue + 60


def test_nobody_has_holes(studio):
    for k, someone in enumerate(sample_people(6, 9)):
        face = studio.render(someone, shot_from(PLAIN | {"backdrop": "purple"}, k), 64)[22:44, 24:40].astype(int)
        assert not ((face[..., 2] > face[..., 1] + 60) & (face[..., 0] > face[..., 1] + 20)).any()


@pytest.mark.skipif(not THOROUGH, reason="IY_THOROUGH=1: test_curate_photographs has photos rendered by processes")
def test_workers_keep_the_order(studio, person):
    jobs = [(person, sample_shot(seed)) for seed in range(ALONE + 2)]
    made = list(render_many(jobs, 32, Workers(map="processes", count=2, address=None)))
    assert len(made) == len(jobs)
    for image, job in zip(made, jobs, strict=True):
        assert (image == studio.render(*job, 32)).all()
