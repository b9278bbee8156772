"""Which models draw and refine the pairs: what they must be, refused before any work, and the names rows give them."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from iy.errors import UserError, one_line
from iy.params import Adapter, Base, Params, Pipeline, SynPairs
from iy.storage import file_sha256, folder_digest

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


def require(settings: Params) -> None:
    """Refuse at once what the settings themselves forbid, in one sentence that names the key."""
    section = settings.synpairs
    if section.generator is not None:
        if section.start != "text":
            raise UserError(
                f"synpairs.generator draws from the caption alone, so synpairs.start: {section.start} is not for it: "
                "set synpairs.start: text, or synpairs.generator: null"
            )
        pipeline_class(section.generator, "synpairs.generator")
    {"ip_adapter": require_adapter, "inswapper": require_swapper}.get(section.refiner, require_no_model)(settings)


def require_no_model(settings: Params) -> None:
    if settings.synpairs.refiner_model is not None:
        raise UserError(
            f"synpairs.refiner: {settings.synpairs.refiner} takes no model: set synpairs.refiner_model: null"
        )


def require_adapter(settings: Params) -> None:
    section, model = settings.synpairs, ip_adapter(settings.synpairs)
    if not model.weights.endswith(".safetensors"):
        raise UserError(
            f"synpairs.refiner_model.weights: {model.weights} is not a safetensors file, and pickles are not opened: "
            "name the adapter's .safetensors"
        )
    if not int(section.steps * section.strength):  # as diffusers counts the steps that a picture is redrawn for
        raise UserError(
            f"synpairs.strength: {section.strength} of {section.steps} steps is less than one: raise either"
        )
    from diffusers.loaders.ip_adapter import IPAdapterMixin

    key, under = adapted(section)
    if not issubclass(pipeline_class(under, key), IPAdapterMixin):
        raise UserError(
            f"{key}: diffusers does not put an IP-Adapter on {under.cls} as on pipelines with a U-Net: name one of "
            "those, as StableDiffusionXLPipeline"
        )


def require_swapper(settings: Params) -> None:
    if settings.usage != "research":
        raise UserError(
            f"usage: {settings.usage} does not allow synpairs.refiner: inswapper (InsightFace model zoo: research only)"
            ": choose another refiner, or usage: research"
        )
    if settings.faces.analyser != "insightface":
        raise UserError(
            "synpairs.refiner: inswapper needs the 512 numbers of the recogniser it was trained with: set "
            f"faces.analyser: insightface and faces.pack, not {settings.faces.analyser}"
        )
    swapper_path(settings.synpairs)


def ip_adapter(settings: SynPairs) -> Adapter:
    if not isinstance(settings.refiner_model, Adapter):
        raise UserError(
            "synpairs.refiner_model: ip_adapter needs path, weights, image_encoder, scale and pipeline "
            "(profiles/studio.yaml shows them)"
        )
    return settings.refiner_model


def swapper_path(settings: SynPairs) -> str:
    path = settings.refiner_model
    if not isinstance(path, str) or not Path(path).is_file():
        raise UserError(f"synpairs.refiner_model: {path} is not a file: inswapper needs the path of its .onnx")
    return path


def adapted(settings: SynPairs) -> tuple[str, Pipeline]:
    """The key and value of the pipeline that the IP-Adapter goes on."""
    own = ip_adapter(settings).pipeline
    if own is not None:
        return "synpairs.refiner_model.pipeline", own
    if settings.generator is not None:
        return "synpairs.generator", settings.generator
    raise UserError("synpairs.refiner_model.pipeline: null means the generator, and there is none: name a pipeline")


def pipeline_class(named: Pipeline, key: str) -> type["DiffusionPipeline"]:
    """The class, if it is one that diffusers lists for text to image, wants no other picture and takes our settings."""
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    found = getattr(diffusers, named.cls, None)
    if found is None or found not in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values() or "Control" in named.cls:
        raise UserError(
            f"{key}.class: {named.cls} is not a text-to-image pipeline of diffusers: name one, as "
            "StableDiffusionXLPipeline"
        )
    taken = inspect.signature(found.__call__).parameters
    if lacking := [name for name in ("num_inference_steps", "guidance_scale") if name not in taken]:
        raise UserError(
            f"{key}.class: {named.cls} takes no {lacking[0]}: name another class, as StableDiffusionXLPipeline"
        )
    return found


def open_pipeline(named: Pipeline, key: str, base: Base, device: "torch.device | str") -> "DiffusionPipeline":
    """The pipeline in `base.dtype` on `device`, silent, from safetensors only."""
    import torch

    cls = pipeline_class(named, key)
    try:
        opened = cls.from_pretrained(named.path, use_safetensors=True, dtype=getattr(torch, base.dtype))
        listed = cast("dict[str, Any]", cls.load_config(named.path))  # a tuple where more is asked for
    except Exception as error:  # of many kinds, where a folder does not hold what its class needs
        raise UserError(f"{key}: cannot open {named.path} as {named.cls}: {one_line(error)}") from None
    # optional to diffusers, which would fail when it draws
    lacking = [
        name for name in opened.components if name.startswith(("text_encoder", "tokenizer")) and name not in listed
    ]
    if lacking:
        raise UserError(
            f"{key}: {named.path} has no {lacking[0]}, which {named.cls} needs: it was saved as {listed['_class_name']}"
        )
    opened.set_progress_bar_config(disable=True)
    return opened.to(device)


def uses_bundle(settings: SynPairs) -> bool:
    """Whether stage 1's bundle draws or refines."""
    return settings.generator is None or (settings.refiner == "bundle" and settings.rounds > 0)


def names_of(settings: Params) -> str:
    """What draws and what refines, by the hashes of their files; a hub id is taken as it is named.

    The bundle's hash alone where it does both, or all there is.
    """
    section = settings.synpairs
    bundle = folder_digest(settings.bundle_dir(1)) if uses_bundle(section) else ""
    parts = [bundle if section.generator is None else pipeline_name(section.generator)]
    if section.rounds and section.refiner == "bundle":
        parts.append(bundle)
    elif section.rounds and section.refiner == "inswapper":
        parts.append(f"inswapper@{digest(swapper_path(section))}")
    elif section.rounds:
        parts.append(f"{adapter_name(ip_adapter(section))} on {pipeline_name(adapted(section)[1])}")
    return " + ".join(dict.fromkeys(parts))


def adapter_name(model: Adapter) -> str:
    encoder = f" seeing through {digest(model.path, model.image_encoder)}" if model.image_encoder else ""
    return f"ip_adapter@{digest(model.path, model.weights)}{encoder}"


def pipeline_name(named: Pipeline) -> str:
    return f"{named.cls}@{digest(named.path)}"


def digest(*parts: str | None) -> str:
    """sha256 of the local folder or file that these parts of a path name; else the parts: a hub id and a file there."""
    place = Path(*(part for part in parts if part))
    if place.is_dir():
        return folder_digest(place)
    return file_sha256(place) if place.is_file() else place.as_posix()
