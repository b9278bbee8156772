"""Everything that `python -m foundation.stage1` needs on a machine without network or renderer, in one or two tars.

    python -m foundation.pack PACK --people 6000            # PACK/stage1-0.tar.gz and stage1-1.tar.gz

Renders first, in chunks of a hundred people: killed and started again, it goes on after the last whole chunk. Then it
packs code, foundation, dlib's network (half precision), the wheels of what the machine lacks, the held-out people and
as many others as fit into --limit mebibytes a tar. stage1-0.tar.gz alone is complete; the second one adds people.
"""

import argparse
import logging
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from foundation import album, perceptual, renders
from foundation.recipe import GROUPS
from foundation.renders import Group
from iy import git, params
from iy.errors import UserError
from iy.storage import atomic_path

CODE = ("foundation", "iy", "profiles", "params.yaml")
PARTS = ("foundation", "identity", "CARD.json")  # of the weights: probes judge, they are not needed there
WORK = Path(".iy/foundation")
# What a machine with torch, transformers, peft, accelerate, OpenCV, onnxruntime and scikit-learn may still lack.
WHEELS = ("diffusers", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "pillow-heif")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MARGIN = 256 * 1024  # bytes that are still on their way into the tar, or close it
log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("out", type=Path)
    made.add_argument("--people", type=int, default=GROUPS["people"].people, help="with one photo each, to learn from")
    made.add_argument("--held", type=int, default=GROUPS["held"].people, help="held-out people, to draw and measure")
    made.add_argument("--parts", type=int, choices=(1, 2), default=2)
    made.add_argument("--limit", type=float, default=60.0, help="MiB of a tar at most")
    made.add_argument("--weights", type=Path, default=Path("weights/text-only"))
    made.add_argument("--python", default="3.12", help="version on the machine, for compiled wheels")
    made.add_argument("--processes", type=int, default=2, help="that render")
    return made


def main() -> None:
    options = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        run(options)
    except UserError as error:
        raise SystemExit(str(error)) from None


def run(options: argparse.Namespace) -> None:
    groups = {
        "held": GROUPS["held"]._replace(people=options.held),
        "people": GROUPS["people"]._replace(people=options.people),
    }
    workers = params.Workers(map="processes", count=options.processes, address=None)
    for group in groups.values():
        renders.make(WORK / "renders", group, workers)
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        files = [*code(), *foundation_files(options.weights), *wheels(options.python), dlib(Path(place))]
        held = [pair for chunk in groups["held"].chunks() for pair in photos(chunk, "held", Path(place))]
        chunks = list(groups["people"].chunks())
        limit = int(options.limit * 2**20) - MARGIN
        for part in range(options.parts):
            chunks = fill(
                options.out / f"stage1-{part}.tar.gz", [] if part else files + held, chunks, limit, Path(place)
            )
    if chunks:
        log.info("%d people did not fit: --parts 2, or a higher --limit", sum(chunk.people for chunk in chunks))


Files = list[tuple[Path, str]]  # where a file lies, and its name in the tar


def code() -> Files:
    """What git tracks of the code, as it lies here."""
    listed = git.ask("ls-files", "-z", "--", *CODE)
    if not listed:
        raise UserError("the code is packed as git lists it: run this in a clone")
    names = [name for name in listed.split("\0") if name]
    return [(Path(name), name) for name in names]


def foundation_files(weights: Path) -> Files:
    """The frozen foundation, under the name that stage 1 opens by default."""
    found = [path for part in PARTS for path in sorted([weights / part, *(weights / part).rglob("*")])]
    files = [(path, f"weights/text-only/{path.relative_to(weights)}") for path in found if path.is_file()]
    if not any(path.suffix == ".safetensors" for path, _ in files):
        raise UserError(
            f"{weights} holds no foundation: name a folder that `python -m foundation` wrote with --weights"
        )
    return files


def dlib(place: Path) -> tuple[Path, str]:
    perceptual.pack(place / "dlib.safetensors")
    return place / "dlib.safetensors", "dlib.safetensors"


def wheels(python: str) -> Files:
    """Of the versions that are installed here; kept from one packing to the next."""
    folder = WORK / f"wheels-{python}"
    wanted = [f"{name}=={version(name)}" for name in WHEELS]
    have = {"-".join(path.name.split("-")[:2]).lower().replace("_", "-") for path in folder.glob("*.whl")}
    missing = [one for one in wanted if one.replace("==", "-") not in have]
    if missing:
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", *platforms, "-d", str(folder), *missing]
        if subprocess.run(command).returncode:
            raise UserError(f"pip could not fetch {', '.join(missing)} for Python {python}: see above")
    return [(path, f"wheels/{path.name}") for path in sorted(folder.glob("*.whl"))]


def photos(chunk: Group, group: str, place: Path) -> Files:
    made = renders.chunk_path(WORK / "renders", chunk)
    return [(path, f"photos/{group}/{path.name}") for path in album.write(place / group, chunk, made)]


def fill(path: Path, files: Files, chunks: list[Group], limit: int, place: Path) -> list[Group]:
    """Write a tar of `files` and as many chunks of people as it may still hold; the chunks that are left."""
    people, rest = 0, list(chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as aside, open(aside, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for file, name in tqdm(files, "packing"):
            tar.add(file, name)
        if raw.tell() > limit:
            raise UserError(f"{path.name}: {raw.tell() / 2**20:.1f} MiB before the first person: raise --limit")
        while rest:
            found = photos(rest[0], "people", place)
            if raw.tell() + sum(padded(file) for file, _ in found) > limit:  # pictures do not get smaller
                break
            for file, name in found:
                tar.add(file, name)
                file.unlink()
            people += rest.pop(0).people
    log.info("%s: %.1f MiB, %d people to learn from", path, path.stat().st_size / 2**20, people)
    return rest


def padded(file: Path) -> int:
    """Bytes of a file in a tar: a header and whole blocks."""
    return 512 + -(-file.stat().st_size // 512) * 512


if __name__ == "__main__":
    main()
