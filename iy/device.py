"""Which device computes: nothing else asks PyTorch or ONNX Runtime whether there is a GPU."""

from typing import TYPE_CHECKING

from iy.errors import UserError

if TYPE_CHECKING:
    import torch

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def torch_has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def onnx_has_gpu() -> bool:
    import onnxruntime

    return CUDA in onnxruntime.get_available_providers()


def choose_device(name: str) -> "torch.device":
    """`auto` is the GPU where there is one, else the CPU; asking for a GPU that is not there is an error."""
    import torch

    if name == "auto":
        name = "cuda" if torch_has_gpu() else "cpu"
    if name == "cuda" and not torch_has_gpu():
        raise UserError("device = 'cuda': no GPU that PyTorch can use was found: set device to auto or cpu")
    return torch.device(name)


def onnx_providers(name: str) -> list[str]:
    """What ONNX Runtime computes on for `device`, the first choice first.

    Its usual package knows no GPU (the extra `gpu` brings the one that does), so `cuda` alone is no error here.
    """
    return [CUDA, CPU] if name != "cpu" and onnx_has_gpu() else [CPU]


def gpu_name() -> str | None:
    """The first GPU that PyTorch can use; None where there is none."""
    import torch

    return torch.cuda.get_device_name(0) if torch_has_gpu() else None


def memory_gb() -> float | None:
    """Gigabytes of the first GPU; None where there is none."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch_has_gpu() else None
