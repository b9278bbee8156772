"""Where an unfinished stage keeps what is done, named by everything that decides it.

What other code, other settings or other data made is never taken for it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from iy import imports
from iy.errors import UserError
from iy.params import Params
from iy.storage import file_sha256, folder_digest, sha256

# Code that changes no result: how a stage is started, shared out, followed and named.
WITHOUT_EFFECT = (
    "iy/device.py",
    "iy/errors.py",
    "iy/git.py",
    "iy/imports.py",
    "iy/process.py",
    "iy/project.py",
    "iy/resume.py",
    "iy/stage.py",
    "iy/tracking/",
    "iy/workers.py",
)


def work_folder(
    settings: Params, stage: str, sections: Iterable[str], inputs: Iterable[Any], code: Iterable[str]
) -> Path:
    """`.iy/resume/<profile>/<stage>-<hash>`.

    sections: the settings that decide, as `faces` or `curate.captioner`; inputs: files and folders that are read, as
    paths, and anything else that JSON takes; code: the modules that make what is kept, which stand for all that they
    import.
    """
    values = settings.resolved()
    key = [{name: setting(values, name) for name in sections}, [content(one) for one in inputs], code_digest(code)]
    return Path(".iy", "resume", settings.profile, f"{stage}-{digest(key)}")


def place(work: Path, name: str, models: Sequence[str], settings: object) -> Path:
    """`<work>/<name>-<hash>` of the settings and of the models, those that lie here with their files."""
    return (
        work
        / f"{name}-{digest([[content(Path(model)) if Path(model).exists() else model for model in models], settings])}"
    )


def setting(values: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def content(one: Any) -> Any:
    if not isinstance(one, Path):
        return one
    if one.is_dir():
        return folder_digest(one)
    if not one.exists():
        raise UserError(f"{one} does not exist: run the stage that writes it first (dvc repro)")
    return file_sha256(one)


def code_digest(modules: Iterable[str]) -> str:
    """Of the project's code that the modules reach, but what changes no result."""
    files = {path.relative_to(imports.ROOT).as_posix(): path for path in imports.reached(modules)}
    return sha256(
        "\n".join(f"{name} {file_sha256(path)}" for name, path in sorted(files.items()) if decides(name)).encode()
    )


def decides(file: str) -> bool:
    return not file.startswith(WITHOUT_EFFECT)


def digest(key: object) -> str:
    return sha256(json.dumps(key, sort_keys=True).encode())[:16]
