"""A pipeline of diffusers draws captions; an IP-Adapter on it draws what was drawn towards the reference."""

import numpy as np

from iy.synpairs.plan import Plan
from iy.synpairs.rewriters import Rewrite
from tests.pair_models import PLANS, adapter, crops, furthest, load, same, settings


def test_a_generator_draws_the_caption_from_the_seed_and_sees_no_reference(published):
    generator, _ = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in drawn)
    assert same(drawn, generator.draw(PLANS, crops(3, seed=1)))
    reworded = Plan({}, 0, PLANS[0].seed, Rewrite("a robot", [], None))
    reseeded = Plan({}, 0, 99, PLANS[0].rewrite)
    for changed in (reworded, reseeded):
        again = generator.draw([changed, *PLANS[1:]], crops(3))
        assert not np.array_equal(again[0], drawn[0]) and same(again[1:], drawn[1:])


def test_an_adapter_follows_the_reference_and_leaves_the_generator_as_it_was(published):
    generator, refiner = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    refined = refiner.refine(PLANS, crops(3), drawn, 1)
    assert same(refined, refiner.refine(PLANS, crops(3), drawn, 1)), "the same seed, the same picture"
    other = refiner.refine(PLANS, crops(3)[:2] + crops(1, seed=5), drawn, 1)
    assert same(other[:2], refined[:2]) and furthest(other[2:], refined[2:]) > 5
    assert not same(refiner.refine(PLANS, crops(3), drawn, 2), refined), "every pass has noise of its own"
    assert not same(refiner.refine(PLANS, crops(3), crops(3), 1), refined), "it starts from the picture"
    assert same(generator.draw(PLANS, crops(3)), drawn)


def test_an_adapter_without_weight_or_guidance_takes_part_as_far_as_asked(published):
    folder, cls = published
    _, silent = load(settings(folder, cls, refiner_model=adapter(folder, scale=0.0)))
    assert same(*(silent.refine(PLANS, crops(3, seed), crops(3), 1) for seed in (1, 2)))
    _, unguided = load(settings(folder, cls, guidance=1.0))
    assert not same(*(unguided.refine(PLANS, crops(3, seed), crops(3), 1) for seed in (1, 2)))


def test_an_adapter_may_go_on_a_pipeline_that_does_not_draw(published):
    folder, cls = published
    own = adapter(folder, pipeline={"class": cls, "path": str(folder / "pipeline")})
    (_, apart), (_, together) = (load(settings(folder, cls, refiner_model=model)) for model in (own, adapter(folder)))
    assert same(*(refiner.refine(PLANS, crops(3), crops(3), 1) for refiner in (apart, together)))


def test_pictures_do_not_see_each_other_and_hardly_the_size_of_their_batch(published):
    generator, refiner = load(settings(*published))
    drawn = generator.draw(PLANS, crops(3))
    refined = refiner.refine(PLANS, crops(3), drawn, 1)
    assert same(generator.draw(PLANS[2:], crops(1)), drawn[2:])
    assert same(refiner.refine(PLANS[2:], crops(3)[2:], drawn[2:], 1), refined[2:])
    for batch in (1, 3):
        generator, refiner = load(settings(*published, batch=batch))
        assert furthest(generator.draw(PLANS, crops(3)), drawn) <= 1, "rounding, at most"
        assert furthest(refiner.refine(PLANS, crops(3), drawn, 1), refined) <= 1
