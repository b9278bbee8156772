"""Everything that draws, in one folder that needs nothing of the project's data: what MLflow stores and serves."""

import importlib.metadata
import shutil
from pathlib import Path

from iy import imports, params
from iy.errors import UserError
from iy.faces.weights import WEIGHTS
from iy.generate.portrait import version
from iy.model.bundle import read_config
from iy.policy.rule import rules
from iy.storage import folder_sha256, write_json

SERVED = "iy.register.served"
LOOKED_FOR = {"sentencepiece"}  # at run time, by name: transformers reads T5's older tokenizers with it


def requirements(settings: params.Params) -> list[str]:
    """Installed versions of what the served code imports, without local tags such as +cpu."""
    carried = {source.removeprefix("module:") for source in (one.source for one in WEIGHTS.values()) if ":" in source}
    names = imports.packages([SERVED]) | carried
    if settings.faces.analyser != "insightface":
        names.discard("insightface")
    provides = importlib.metadata.packages_distributions()
    found = {distribution for name in names for distribution in provides.get(name, [])} | LOOKED_FOR
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in sorted(found, key=str.lower)]


def pack(bundle: Path, settings: params.Params, folder: Path) -> Path:
    """Fill `folder` with the bundle, the local base weights it stands on, the face pack and how to draw.

    Lists of people and signing keys stay where they are: they are read where the model runs.

    The base moves to `base-<hash>`, so that a served model never opens weights of the folder it happens to run in.
    """

    def taken(path: str) -> str:
        if not Path(path).is_dir():
            if path.startswith(("/", ".", "weights/")):
                raise UserError(f"{bundle} stands on {path}, which is not here: restore it, then run again")
            return path  # of a model hub, or in S3
        place = f"base-{folder_sha256(Path(path))[:16]}"
        shutil.copytree(path, folder / place, dirs_exist_ok=True)
        return place

    shutil.copytree(bundle, folder / "bundle")
    config = read_config(bundle)
    base = config["base"].moved(taken)
    parts = {"base": base, "model": config["model"]}
    write_json(
        folder / "bundle" / "config.json",
        config | {name: part.model_dump(mode="json", by_alias=True) for name, part in parts.items()},
    )
    faces, draws = settings.faces.model_dump(mode="json"), settings.draw
    if settings.faces.pack:
        shutil.copytree(settings.faces.pack, folder / "faces")
        faces["pack"] = "faces"
    write_json(
        folder / "settings.json",
        {
            "usage": settings.usage,
            "faces": faces,
            "limits": {"pixels": settings.photos.maximum_pixels, "side": settings.photos.maximum_side},
            "provenance": settings.provenance.model_dump(mode="json"),
            "policy": policy(settings),
            "model": {"name": settings.register_.name, "version": version(bundle)},
            "sha256": settings.digest(),
            "draws": {"steps": draws.steps, "guidance": draws.guidance, "identity_guidance": draws.identity_guidance},
        },
    )
    return folder


def policy(settings: params.Params) -> dict:
    """The rule with the threshold that was calibrated on these photos, which the package does not hold."""
    found = rules(settings)
    return {
        "settings": found.settings.model_dump(mode="json"),
        "recogniser": found.recogniser,
        "threshold": found.threshold,
    }
