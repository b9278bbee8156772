"""How many of everything a collection comes to: people, examples, pairs, pictures."""

from typing import NamedTuple

from iy import params, records
from iy.evaluate.benchmark import STAGES

SHARD = 256  # pairs of SynPairs, and cells of the benchmark, that are drawn and kept together


class Counts(NamedTuple):
    photos: int
    accepted: int  # of all splits
    people: int
    train: int  # accepted photos of the train split
    validation: int
    pairs: int
    drawn: int  # pictures of the benchmark, all models, those that fill up batches among them


def estimate(settings: params.Params, photos: int, per_person: float, kept: float) -> Counts:
    """per_person: photos of one; kept: share that curation accepts."""
    curate, evaluate = settings.curate, settings.evaluate
    people = max(1, round(photos / per_person))
    accepted, each = round(photos * kept), per_person * kept
    test = min(curate.test_people, max(0, people - 2))
    held = min(curate.validation_people, max(0, people - 2 - test))
    learning = max(1, people - held - test)
    models = 1 + len(STAGES) + (settings.finetune.init == "pretrained")
    cells = min(evaluate.people, test) * evaluate.prompts * evaluate.seeds
    drawn = models * filled(cells, evaluate.batch) + filled(evaluate.together, evaluate.batch)
    pairs = learning * settings.synpairs.pairs_per_person
    return Counts(photos, accepted, people, round(learning * each), round(held * each), pairs, drawn)


def filled(count: int, batch: int) -> int:
    """Pictures that are drawn for so many: shard by shard, and each batch of a shard is filled up."""
    whole, rest = divmod(count, SHARD)
    return batch * (whole * -(-SHARD // batch) + -(-rest // batch))


def seen(settings: params.Params) -> tuple[float, float] | None:
    """Photos of one person and the share that was kept, of this profile's last curation; None before it."""
    table = settings.data_dir("curate") / "photos.parquet"
    if not table.exists():
        return None
    rows = records.read(table, records.PHOTO, ["person", "verdict"])
    people = {row["person"] for row in rows if row["person"]}
    accepted = sum(row["verdict"] == records.ACCEPTED for row in rows)
    return (len(rows) / len(people), accepted / len(rows)) if people else None


def examples(settings: params.Params, counts: Counts, stage: params.Finetuning) -> int:
    """What a finetuning stage trains on."""
    number = counts.train if stage.data == "real" else counts.pairs
    share = settings.select.real_share if stage.data == "real" else settings.select.pair_share
    return max(1, round(number * share)) if stage.set == "selected" else number
