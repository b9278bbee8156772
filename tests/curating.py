"""Settings with which tests take photos and curate, and what curate wrote."""

from pathlib import Path

from iy import params, records

PROCESSES = params.Workers(map="processes", count=2, address=None)


def settings(**changes) -> params.Params:
    """The studio's settings of a profile `tried`; changes are curate's, but for `usage` and `photos`."""
    full = params.read_yaml(Path(__file__).parents[1] / "profiles" / "studio.yaml")
    full["workers"]["map"] = "serial"
    full["photos"] |= changes.pop("photos", {})
    full["usage"] = changes.pop("usage", "research")
    full["curate"] |= {"validation_people": 1, "test_people": 2} | changes
    return params.parse({"profile": "tried", **full}, "test")


def table() -> list[dict]:
    return records.read("data/tried/curate/photos.parquet", records.PHOTO)
