"""`iy trace` and `iy erase`."""

from pathlib import Path
from typing import Annotated

import typer

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Photos (id, or where it came from) or persons (as the source or curate names them)."),
]


def trace(names: Names = None) -> None:
    """Where a photo or a person's photos went: data, pairs, older versions, decisions, runs, models."""
    from iy.erasure.find import find
    from iy.errors import UserError

    if not names:
        raise UserError("name a photo or a person")
    _, lines = find(names)
    for line in dict.fromkeys(lines):  # one place may hold several of the photos
        print(line)


def erase(
    names: Names = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    block: Annotated[
        bool,
        typer.Option("--block", help="Keep what was read of their faces, to refuse drawing them from other photos."),
    ] = False,
) -> None:
    """Take photos out of everything that holds them, for good, and never use them again. Models are only tagged."""
    from iy.erasure import erase as erasing

    found, lines = erasing.plan(names or [])
    for line in lines:
        print(line)
    print("would do:" if dry_run else "to do:")
    for step in erasing.steps(found):
        print(f"  {step.what}")
    if dry_run:
        return
    if not yes:
        typer.confirm("Nothing of this can be undone. Go on?", abort=True)
    if block:
        from iy import params
        from iy.policy.adding import block_erased

        print(f"block list: {block_erased(Path(params.load().policy.people), found.photos)} faces, without a name")
    print(f"done: {erasing.erase(found)}; `iy run` makes the data again without them. Not touched:")
    for one in erasing.LEFT:
        print(f"  {one}")
