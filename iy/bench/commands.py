"""`iy bench …`: ours beside the alternative in the same run. A line per comparison; JSON by --json or --out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from iy.errors import UserError

bench = typer.Typer(no_args_is_help=True, help="Measure ours beside what you would otherwise run, in the same run.")

Out = Annotated[Path | None, typer.Option(help="Write everything that was measured to this JSON file.")]
Json = Annotated[bool, typer.Option("--json", help="Print everything that was measured as one JSON object instead.")]
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
    as_json: Json = False,
) -> None:
    """Cross-attention of one denoising step: four branches, diffusers' IP-Adapter, and our own naive form."""
    from iy.bench import attention

    if unknown := set(shape or ()) - set(attention.SHAPES):
        raise UserError(f"--shape {sorted(unknown)[0]}: the shapes are {', '.join(attention.SHAPES)}")
    give(attention.run(shape or list(attention.SHAPES), rounds, batch, device, dtype), out, as_json)


@bench.command("unet")
def unet(
    shape: Annotated[list[str] | None, typer.Option(help="sd15 or sdxl; both are the default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind; the median counts.")] = 15,
    batch: Annotated[int, typer.Option(min=1, help="2: guidance's two halves of one picture.")] = 2,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32")] = "bfloat16",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """A denoising step of the whole U-Net at its published size, random weights; needs a GPU or much patience."""
    from iy.bench import unet

    if unknown := set(shape or ()) - set(unet.SHAPES):
        raise UserError(f"--shape {sorted(unknown)[0]}: the shapes are {', '.join(unet.SHAPES)}")
    give(unet.run(shape or list(unet.SHAPES), rounds, batch, device, dtype), out, as_json)


@bench.command("generate")
def generate(
    profile: Profile = None,
    steps: Steps = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Generations of each kind; the median counts.")] = 7,
    batch: Batch = 1,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights at the profile's sizes: no file is opened.")
    ] = False,
    device: Device = "auto",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """A whole image: ours, diffusers' pipeline with IP-Adapter, and our own naive form."""
    from iy import params
    from iy.bench import generate
    from iy.device import choose_device
    from iy.diffusion import load_base
    from iy.shapes.base import drawn

    settings = params.load(profile)
    where = choose_device(device)
    base = drawn(settings.base, where, tokenizers=True) if random else load_base(settings.base, where)
    give(generate.run(base, settings.model, steps, rounds, batch), out, as_json)


@bench.command("memory")
def memory(
    profile: Profile = None,
    steps: Steps = 2,
    batch: Batch = 1,
    device: Device = "auto",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Peak memory of drawing, each way in a process of its own."""
    from iy import params
    from iy.bench import memory

    give(memory.run(params.load(profile), steps, batch, device), out, as_json)


@bench.command("train")
def train(
    profile: Profile = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures a step; else the profile's.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind; the median counts.")] = 7,
    memory: Annotated[bool, typer.Option(help="Peak memory too: each way in a process of its own.")] = True,
    device: Device = "auto",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Training steps: ours, public IP-Adapter training with and without cached latents, the bare U-Net."""
    from iy import overrides, params
    from iy.bench import train

    changes = [f"finetune.training.batch={batch}"] if batch else []
    give(train.run(overrides.apply(params.load(profile), changes), rounds, device, memory), out, as_json)


@bench.command("gpu")
def gpu(
    out: Annotated[Path, typer.Argument(help="Folder for what is measured and said.")],
    profile: Annotated[str, typer.Option("--profile", "-p")] = "sdxl",
    shape: Annotated[str, typer.Option(help="Of the U-Net that `iy bench unet` measures: sdxl or sd15.")] = "sdxl",
    seconds: Annotated[float, typer.Option(min=60, help="For everything together.")] = 540,
    photos: Annotated[
        Path | None, typer.Option(help="For the rehearsal: photographs, a sub-folder a person; else rendered.")
    ] = None,
    device: Device = "cuda",
) -> None:
    """Training, a U-Net's step, whole images and the rehearsal at full size, within a time: for a GPU that is lent."""
    from iy.bench import gpu

    found = gpu.run(gpu.steps(profile, shape, device, photos), seconds, out, print)
    raise typer.Exit(int(any(one["code"] != 0 for one in found.values())))


@bench.command("curate")
def curate(
    profile: Profile = None,
    photos: Annotated[int, typer.Option(min=1, help="How many; the profile's own, again and again.")] = 1280,
    captioned: Annotated[
        int, typer.Option(min=0, help="How many of them a captioner of BLIP's base size describes as well; 0: none.")
    ] = 48,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Processes; several may be given, 1 and 2 are the default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; the median counts.")] = 3,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Curating, photos per second, beside its slowest model run bare on the same photos, and beside all of them."""
    from iy import params
    from iy.bench import curate

    give(curate.run(params.load(profile), photos, captioned, workers or [1, 2], rounds), out, as_json)


@bench.command("synpairs")
def synpairs(
    profile: Profile = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many; of the profile's own photos.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; the median counts.")] = 3,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Making SynPairs, in pairs per second, beside the U-Net's evaluations run bare. After finetune1 (`iy run`)."""
    from iy import params
    from iy.bench import synpairs

    give(synpairs.run(params.load(profile), pairs, rounds), out, as_json)


@bench.command("jobs")
def jobs(
    profile: Profile = None,
    bundle: Annotated[Path | None, typer.Option(help="A finetuned model; else stage 4 of the profile.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 2000,
    prompts: Annotated[int, typer.Option(min=1, help="Distinct prompts among them.")] = 200,
    people: Annotated[int, typer.Option(min=1, help="Distinct people, of the profile's own photos.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements; the median counts.")] = 3,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Drawing a table (`iy generate --table`) beside the pipeline called in a loop. After curate (`iy run`)."""
    from iy import params
    from iy.bench import jobs

    settings = params.load(profile)
    folder = bundle or settings.bundle_dir(4)
    give(jobs.run(settings, folder, pictures, prompts, people, rounds), out, as_json)


@bench.command("provenance")
def provenance(
    bundle: Annotated[Path | None, typer.Option(help="A finetuned model; else stage 4 of the profile.")] = None,
    profile: Profile = None,
    steps: Steps = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Pictures; the median counts.")] = 7,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Marking a drawn picture (signature, XMP) beside drawing it."""
    from iy import params
    from iy.bench import provenance

    settings = params.load(profile)
    give(provenance.run(settings, bundle or settings.bundle_dir(4), steps, rounds), out, as_json)


def give(found: dict, out: Path | None, as_json: bool) -> None:
    from iy.storage import write_json

    if out:
        write_json(out, found)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for one in found["cases"]:
        print(
            f"{one['case']:<34} ours {one['ours']:.4g} {one['unit']}   {one['against']} {one['theirs']:.4g}"
            f"   ratio {one['ratio']:.3f}"
        )
