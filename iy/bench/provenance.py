"""Marking drawn pictures beside drawing them: what a signature, XMP and the PNG cost."""

from pathlib import Path

import numpy as np

from iy import params
from iy.bench.measure import against_all, in_turns, report
from iy.generate.portrait import open_artist
from iy.storage import png

PROMPT = "a smiling person in a blue jacket, looking to the left"


def run(settings: params.Params, bundle: Path, steps: int, rounds: int) -> dict:
    """Seconds of drawing one picture and exporting it, and of drawing alone: the ratio less 1 is what marking costs.

    And milliseconds of the export beside those of a plain PNG.
    """
    artist, draws = open_artist(bundle, settings), settings.draw
    face = np.random.default_rng(0).integers(0, 256, (artist.size, artist.size, 3), np.uint8)

    def draw() -> np.ndarray:
        return artist.draw([face], [PROMPT], [0], steps, draws.guidance, draws.identity_guidance)[0]

    image = draw()
    drawing = in_turns({"ours": lambda: artist.export(draw(), PROMPT), "drawing alone": draw}, rounds)
    export = in_turns({"ours": lambda: artist.export(image, PROMPT), "a plain PNG": lambda: png(image)}, 10 * rounds)
    cases = [
        *against_all("drawing and export", drawing, "s"),
        *against_all("export", {name: 1000 * value for name, value in export.items()}, "ms"),
    ]
    share = export["ours"] / drawing["drawing alone"]
    return report(cases, artist.pipeline.device, steps=steps, rounds=rounds, image_size=artist.size, share=share)
