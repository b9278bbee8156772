"""Everything that holds some photos, by name: what `iy trace` tells and `iy erase` takes away."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from iy.erasure import decisions, runs, tables, versions
from iy.erasure.tables import Table
from iy.erasure.versions import Place
from iy.tracking import connect


@dataclass(frozen=True)
class Found:
    """photos, pairs: ids. profiles: whose data hold them. objects: by place, DVC's objects that do. decisions: rows of
    the review's logs and of decision files, by file. runs, models: MLflow's, by id and by [name, version]."""

    names: list[str]
    photos: list[str]
    pairs: list[str]
    profiles: list[str]
    objects: dict[str, list[str]]
    decisions: dict[str, int]
    runs: list[str]
    models: list[list[str]]


def find(wanted: Sequence[str]) -> tuple[Found, Iterator[str]]:
    """What holds the photos that `wanted` mean, and the lines that tell it."""
    here, places = list(tables.here()), versions.places()
    older = [table for place in places for folder in place.folders for table in folder.tables]
    older += tables.unfinished()
    photos = tables.named(wanted, [*here, *older])
    pairs = tables.made_of(photos, [*here, *older])
    held = [table for table in [*here, *older] if table.holding(photos)]
    digests = {table.digest for table in held}
    client = connect()
    models, touched = runs.models(client, digests), runs.touched(client, digests)
    found = Found(
        list(wanted),
        sorted(photos),
        sorted(pairs),
        sorted({Path(table.place).parts[1] for table in here if table.holding(photos)}),
        {place.name: sorted(place.objects(photos)) for place in places},
        decisions.count(photos | pairs),
        [run.info.run_id for run in touched],
        [[one.name, one.version] for one in models],
    )
    near = {name: tables.nearly(name, [*here, *older], photos) for name in wanted}
    return found, chain(tell(found, held, places, models), tell_near(near))


def tell_near(near: dict[str, str]) -> Iterator[str]:
    """One line for each name that others are nearly like: they may be the same person in another spelling."""
    for name, others in near.items():
        if others:
            yield f"not meant by {name!r}, but nearly so called: {others}; name them too if they are the same person"


def tell(found: Found, held: list[Table], places: list[Place], models: list[runs.Model]) -> Iterator[str]:
    """One line for each photo and for each place that holds some."""
    photos = set(found.photos)
    every = [(one, row) for table in held for one, row in table.photos.items() if one in photos]
    rows = dict(every) | {one: row for one, row in every if row["person"]}  # curate's table says who, another may not
    for one in found.photos:
        row = rows[one]
        person = row["person"] or row["label"]
        yield f"photo {one} ({row['uri']})" + (f", person {person}" if person else "")
    for table in held:
        yield f"  {table.place}: {len(table.holding(photos))} rows"
    for place in places:
        if count := sum(any(table.holding(photos) for table in folder.tables) for folder in place.folders):
            yield f"  {place.name}: {count} versions of folders"
    for file, count in found.decisions.items():
        yield f"  {file}: {count} decisions"
    if found.runs:
        yield f"  MLflow: {len(found.runs)} runs of pipelines that read them"
    for model in models:
        yield f"  model {model}: made of data that held them"
