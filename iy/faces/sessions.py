"""One way to open an ONNX network: one thread (rooms run several processes), and image sizes left free."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from iy.device import onnx_providers

if TYPE_CHECKING:
    import onnxruntime


@cache
def session(path: Path, device: str, free_sizes: bool = False) -> "onnxruntime.InferenceSession":
    """`free_sizes`: forget the batch and image sizes that the file states (for fully convolutional networks)."""
    return opened(resized(path) if free_sizes else path.read_bytes(), device)


def opened(model: bytes, device: str) -> "onnxruntime.InferenceSession":
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # old exporters: a warning for every weight
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=onnx_providers(device))


def outputs(network: "onnxruntime.InferenceSession", inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a network makes of its inputs: arrays, though ONNX Runtime knows of other kinds."""
    return cast("list[np.ndarray]", network.run(None, inputs))


def resized(path: Path) -> bytes:
    """The network with its weights as constants, not among the inputs as old exporters list them: they are laid out for
    the processor once, which more than halves CenterFace's time."""
    import onnx

    model = onnx.load(str(path))
    weights = {initial.name for initial in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    for value in [*model.graph.input, *model.graph.output]:
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
    return model.SerializeToString()
