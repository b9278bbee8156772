"""What settings and files alone tell: classes, tokenizers, weights, licences, packages. Nothing is fetched or built."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iy import params, rights
from iy.diffusion.base import tokenizer_folder
from iy.errors import UserError
from iy.faces import require
from iy.shapes import published

FAILS = "fails"


class Finding(NamedTuple):
    """`state`: ok, note (to know beforehand) or fails. One line each: what, and what to do."""

    state: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<5} {self.what}: {self.detail}"


def everything(settings: params.Params) -> Iterator[Finding]:
    yield from weights(settings.base)
    yield from tokenizers(settings.base)
    yield from named_files(settings)
    yield from licences(settings)
    yield from numbers(settings)
    yield registration(settings)


def weights(base: params.Base) -> Iterator[Finding]:
    """Whether the weights of every part are here, come from elsewhere, or are missing."""
    for key, part in base.parts().items():
        folder, what = Path(published.place(part)), f"base.{key}"
        if key == "scheduler":
            continue
        if folder.is_dir():
            here = any(folder.glob("*.safetensors"))
            yield Finding(
                "ok" if here else FAILS,
                what,
                f"{part.cls} from {folder}" if here else f"{folder} holds no .safetensors file: copy the weights there",
            )
        elif part.path.startswith(("weights/", "/", ".")):
            yield Finding(FAILS, what, f"{folder} is not here: put the weights there, or name another place")
        else:
            count = published.table()["parts"].get(published.place(part), {}).get("parameters")
            size = f", about {2 * count / 1e9:.1f} GB in half precision" if count else ""
            yield Finding("note", what, f"{part.cls} of {published.place(part)} is fetched at first use{size}")


def tokenizers(base: params.Base) -> Iterator[Finding]:
    """Whether every text encoder's tokenizer is a class that exists, with its files where it looks for them."""
    import transformers

    for key, part in base.parts().items():
        if not isinstance(part, params.TextEncoder):
            continue
        what, kind = f"base.{key}.tokenizer", getattr(transformers, part.tokenizer, None)
        if kind is None:
            yield Finding(FAILS, what, f"transformers has no class {part.tokenizer!r}: name one that it has")
            continue
        names = {*getattr(kind, "vocab_files_names", {}).values(), "tokenizer.json"}
        folder = Path(part.path, tokenizer_folder(part) or "")
        if not Path(part.path).is_dir() or part.tokenizer == "ByT5Tokenizer":
            yield Finding("ok", what, f"{part.tokenizer}, of {folder}")
        elif found := sorted(name for name in names if (folder / name).is_file()):
            yield Finding("ok", what, f"{part.tokenizer} from {folder / found[0]}")
        else:
            yield Finding(FAILS, what, f"{folder} holds none of {sorted(names)}: copy the tokenizer's files there")


def named_files(settings: params.Params) -> Iterator[Finding]:
    """Files and folders that settings name besides the base's."""
    training, finetune = settings.finetune.training, settings.finetune
    named = {
        "finetune.pretrained": finetune.pretrained if finetune.init == "pretrained" else None,
        "finetune.training.identity_model": training.identity_model if training.identity_weight else None,
        "evaluate.probes": settings.evaluate.probes,
        "select.decisions": settings.select.decisions if settings.select.review == "required" else None,
    }
    for what, path in named.items():
        if path is not None:
            here = Path(path).exists()
            yield Finding("ok" if here else FAILS, what, path if here else f"{path} is not here: add it, or set null")
    place = settings.photos.path
    if place and not place.startswith("s3://") and not Path(place).exists():
        yield Finding("note", "photos.path", f"{place} is not here yet")


def licences(settings: params.Params) -> Iterator[Finding]:
    """`usage: commercial` against everything whose licence is known: weights, face models, photos."""
    try:
        require(settings)
        yield Finding("ok", "faces", f"{settings.faces.analyser} allows usage: {settings.usage}")
    except UserError as error:
        yield Finding(FAILS, "faces", str(error))
    if settings.usage != "commercial":
        return
    for what, path in named_models(settings).items():
        known = published.licence(path)
        if known is None and not Path(path).exists():
            yield Finding("note", what, f"the licence of {path} is not known here: read it before you use it")
        elif known is not None and not rights.commercial(known):
            yield Finding(FAILS, what, f"{path} ({known}) does not allow usage: commercial: name another model")
    if settings.synpairs.refiner == "inswapper":
        yield Finding(
            FAILS, "synpairs.refiner", "inswapper (research only) does not allow usage: commercial: use bundle"
        )
    if settings.photos.source != "studio" and not rights.commercial(settings.photos.licence):
        said = settings.photos.licence
        yield Finding("note", "photos.licence", f"{said}: photos without a licence of their own will all be refused")


def named_models(settings: params.Params) -> dict[str, str]:
    """Every model that is opened by a path, by the setting that names it."""
    curate, pairs = settings.curate, settings.synpairs
    found = {f"base.{key}": part.path for key, part in settings.base.parts().items()}
    found |= {f"curate.classifiers.{name}": one.model for name, one in curate.classifiers.items()}
    others = {
        "curate.caption_model": curate.caption_model if curate.captioner == "transformers" else None,
        "synpairs.rewriter_model": pairs.rewriter_model if pairs.rewriter == "transformers" else None,
        "synpairs.generator": pairs.generator and pairs.generator.path,
        "synpairs.refiner_model": pairs.refiner_model.path if isinstance(pairs.refiner_model, params.Adapter) else None,
        "evaluate.clip": settings.evaluate.clip,
    }
    return found | {what: path for what, path in others.items() if path}


def numbers(settings: params.Params) -> Iterator[Finding]:
    """Settings that are right by themselves and wrong together."""
    curate, evaluate = settings.curate, settings.evaluate
    if evaluate.people > curate.test_people:
        yield Finding(
            "note", "evaluate.people", f"{evaluate.people} of {curate.test_people} test people (curate.test_people)"
        )
    if curate.captioner == "transformers" and curate.caption_model is None:
        yield Finding(FAILS, "curate.caption_model", "null: captioner: transformers needs a model's name")
    if settings.synpairs.rewriter != "grammar" and settings.synpairs.rewriter_model is None:
        yield Finding(FAILS, "synpairs.rewriter_model", f"null: rewriter: {settings.synpairs.rewriter} needs a model")
    if settings.finetune.init == "pretrained" and settings.finetune.pretrained is None:
        yield Finding(FAILS, "finetune.pretrained", "null: init: pretrained needs the folder of a bundle")


def registration(settings: params.Params) -> Finding:
    """Whether all that a registered model needs installed is installed."""
    from iy.register.package import requirements

    try:
        return Finding(
            "ok", "register", f"{settings.register_.name}, {len(requirements(settings))} packages to serve it"
        )
    except importlib.metadata.PackageNotFoundError as error:
        return Finding(FAILS, "register", f"package {error.name} is not installed: make install")
