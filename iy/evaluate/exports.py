"""How the pictures of an evaluation leave: marked as drawn, without a time, so that a run gives the same bytes again.

Their time is that of the run in MLflow; SOURCE_DATE_EPOCH sets one. They get no watermark: they are what is measured.
"""

from functools import partial
from pathlib import Path

from iy.errors import UserError
from iy.evaluate.draw import Export
from iy.evaluate.prompts import Subject
from iy.faces import Analyser
from iy.generate.portrait import model_name, version
from iy.params import Params
from iy.policy.rule import open_policy, rules
from iy.provenance.mark import Drawer, open_marker, said_time
from iy.provenance.xmp import COMPOSED, TRAINED


def export(settings: Params, bundle: Path | None) -> Export:
    """Makes the PNGs of what a bundle drew, or the base alone."""
    drawer = partial(Drawer, model_name(settings))
    marker = open_marker(
        settings.provenance,
        lambda: drawer(version(bundle) if bundle else "base, not finetuned"),
        settings.device,
        watermark=False,
    )
    return lambda image: marker.png(image, said_time(), source=TRAINED)


def export_sheets(settings: Params) -> Export:
    """Makes the PNGs of sheets that put several models' pictures beside references."""
    drawer = Drawer(model_name(settings), "several, side by side")
    marker = open_marker(settings.provenance, lambda: drawer, settings.device, watermark=False)
    return lambda image: marker.png(image, said_time(), source=COMPOSED)


def refuse_blocked(settings: Params, analyser: Analyser, subjects: list[Subject]) -> None:
    """Nobody who is blocked is drawn for an evaluation either."""
    policy = open_policy(rules(settings), analyser)
    for subject in subjects:
        if policy.blocked(subject.reference["embedding"]):
            raise UserError(
                f"evaluate: test person {subject.person} is on the block list (`iy policy show`): `iy erase` them, or "
                "take them off the list"
            )
