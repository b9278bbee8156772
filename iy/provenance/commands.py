"""`iy provenance FILE`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from iy.provenance.read import Said

STATES = {
    "own": "signed by the key of these settings, and unchanged since",
    "signed": "signed, and unchanged since; by somebody whom these settings do not know",
    "changed": "changed or damaged since it was signed",
    "unsigned": "nothing is signed",
}


def provenance(
    file: Annotated[Path, typer.Argument(help="A picture.")],
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Whose certificate is known as own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """What a picture says of who drew it, and whether it was changed. Exit code 1 unless it is signed and unchanged."""
    from iy import params
    from iy.pictures import Limits
    from iy.provenance.read import read

    settings = params.load(profile)
    limits = Limits(settings.photos.maximum_pixels, settings.photos.maximum_side)
    found = read(file, settings.provenance, limits)
    print(json.dumps(found.json(), indent=1, ensure_ascii=False) if as_json else "\n".join(lines(file, found)))
    sys.exit(0 if found.state in ("own", "signed") else 1)


def lines(file: Path, found: "Said") -> list[str]:
    told = [f"{file}: {STATES[found.state]}", *(f"  because   {fault}" for fault in found.faults)]
    rows = {
        "source": found.source,
        "model": found.model,
        "program": found.program,
        "time": found.time,
        "says": found.description,
        "signed by": found.signer,
        "XMP": found.xmp and f"{found.xmp.rpartition('/')[2]} (unsigned: anybody can write or remove it)",
        "watermark": {True: "ours", False: "none", None: None}[found.watermark],
    }
    return told + [f"  {name:<9} {value}" for name, value in rows.items() if value]
