"""The `iy` command. Each command imports what it needs when it runs, so that `iy --help` answers at once."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from iy.bench.commands import bench
from iy.erasure.commands import erase, trace
from iy.errors import UserError
from iy.plan.commands import plan
from iy.play.commands import play
from iy.policy.commands import policy
from iy.provenance.commands import provenance
from iy.rehearse.commands import rehearse
from iy.review.commands import review

if TYPE_CHECKING:
    from iy.params import Params

app = typer.Typer(
    name="iy",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Portraits of one particular person, from one photograph and a prompt.",
)

app.add_typer(bench, name="bench")
app.add_typer(review, name="review")
app.add_typer(policy, name="policy")

Profile = Annotated[
    str | None, typer.Option("--profile", "-p", help="Settings to use; else the profile that params.yaml names.")
]


def main(arguments: list[str] | None = None) -> None:
    """A mistake of the user is one line and exit code 2; Ctrl-C is 130; anything else is a bug and shows its traceback.

    `arguments`: those of the shell if not given.
    """
    from iy.process import set_environment

    set_environment()
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # the flows of this folder, when `iy` is installed elsewhere
    try:
        app(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


@app.command()
def run(
    profile: Profile = None,
    photos: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Your own photographs: a folder (a sub-folder per person, or none), s3://bucket/folder, tars, or a "
            "table. Sets photos.source, .path and .snapshot.",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting for this run only, such as finetune.stages.4.steps=40.",
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage and what it needs.")] = None,
    force: Annotated[bool, typer.Option(help="Run also what has not changed.")] = False,
) -> None:
    """Photos to registered model: every stage that is not up to date. Another profile or settings become a DVC
    experiment."""
    from iy import params

    params.load(profile)  # a wrong setting is told before anything starts
    flows = project_flows()
    flows.environment.prepare()
    sys.exit(flows.command.run(profile, photos, change or [], stage, force))


def project_flows() -> ModuleType:
    """The Prefect side, which lives in the project's own folder."""
    try:
        import flows.command
        import flows.environment
    except ModuleNotFoundError as error:
        if error.name not in ("flows", "prefect"):
            raise
        raise UserError(f"{error.name} is not here: run from the project folder, after `make install`") from None
    return flows


@app.command()
def generate(
    reference: Annotated[Path | None, typer.Option(help="A photograph of one person.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the picture shows.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="A picture a row instead: CSV, JSON lines or parquet with reference or person, and prompt."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="A finetuned model; else stage 4 of the profile.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The PNG to write, else portrait.png; several are numbered. With --table the folder, else of the "
            "table's name."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="How many pictures.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="The first picture's seed; the others follow. With --table of rows without one.")
    ] = 0,
    profile: Profile = None,
) -> None:
    """Draw the person in a photograph, or a table's people by the thousand."""
    from iy import params

    settings = params.load(profile)
    folder = bundle or settings.bundle_dir(4)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no finetuned model: make one with `iy run`, or name one with --bundle")
    if table is not None:
        if reference is not None or prompt is not None or count != 1:
            raise UserError("--table says who, what and how many: leave --reference, --prompt and --count out")
        generate_table(settings, folder, table, out or Path(table.stem), seed)
        return
    if reference is None or prompt is None:
        raise UserError("give --reference and --prompt, or --table")
    if not reference.is_file():
        raise UserError(f"--reference {reference}: there is no such file")
    if not prompt.strip():
        raise UserError("--prompt is empty: say what the picture shows")
    from iy.generate import portrait  # seconds: torch

    numbers = range(seed, seed + count)
    for path in portrait.draw_files(folder, settings, reference, prompt, numbers, out or Path("portrait.png")):
        print(path)


def generate_table(settings: "Params", bundle: Path, table: Path, out: Path, seed: int) -> None:
    from iy.jobs.run import draw_table

    done = draw_table(settings, bundle, table, out, seed)
    count = done.drawn + done.kept
    before = f", {done.kept} of them by an earlier run" if done.kept else ""
    why = " (pictures.parquet says why)" if done.refused else ""
    print(f"{out}: {count} of {count + len(done.refused)} rows drawn{before}{why}; see {done.sheets[0].name}")


@app.command()
def push(place: Annotated[str, typer.Argument(help="s3://bucket/folder")], profile: Profile = None) -> None:
    """Send stage 4's model and the reports to S3; what is there already is not sent again."""
    from iy import params, transfer

    files, sent = transfer.push(params.load(profile), place)
    print(f"{place}: {files} files, {sent} of them new")


@app.command()
def pull(
    place: Annotated[str, typer.Argument(help="s3://bucket/folder, where `iy push` sent a model.")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
) -> None:
    """Bring a pushed model and its reports back, every file checked against its hash."""
    from iy import transfer

    print(f"{out}: {transfer.pull(place, out)} files; draw with `iy generate --bundle {out}/models/…`")


app.command()(play)
app.command()(provenance)
app.command()(rehearse)
app.command()(plan)
app.command()(trace)
app.command()(erase)


@app.command()
def params(
    profile: Annotated[str | None, typer.Argument(help="A profile; else the one that params.yaml names.")] = None,
) -> None:
    """The resolved settings, as YAML, with their hash."""
    import yaml

    from iy import params as settings

    found = settings.load(profile)
    print(f"# sha256 {found.digest()}")
    print(yaml.safe_dump(found.resolved(), sort_keys=False, allow_unicode=True, width=120), end="")


@app.command()
def doctor() -> None:
    """What this machine and this folder have, what is missing, and what to do about it.

    Exit code 1 when something needed is missing.
    """
    from iy.doctor import examine, show

    sys.exit(show(examine()))


@app.command()
def weights() -> None:
    """Fetch the face models that no installed package carries (about 50 MB, once)."""
    from iy.faces.weights import WEIGHTS, fetch, folder, path

    fetch(list(WEIGHTS))
    for name in WEIGHTS:
        path(name)
    print(f"all {len(WEIGHTS)} face models are present and checked; fetched ones are in {folder()}")


@app.command()
def studio(
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("studio.png"),
    people: Annotated[int, typer.Option(min=1)] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    size: Annotated[int, typer.Option(min=32)] = 128,
) -> None:
    """A contact sheet of studio people: one row each, every expression once."""
    from iy.studio.__main__ import sheet

    sheet(people, seed, size).save(out)
    print(out)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def ui(context: typer.Context) -> None:
    """Prefect and MLflow in the browser, with the flows ready to run. Ctrl-C ends them."""
    project_flows().environment.prepare()
    from flows import ui as services

    services.main(context.args)


if __name__ == "__main__":
    main()
