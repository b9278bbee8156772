"""The configurations of the models that profiles name: published ones kept here, others from their own folders.

`published.json` holds, by `path/subfolder`, what each model's config.json says of its shape (nothing of its weights),
how many parameters it has, and by path the licence of the weights. So a rehearsal downloads nothing.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from iy import params
from iy.errors import UserError

TABLE = Path(__file__).with_name("published.json")
DTYPES = ("dtype", "torch_dtype")  # of the weights in a file, which are not read
CONFIGURATION = ("config.json", "scheduler_config.json", "preprocessor_config.json")


@cache
def table() -> dict[str, dict[str, Any]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def place(part: params.Component) -> str:
    return f"{part.path}/{part.subfolder}" if part.subfolder else part.path


def configuration(part: params.Component, key: str) -> dict[str, Any]:
    """What shapes the model: of the folder that `part` names where it is here, else as it was published."""
    folder = Path(place(part))
    for name in CONFIGURATION[:2]:
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    if found := table()["parts"].get(place(part)):
        return found["config"]
    raise UserError(
        f"base.{key}: the shape of {place(part)} is not known: name a folder with its config.json, or one of "
        f"{sorted(table()['parts'])}"
    )


def normalisation(part: params.Component) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour of the vision tower's pictures."""
    file = Path(place(part), CONFIGURATION[2])
    known = table()["parts"].get(place(part), {}).get("preprocessor")
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else known
    if not found:
        raise UserError(f"base.vision: {place(part)} lacks a preprocessor_config.json with image_mean and image_std")
    return tuple(found["image_mean"]), tuple(found["image_std"])


def licence(path: str) -> str | None:
    """Of published weights; None where this project does not know it."""
    return table()["licences"].get(path)


def model(library: Any, part: params.Component, key: str) -> nn.Module:
    """The part in its own class, weights as the class draws them, on torch's current device and in its dtype."""
    kind = getattr(library, part.cls, None)
    if kind is None:
        raise UserError(f"base.{key}: {library.__name__} has no class {part.cls!r}: name one that it has")
    said = configuration(part, key).items()
    config = {name: value for name, value in said if name not in DTYPES and not name.startswith("_")}
    try:
        if hasattr(kind, "from_config") and not hasattr(kind, "config_class"):
            return kind.from_config(config).eval()
        return kind(kind.config_class(**config)).eval()
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"base.{key}: {place(part)} is no configuration of a {part.cls}: {error}") from None
