"""What draws a picture towards the reference, pass by pass: the bundle, an IP-Adapter, or a face swapper."""

import contextlib
import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import cv2
import numpy as np
from PIL import Image

from iy.errors import UserError, one_line
from iy.faces import Analyser
from iy.generate import Cell, in_batches, redraw
from iy.params import Adapter, Params
from iy.seeds import derived_seed
from iy.synpairs.generators import Generator, bundle_options, noise, pictures
from iy.synpairs.models import adapted, ip_adapter, open_pipeline, swapper_path
from iy.synpairs.plan import Plan

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from insightface.model_zoo.inswapper import INSwapper

    from iy.model import ImagineYourselfPipeline


MARGIN = 0.5  # of the short side, put around a picture whose face is swapped


class Refiner(Protocol):
    def refine(
        self, plans: Sequence[Plan], faces: Sequence[np.ndarray], starts: Sequence[np.ndarray], number: int
    ) -> list[np.ndarray]:
        """Pass `number` (from 1): a picture per plan that begins with starts[i] and comes nearer to the reference.

        starts, result: uint8 (S, S, 3) at base.image_size; faces: the references' masked crops, of that size.
        """
        ...


class Bundle:
    """Stage 1's model, image to image."""

    def __init__(self, pipeline: "ImagineYourselfPipeline", settings: Params) -> None:
        self.pipeline, self.settings = pipeline, settings.synpairs

    def refine(self, plans, faces, starts, number) -> list[np.ndarray]:
        cells = [
            Cell(plan.rewrite.text, face, derived_seed(plan.seed, number))
            for plan, face in zip(plans, faces, strict=True)
        ]
        strength, options = self.settings.strength, bundle_options(self.settings)
        return redraw(self.pipeline, cells, starts, strength=strength, **options, progress=f"pass {number}")


class IPAdapter:
    """diffusers' image-to-image pipeline with an IP-Adapter that looks at the reference's crop."""

    def __init__(self, pipeline: "DiffusionPipeline", settings: Params) -> None:
        self.pipeline: Any = pipeline  # what it is called with is its class's own
        self.settings = settings.synpairs

    def refine(self, plans, faces, starts, number) -> list[np.ndarray]:
        seen = [self.look(face) for face in faces]

        def batch(rows: list[int]) -> list[np.ndarray]:
            return pictures(
                self.pipeline(
                    prompt=[plans[i].rewrite.text for i in rows],
                    image=[Image.fromarray(starts[i]) for i in rows],
                    strength=self.settings.strength,
                    num_inference_steps=self.settings.steps,
                    guidance_scale=self.settings.guidance,
                    ip_adapter_image_embeds=[beside([seen[i] for i in rows])],
                    generator=[noise(derived_seed(plans[i].seed, number)) for i in rows],
                )
            )

        drawn = in_batches(self.pipeline, [range(len(plans))], self.settings.batch, batch, f"pass {number}")
        return [drawn[i] for i in range(len(plans))]

    def look(self, face: np.ndarray) -> "torch.Tensor":
        """What the adapter takes of one face: (2, 1, …) with guidance, the unconditional half first, else (1, 1, …)."""
        import torch

        guided = self.settings.guidance > 1 and self.pipeline.unet.config.time_cond_proj_dim is None
        device = self.pipeline._execution_device
        with torch.no_grad():
            [found] = self.pipeline.prepare_ip_adapter_image_embeds([Image.fromarray(face)], None, device, 1, guided)
        return found


class Swapper:
    """insightface's INSwapper: the reference's face in place of the biggest one in the picture, the rest as it was."""

    def __init__(self, model: "INSwapper", analyser: Analyser) -> None:
        self.model, self.analyser = model, analyser

    def refine(self, plans, faces, starts, number) -> list[np.ndarray]:
        return [self.swap(start, plan.reference["embedding"]) for plan, start in zip(plans, starts, strict=True)]

    def swap(self, picture: np.ndarray, embedding: Sequence[float]) -> np.ndarray:
        """embedding: of the reference, (512,). A picture without a face stays as it is."""
        from insightface.app.common import Face

        found = self.analyser.detect(picture)
        if not found:
            return picture
        # where the crop reaches beyond a tight portrait, insightface would paste its black margin
        pad = round(MARGIN * min(picture.shape[:2]))
        wide = cv2.copyMakeBorder(picture[..., ::-1], pad, pad, pad, pad, cv2.BORDER_REFLECT)
        there, wanted = Face(kps=found[0].landmarks + pad), Face(embedding=np.asarray(embedding, np.float32))
        swapped = cast(np.ndarray, self.model.get(wide, there, wanted))  # not pasted back, it would be two things
        return np.ascontiguousarray(swapped[pad:-pad, pad:-pad, ::-1])


def load_refiner(
    settings: Params,
    bundle: "ImagineYourselfPipeline | None",
    generator: Generator,
    analyser: Analyser,
    device: "torch.device | str",
) -> Refiner | None:
    """The refiner that the settings name, None for none; `bundle`: stage 1's, opened, where they need it."""
    section = settings.synpairs
    if not section.rounds:
        return None
    if section.refiner == "bundle":
        assert bundle is not None, "models.uses_bundle asks for it"
        return Bundle(bundle, settings)
    if section.refiner == "inswapper":
        return Swapper(open_swapper(swapper_path(section), analyser, settings.device), analyser)
    adapter, (key, under) = ip_adapter(section), adapted(section)
    own = adapter.pipeline is not None
    text_to_image = open_pipeline(under, key, settings.base, device) if own else generator.pipeline
    return IPAdapter(with_adapter(text_to_image, adapter), settings)


def with_adapter(text_to_image: "DiffusionPipeline", adapter: Adapter) -> "DiffusionPipeline":
    """Image to image on the same weights, with the adapter in a U-Net of its own: the generator goes on without one."""
    from diffusers.models.embeddings import IPAdapterFaceIDImageProjection, IPAdapterFaceIDPlusImageProjection
    from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image
    from transformers import CLIPVisionModelWithProjection

    weights = {id(weight): weight for weight in text_to_image.unet.parameters()}
    parts: dict[str, Any] = {"unet": copy.deepcopy(text_to_image.unet, weights)}
    try:
        if adapter.image_encoder:
            # opened here, for load_ip_adapter would take a pickle where there is nothing else
            encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
                adapter.path, subfolder=adapter.image_encoder, use_safetensors=True, dtype=text_to_image.dtype
            )
            parts["image_encoder"] = encoder.to(text_to_image.device)
        made = AutoPipelineForImage2Image.from_pipe(text_to_image, **parts)
        made.load_ip_adapter(adapter.path, subfolder="", weight_name=adapter.weights, image_encoder_folder=None)
    except Exception as error:  # of many kinds, where files are missing or made for another U-Net
        raise UserError(
            f"synpairs.refiner_model: cannot put {adapter.weights} and {adapter.image_encoder} of {adapter.path} on "
            f"{type(text_to_image).__name__}: {one_line(error)}"
        ) from None
    [projection] = made.unet.encoder_hid_proj.image_projection_layers
    if isinstance(projection, IPAdapterFaceIDImageProjection | IPAdapterFaceIDPlusImageProjection):
        raise UserError(
            "synpairs.refiner_model: a FaceID adapter does not look at pictures: name one that takes an image"
        )
    if made.image_encoder is None:
        raise UserError(
            "synpairs.refiner_model.image_encoder: the pipeline has none of its own: name the adapter's folder"
        )
    made.set_ip_adapter_scale(adapter.scale)
    made.set_progress_bar_config(disable=True)
    return several_references(made)


def several_references(pipeline: "DiffusionPipeline") -> "DiffusionPipeline":
    """The pipeline, taking a row of `ip_adapter_image_embeds` per picture of a batch as it is given.

    diffusers knows one reference for all prompts: it would repeat the rows, and the attention then mix the references.
    """
    prepare = pipeline.prepare_ip_adapter_image_embeds

    def as_given(image, embeds, *how):
        return prepare(image, None, *how) if embeds is None else embeds

    pipeline.prepare_ip_adapter_image_embeds = as_given
    return pipeline


def beside(seen: Sequence["torch.Tensor"]) -> "torch.Tensor":
    """`look`'s results as one batch: all unconditional halves, then all others."""
    import torch

    halves = zip(*(one.split(1) for one in seen), strict=True)
    return torch.cat([torch.cat(half) for half in halves])


def open_swapper(path: str, analyser: Analyser, device: str) -> "INSwapper":
    import onnxruntime
    from insightface.model_zoo import get_model
    from insightface.model_zoo.inswapper import INSwapper

    from iy.device import onnx_providers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints its shapes
            model = get_model(str(path), providers=onnx_providers(device), sess_options=options)
    except Exception as error:  # insightface and onnxruntime raise many kinds on a file that is not one
        raise UserError(f"synpairs.refiner_model: {path} cannot be opened by insightface: {one_line(error)}") from None
    if not isinstance(model, INSwapper):
        raise UserError(f"synpairs.refiner_model: {path} is not inswapper's network: name its .onnx")
    if analyser.recogniser.width != len(model.emap):
        raise UserError(
            f"synpairs.refiner: inswapper takes faces as {len(model.emap)} numbers, and the recogniser of faces.pack "
            f"gives {analyser.recogniser.width}: use the one it was trained with"
        )
    return model
