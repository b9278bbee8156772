"""`iy review`: the page; `iy review export` and `import`: its judgements out and in."""

from pathlib import Path
from typing import Annotated

import typer

from iy.errors import UserError
from iy.review.place import HOST, PORT, address, log_path

review = typer.Typer(
    invoke_without_command=True, help="Choose the photos and pairs of stages 3 and 4 by eye, on a local page."
)
Profile = Annotated[
    str | None, typer.Option("--profile", "-p", help="Settings to use; else the profile that params.yaml names.")
]


@review.callback()
def serve(
    context: typer.Context,
    profile: Profile = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only.")] = PORT,
) -> None:
    """Open a page on this machine: reference beside candidate; a accepts, r or a number rejects, u takes back."""
    if context.invoked_subcommand:
        return
    from iy import params, web
    from iy.review.log import Log
    from iy.review.server import application
    from iy.review.things import Things

    settings = params.load(profile)
    path, listening = log_path(settings.profile), web.listen(HOST, port)
    app = application(Things(settings), Log(path), {f"{HOST}:{port}", f"localhost:{port}"})
    print(f"Review on {address(port)}   every judgement goes to {path}   Ctrl-C ends it", flush=True)
    web.run(app, listening)


def of_either(context: typer.Context, profile: str | None) -> str | None:
    """`--profile` may stand before the sub-command or after it."""
    assert context.parent is not None
    return profile or context.parent.params["profile"]


@review.command()
def left(context: typer.Context, profile: Profile = None) -> None:
    """How many of the photos and pairs that the machine accepted nobody has decided; exit code 1 if there are some."""
    from iy import params
    from iy.review import verdicts
    from iy.review.log import Log
    from iy.review.things import Things

    settings = params.load(of_either(context, profile))
    things = [key for key, thing in Things(settings).by_id.items() if thing.row["verdict"] == "accepted"]
    decided = {one.id for one in verdicts.settled(Log(log_path(settings.profile)).judged)[0]}
    open_ones = sum(key not in decided for key in things)
    print(f"{open_ones} of {len(things)} photos and pairs are not decided")
    raise typer.Exit(open_ones > 0)


@review.command()
def export(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Argument(
            help=".csv: what select.decisions names; .json: for Label Studio; decisions/<profile>.csv if not given."
        ),
    ] = None,
    profile: Profile = None,
) -> None:
    """Write the majority's decisions (ties are left to the ranking), or every judgement as Label Studio tasks."""
    from iy import params
    from iy.review import labelstudio, verdicts
    from iy.review.log import Log

    settings = params.load(of_either(context, profile))
    path = log_path(settings.profile)
    if not path.exists():
        raise UserError(f"{path} does not exist: nobody has judged anything yet; start with `iy review`")
    judged, out = Log(path).judged, out or Path("decisions", f"{settings.profile}.csv")
    if out.suffix == ".json":
        from iy.review.things import Things

        count = labelstudio.export(judged, Things(settings), out)
        print(f"{out}: {count} tasks, for Label Studio's import")
        return
    decided, tied = verdicts.export(judged, out)
    print(
        f"{out}: {decided} decided, {tied} tied and left to the ranking. Use them: iy run --set select.decisions={out}"
    )


@review.command("import")
def take(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help=".csv or .parquet of decisions; .json: Label Studio's export.")],
    profile: Profile = None,
) -> None:
    """Add judgements from a file to the review's log."""
    from iy import params
    from iy.review import labelstudio, verdicts
    from iy.review.log import Log

    settings = params.load(of_either(context, profile))
    found = labelstudio.load(file) if file.suffix == ".json" else verdicts.load(file)
    Log(log_path(settings.profile)).add(*found)
    print(f"{len(found)} judgements added to {log_path(settings.profile)}")
