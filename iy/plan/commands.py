"""`iy plan`: what a run of so many photos takes, before it begins."""

from typing import Annotated

import typer

Profile = Annotated[
    str | None, typer.Option("--profile", "-p", help="Settings to plan for; else the profile that params.yaml names.")
]


def plan(
    photos: Annotated[int, typer.Option(min=1, help="How many photographs.")],
    profile: Profile = None,
    gpu: Annotated[str, typer.Option(help="h100, h200, or `here`: as --measure found this machine.")] = "here",
    gpus: Annotated[int, typer.Option(min=1)] = 1,
    cores: Annotated[int | None, typer.Option(min=1, help="Processor cores; else 16 a GPU, or this machine's.")] = None,
    memory: Annotated[float | None, typer.Option(help="GB of memory; else 128 a GPU, or this machine's.")] = None,
    per_person: Annotated[
        float | None, typer.Option(help="Photos of one person; else as in the last curation.")
    ] = None,
    kept: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share that curation accepts; else the last's.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Gradient checkpointing of the U-Net.")
    ] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine first, for --gpu here.")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Plan with another setting.")
    ] = None,
) -> None:
    """Hours, disk and memory of every stage, and what to change where something does not fit."""
    from iy import overrides, params
    from iy.plan import run

    settings = overrides.apply(params.load(profile), change or [])
    if measure:
        run.measured(settings, print)
    asked = run.Asked(photos, gpu, gpus, cores, memory, per_person, kept, checkpointing)
    for line in run.lines(settings, asked):
        print(line)
