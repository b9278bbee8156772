"""`iy policy add`, `remove` and `show`."""

from pathlib import Path
from typing import Annotated

import typer

policy = typer.Typer(
    no_args_is_help=True, help="Whose face may be drawn: people who allowed it, and who must never be."
)
Profile = Annotated[str | None, typer.Option("--profile", "-p", help="Settings to use; else params.yaml's.")]


@policy.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What this person is called on the list.")],
    photos: Annotated[list[Path], typer.Argument(help="Photographs of them, one face each; none is kept.")],
    block: Annotated[bool, typer.Option("--block", help="Never to be drawn; else they allow it.")] = False,
    profile: Profile = None,
) -> None:
    """Put somebody on a list, by what the recogniser reads of their face."""
    from iy import params
    from iy.policy.adding import read_faces
    from iy.policy.people import ALLOWED, BLOCKED

    person = read_faces(params.load(profile), name, photos, BLOCKED if block else ALLOWED)
    print(f"{person.name}: {person.kind}, known by {len(person.faces)} photograph(s)")


@policy.command("remove")
def remove(name: Annotated[str, typer.Argument(help="As `iy policy show` has it.")], profile: Profile = None) -> None:
    """Take somebody off the lists, with all that was kept of their face."""
    from iy import params
    from iy.policy import people

    people.remove(Path(params.load(profile).policy.people), name)
    print(f"{name}: removed")


@policy.command("show")
def show(profile: Profile = None) -> None:
    """The rule and who is on the lists."""
    from iy import params
    from iy.policy import people

    settings = params.load(profile).policy
    listed = people.read(Path(settings.people))
    rule = (
        "only allowed people may be drawn" if settings.faces == "listed" else "anybody but blocked people may be drawn"
    )
    print(f"{people.place(Path(settings.people))}: {rule} (policy.faces: {settings.faces})")
    for one in sorted(listed, key=lambda one: (one.kind, one.name)):
        print(f"  {one.kind:<8} {one.name}  ({len(one.faces)} photograph(s), since {one.added})")
