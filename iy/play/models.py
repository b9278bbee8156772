"""Which models the page offers (bundles, stages, what the registry calls champion and challenger), and opening them."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from iy.errors import UserError, one_line
from iy.params import Params

if TYPE_CHECKING:
    from iy.generate.portrait import Portraitist

OPEN = 2  # models in memory: those that stand side by side
STAGES = (4, 3, 2, 1)  # the last one draws best: it is offered first


@dataclass(frozen=True, slots=True)
class Choice:
    """A model to draw with. id: what requests call it; find: brings its bundle's folder; python: the same, in code."""

    id: str
    title: str
    find: Callable[[], Path]
    python: str
    champion: bool


def of_folder(folder: Path, title: str) -> Choice:
    return Choice(str(folder), title, lambda: folder, f"Path({str(folder)!r})", champion=False)


def on_disk(settings: Params, bundles: list[Path]) -> list[Choice]:
    """The bundles that were named, the profile's stages that have run, and the bundle that they began with."""
    for folder in bundles:
        if not is_bundle(folder):
            raise UserError(f"--bundle {folder} holds no finetuned model: it has no config.json")
    found = [of_folder(folder, str(folder)) for folder in bundles]
    stages = [(settings.bundle_dir(stage), f"stage {stage} of {settings.profile}") for stage in STAGES]
    if settings.finetune.pretrained:
        stages.append((Path(settings.finetune.pretrained), "pretrained, before any stage"))
    found += [of_folder(folder, title) for folder, title in stages if is_bundle(folder) and folder not in bundles]
    return found


def is_bundle(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def registered(settings: Params) -> list[Choice]:
    """The registry's champion and challenger; none where the project has no registry yet. Seconds: MLflow."""
    from iy.tracking.store import own_database

    own = own_database()
    if own is not None and not own.is_file():
        return []
    from iy.register.registry import CHALLENGER, CHAMPION, aliased
    from iy.tracking import connect

    client, name, found = connect(), settings.register_.name, dict[str, Choice]()
    for alias in (CHAMPION, CHALLENGER):
        version = aliased(client, name, alias)
        if version is not None and (number := str(version.version)) not in found:
            title, find = f"{alias}: version {number} of {name}", partial(bundle_of, client, name, number)
            python = f"bundle_of(connect(), {name!r}, {number!r})"
            found[number] = Choice(f"{name}/{number}", title, find, python, champion=alias == CHAMPION)
    return list(found.values())


def bundle_of(client: Any, name: str, version: str) -> Path:
    """The bundle of a registered version: where it lies on this machine, else brought to .iy/registered, once."""
    place = client.get_model_version_download_uri(name, version)
    parts = urlsplit(place)
    if parts.scheme in ("", "file") and Path(unquote(parts.path)).is_dir():
        return inside(Path(unquote(parts.path)), name, version)
    kept = Path(".iy", "registered", f"{name}-{version}")
    if not kept.is_dir():
        bring(place, kept)
    return inside(kept, name, version)


def bring(place: str, kept: Path) -> None:
    from mlflow.artifacts import download_artifacts

    from iy.storage import atomic_folder
    from iy.tracking import tracking_uri

    with atomic_folder(kept) as aside:
        download_artifacts(artifact_uri=place, dst_path=str(aside), tracking_uri=tracking_uri())


def inside(model: Path, name: str, version: str) -> Path:
    """The bundle in what was registered; see `iy.register.package`."""
    found = next(model.glob("**/artifacts/*/bundle"), None)
    if found is None:
        raise UserError(f"version {version} of {name} holds no bundle: it was not registered by iy")
    return found


class Models:
    """The choices, of which the last few used are open. champion: does a page begin with it where there is one?"""

    def __init__(self, settings: Params, choices: list[Choice], champion: bool) -> None:
        self.settings, self.champion, self.lock = settings, champion, threading.RLock()
        self.choices = {choice.id: choice for choice in choices}
        self.opened: dict[str, Portraitist] = {}  # in the order of use

    def look(self) -> list[Choice]:
        """Every choice, the registry's included."""
        try:
            found = registered(self.settings)
        except UserError:
            raise
        except Exception as error:  # MLflow's are of many kinds
            raise UserError(f"the registry does not tell its models, others can be used: {one_line(error)}") from None
        self.choices |= {choice.id: choice for choice in found}
        return list(self.choices.values())

    def warm(self) -> None:
        """Open the first choice meanwhile, so that pictures wait less; its faults are told when it is used."""

        def work() -> None:
            with contextlib.suppress(UserError):
                self.open(next(iter(self.choices)))

        threading.Thread(target=work, daemon=True).start()

    def choice(self, key: str) -> Choice:
        if key not in self.choices:
            raise UserError(f"there is no model {key!r} to draw with: load the page again")
        return self.choices[key]

    def open(self, key: str) -> "Portraitist":
        """The model, ready to draw; another one is let go where there are too many."""
        choice = self.choice(key)
        with self.lock:
            if key not in self.opened and len(self.opened) == OPEN:
                del self.opened[next(iter(self.opened))]
            self.opened[key] = self.opened.pop(key, None) or self.made(choice)
            return self.opened[key]

    def made(self, choice: Choice) -> "Portraitist":
        from iy.generate.portrait import open_artist  # seconds: torch

        beside = next(reversed(self.opened.values()), None)
        return open_artist(choice.find(), self.settings, beside)


def crop_kind(artist: "Portraitist") -> tuple:
    """What decides the crop of a photograph: models alike in it read the same."""
    return artist.size, artist.model.crop_margin, artist.model.mask_face
