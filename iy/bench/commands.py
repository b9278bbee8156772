"""`iy bench …`: JSON out, ours beside the alternative in the same run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from iy.errors import UserError

bench = typer.Typer(no_args_is_help=True, help="Measure ours beside what you would otherwise run, in the same run.")

Out = Annotated[Path | None, typer.Option(help="JSON file; without it the JSON is printed.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Profile = Annotated[str | None, typer.Option("--profile", "-p", help="Whose base to draw with; else params.yaml's.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps.")]
Batch = Annotated[int, typer.Option(min=1, help="Images drawn at once.")]


@bench.command("attention")
def attention(
    shape: Annotated[
        list[str] | None, typer.Option(help="studio, sd15 or sdxl; several may be given, all are the default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each layer; the median counts.")] = 15,
    batch: Annotated[int, typer.Option(min=1, help="2: guidance's two halves of one picture.")] = 2,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    out: Out = None,
) -> None:
    """Cross-attention of one denoising step: four branches, diffusers' IP-Adapter, and our own naive form."""
    from iy.bench import attention

    if unknown := set(shape or ()) - set(attention.SHAPES):
        raise UserError(f"--shape {sorted(unknown)[0]}: the shapes are {', '.join(attention.SHAPES)}")
    found = attention.run(shape or list(attention.SHAPES), rounds, batch, device, dtype)
    for name in shape or attention.SHAPES:
        ratios(name, found[name])
    give(found, out)


@bench.command("unet")
def unet(
    shape: Annotated[list[str] | None, typer.Option(help="sd15 or sdxl; both are the default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind; the median counts.")] = 15,
    batch: Annotated[int, typer.Option(min=1, help="2: guidance's two halves of one picture.")] = 2,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32")] = "bfloat16",
    out: Out = None,
) -> None:
    """A denoising step of the whole U-Net at its published size, random weights; needs a GPU or much patience."""
    from iy.bench import unet

    if unknown := set(shape or ()) - set(unet.SHAPES):
        raise UserError(f"--shape {sorted(unknown)[0]}: the shapes are {', '.join(unet.SHAPES)}")
    found = unet.run(shape or list(unet.SHAPES), rounds, batch, device, dtype)
    for name in shape or unet.SHAPES:
        ratios(name, found[name])
    give(found, out)


@bench.command("generate")
def generate(
    profile: Profile = None,
    steps: Steps = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Generations of each kind; the median counts.")] = 7,
    batch: Batch = 1,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """A whole image: ours, diffusers' pipeline with IP-Adapter, and our own naive form; time, and peak memory beside."""
    from iy import params
    from iy.bench import generate, memory
    from iy.diffusion import choose_device, load_base

    settings = params.load(profile)
    found = generate.run(load_base(settings.base, choose_device(device)), settings.model, steps, rounds, batch)
    ratios("seconds", found)
    found["memory"] = memory.run(settings, steps, batch, device)
    ratios("memory", found["memory"])
    give(found, out)


@bench.command("memory")
def memory(
    profile: Profile = None, steps: Steps = 2, batch: Batch = 1, device: Device = "auto", out: Out = None
) -> None:
    """Peak memory of drawing, each way in a process of its own."""
    from iy import params
    from iy.bench import memory

    found = memory.run(params.load(profile), steps, batch, device)
    ratios("memory", found)
    give(found, out)


@bench.command("curate")
def curate(
    profile: Profile = None,
    photos: Annotated[int, typer.Option(min=1, help="How many; the profile's own, again and again.")] = 640,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Processes; several may be given, 1 and 2 are the default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; the median counts.")] = 3,
    out: Out = None,
) -> None:
    """Curating, photos per second, beside its face models run bare on the same photos."""
    from iy import params
    from iy.bench import curate

    found = curate.run(params.load(profile), photos, workers or [1, 2], rounds)
    for count in workers or [1, 2]:
        one = found[str(count)]
        print(
            f"{count} processes: {one['ours']:.1f} photos/s   ours / slowest model {one['ours_to_slowest']:.3f}   "
            f"ours / all models {one['ours_to_all']:.3f}"
        )
    give(found, out)


@bench.command("synpairs")
def synpairs(
    profile: Profile = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many; of the profile's own photos.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; the median counts.")] = 3,
    out: Out = None,
) -> None:
    """Making SynPairs, pairs per second, beside the U-Net's evaluations run bare. After `iy run`: it needs finetune1."""
    from iy import params
    from iy.bench import synpairs

    found = synpairs.run(params.load(profile), pairs, rounds)
    print(f"ours {found['ours']:.2f} pairs/s   U-Net bare {found['bare']:.2f}   ours / bare {found['ours_to_bare']:.3f}")
    give(found, out)


def ratios(name: str, found: dict) -> None:
    print(f"{name:<8} ours / stock {found['ours_to_stock']:.3f}   ours / naive {found['ours_to_naive']:.3f}")


def give(found: dict, out: Path | None) -> None:
    from iy.storage import write_json

    if out:
        write_json(out, found)
    else:
        print(json.dumps(found, indent=1))
