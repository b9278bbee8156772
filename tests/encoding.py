"""A small collection to encode: photographs of noise, written as curate and synpairs would."""

from pathlib import Path

import numpy as np

from iy import records, storage
from iy.params import Params, parse
from tests.tiny import tiny_settings


def settings(base: Path, **finetune: object) -> Params:
    value = tiny_settings(base)
    value["workers"]["map"] = "serial"
    value["finetune"] |= finetune
    value["finetune"]["training"] |= {"batch": 4}
    return parse(value, "tests/encoding.py")


def collection(wanted: Params, people: int = 5, each: int = 4, sizes: tuple = ((64, 64), (96, 60), (48, 80))) -> None:
    """`each` photos of all people, of some sizes (height, width); the last person validates. A pair of each photo."""
    rng = np.random.default_rng(0)
    photos = [photo(rng, person, number, sizes) for person in range(people) for number in range(each)]
    for row in photos:
        row["split"] = "validation" if row["person"] == f"p{people - 1}" else "train"
    shard(wanted.photos_dir, photos)
    records.write(wanted.data_dir("curate") / "photos.parquet", known(photos, records.PHOTO), records.PHOTO)
    records.write(wanted.data_dir("select") / "real.parquet", known(photos[1::3], records.PHOTO), records.PHOTO)
    pairs = [pair(rng, row) for row in photos]
    shard(wanted.data_dir("synpairs"), pairs)
    records.write(wanted.data_dir("synpairs") / "pairs.parquet", known(pairs, records.PAIR), records.PAIR)


def photo(rng: np.random.Generator, person: int, number: int, sizes: tuple) -> dict:
    height, width = sizes[(person + number) % len(sizes)]
    x, y = rng.integers(4, width - 28), rng.integers(4, height - 32)
    return {
        "image": rng.integers(0, 256, (height, width, 3), np.uint8),
        "id": f"photo{person}{number}",
        "person": f"p{person}",
        "caption": f"person {person} shot {'again ' * number}",
        "box": [float(x), float(y), float(x + 24), float(y + 28)],
        "landmarks": [float(v) for v in (x + 6, y + 8, x + 18, y + 8, x + 12, y + 14, x + 8, y + 20, x + 16, y + 20)],
        "verdict": records.ACCEPTED,
        "attributes": "{}",
    }


def pair(rng: np.random.Generator, reference: dict) -> dict:
    return {
        "image": rng.integers(0, 256, (64, 64, 3), np.uint8),
        "id": f"pair-{reference['id']}",
        "verdict": records.ACCEPTED,
        "reference": reference["id"],
        "person": reference["person"],
        "caption": f"{reference['caption']} smiling",
    }


def shard(folder: Path, rows: list[dict]) -> None:
    files = [(f"{row['id']}.png", storage.png(row["image"])) for row in rows]
    for row, member in zip(rows, storage.write_shard(folder / "00000.tar", files), strict=True):
        row |= member._asdict()


def known(rows: list[dict], schema) -> list[dict]:
    return [{name: value for name, value in row.items() if name in schema.names} for row in rows]


def encoded(folder: Path = Path()) -> dict[str, bytes]:
    """Every shard below `.iy/encoded`."""
    place = folder / ".iy" / "encoded"
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
