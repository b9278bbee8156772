"""What a picture was drawn with: as a record that is saved beside it, and as Python that draws it again."""

from pathlib import Path
from typing import Any

from iy import __version__
from iy.play.asked import Drawing
from iy.play.models import Choice
from iy.play.styles import adapter, style_file

PYTHON = """\
from pathlib import Path

import numpy as np

from iy import params
from iy.generate.portrait import open_artist
{imports}
settings = params.load({profile!r})  # in the project folder
bundle = {bundle}
artist = open_artist(bundle, settings)
people = [artist.reference(Path(photo).read_bytes(), photo) for photo in {photos!r}]
seeds = {seeds!r}
{styles}images = artist.pipeline(
    [{prompt!r}] * len(seeds),
    reference=[people] * len(seeds),
    seeds=seeds,
    fixed_length=True,
{options}).images
for seed, image in zip(seeds, images, strict=True):
    Path(f"portrait-{{seed}}.png").write_bytes(artist.export(np.asarray(image), {prompt!r}))
"""
REGISTERED = """\
from iy.play.models import bundle_of
from iy.tracking import connect
"""


def python(asked: Drawing, choice: Choice, profile: str, photos: list[str], styles: dict[str, Path]) -> str:
    """Code that draws the same with one of the models. photos: the people's file names, which it opens."""
    listed = list(enumerate(asked.styles))
    loads = [f"{str(style_file(styles, one.name))!r}, adapter_name={adapter(number)!r}" for number, one in listed]
    names, weights = [adapter(number) for number, _ in listed], [one.weight for _, one in listed]
    lines = [f"artist.pipeline.load_lora_weights({load})\n" for load in loads]
    lines += [f"artist.pipeline.set_adapters({names!r}, {weights!r})\n"] if listed else []
    return PYTHON.format(
        imports=REGISTERED if "connect()" in choice.python else "",
        profile=profile,
        bundle=choice.python,
        photos=photos,
        seeds=asked.seeds,
        styles="".join(lines),
        prompt=asked.prompt,
        options="".join(f"    {name}={value!r},\n" for name, value in asked.options().items()),
    )


def record(asked: Drawing, choice: Choice, seed: int, photos: list[str], code: str, profile: str) -> dict[str, Any]:
    """The settings of one picture, as JSON."""
    people = [
        {"photo": photo, "strength": person.strength, "region": person.region}
        for photo, person in zip(photos, asked.people, strict=True)
    ]
    kept = asked.model_dump(mode="json", exclude={"models", "seeds", "people"})
    made = {"iy": __version__, "profile": profile, "model": choice.title, "bundle": choice.id}
    return kept | made | {"seed": seed, "people": people, "python": code}
