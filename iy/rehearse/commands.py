"""`iy rehearse`: what of a profile would fail, before the machines for it are there."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from iy.rehearse.checks import Finding

Profile = Annotated[
    str | None, typer.Option("--profile", "-p", help="Settings to rehearse; else the profile that params.yaml names.")
]


def rehearse(
    profile: Profile = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Rehearse with another setting, such as usage=commercial."),
    ] = None,
    card: Annotated[float | None, typer.Option("--memory", help="GB of one GPU; else this machine's, or 80.")] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Count with gradient checkpointing of the U-Net.")
    ] = False,
    whole: Annotated[
        bool | None,
        typer.Option("--whole/--shapes", help="Run every stage, or count shapes; else by whether there is a GPU."),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="With --whole: a folder of photographs, a sub-folder a person; else rendered.")
    ] = None,
) -> None:
    """Every stage at the profile's real sizes with random weights: what would fail, and where. Downloads nothing.

    Shapes are counted on any machine; with a GPU every stage then runs, two steps each. Exit code 1 if something fails.
    """
    from iy import overrides, params
    from iy.device import memory_gb, torch_has_gpu
    from iy.rehearse.shapes import rehearse as on_shapes

    settings = overrides.apply(params.load(profile), change or [])
    failed = told(on_shapes(settings, card or memory_gb() or 80.0, checkpointing))
    if not failed and (torch_has_gpu() if whole is None else whole):
        from iy.rehearse.whole import rehearse as in_earnest

        failed = told(in_earnest(settings, photos))
    print(f"{failed} thing(s) would fail" if failed else "the rehearsal ends well")
    raise typer.Exit(int(failed > 0))


def told(findings: "Iterable[Finding]") -> int:
    """Print each as it is found; how many fail."""
    failed = 0
    for found in findings:
        print(found, flush=True)
        failed += found.state == "fails"
    return failed
