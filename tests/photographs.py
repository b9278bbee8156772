"""Small photographs, as bytes and in tars, and what a source makes of them."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from iy import params
from iy.photos import folder, table, tars


def settings(**photos) -> params.Params:
    full = params.read_yaml(Path(__file__).parents[1] / "profiles" / "studio.yaml")
    full["photos"] |= {"licence": "CC0-1.0", "consent": "test"} | photos
    return params.parse({"profile": "tried", **full}, "test")


def taken(photos_of: Callable, **photos) -> list[dict]:
    """The rows of the photos that a source gives with these settings."""
    chosen = settings(**photos)
    return [photo.row for photo in photos_of(chosen.photos, chosen.workers)]


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """Dark on the left, red grows to the right, green grows downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 60)], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(shade: int) -> bytes:
    return encoded(Image.fromarray(np.full((30, 20, 3), shade, np.uint8)), "PNG")


def tar_of(path: Path, *members: tuple[str, bytes]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def of_folder(root: Path) -> dict[str, dict]:
    """The rows of a folder's photos, by their place."""
    return {row["uri"]: row for row in taken(folder.photos, source="folder", path=str(root))}


def of_tars(root: Path) -> dict[str, dict]:
    return {row["uri"]: row for row in taken(tars.photos, source="webdataset", path=str(root))}


def of_table(path: Path) -> list[dict]:
    return taken(table.photos, source="table", path=str(path))


def laid(root: Path, *names: str) -> None:
    """Photos, each with its own shade."""
    for shade, name in enumerate(names):
        say(root, name, picture(shade))


def say(root: Path, name: str, value: object) -> None:
    """A file that holds the bytes, or the JSON of a value."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
