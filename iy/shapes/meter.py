"""Counting on shapes: floating-point operations, and the bytes of all tensors that live at once.

    with Meter() as meter, GpuKernels(torch.bfloat16):
        model(x).sum().backward()
    meter.flops, meter.peak

Nothing is computed: the tensors are on the meta device, but each is made and freed when the real one would be.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.flop_counter import flop_registry


class Meter(TorchDispatchMode):
    """flops: a multiplication and an addition are two. now, peak: bytes of the meta tensors made since it began."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.now = self.peak = 0
        self.living: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = function(*args, **kwargs)
        if count := flop_registry.get(function._overloadpacket):
            self.flops += count(*args, **kwargs, out_val=given)
        before = {id(one.untyped_storage()) for one in on_meta((args, kwargs))}
        for one in on_meta(given):
            if id(one.untyped_storage()) not in before:  # a view of a weight is no new memory
                self.see(one.untyped_storage())
        return given

    def see(self, storage: torch.UntypedStorage) -> None:
        """A storage counts from its first tensor until it is freed, whoever holds it."""
        key, size = id(storage), storage.nbytes()
        if key in self.living:
            return

        def freed(_: weakref.ref) -> None:
            del self.living[key]
            self.now -= size

        self.living[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def on_meta(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_iter(values) if isinstance(one, torch.Tensor) and one.device.type == "meta"]


MATRICES: set[Callable] = {
    F.linear, F.conv2d, torch.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.Tensor.matmul,
    torch.Tensor.__matmul__,
}  # fmt: skip
WIDE: set[Callable] = {F.layer_norm, F.group_norm, torch.layer_norm, torch.group_norm, F.softmax, torch.softmax}
ATTENTION = F.scaled_dot_product_attention


class GpuKernels(TorchFunctionMode):
    """What a GPU does and the meta device does not: autocast's dtypes, and attention that keeps no matrix of scores.

    autocast: products in this dtype and normalisations in float32, as torch.autocast has it on CUDA; a trained weight's
    copy is kept for the whole forward pass. None leaves all dtypes alone.
    """

    def __init__(self, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.autocast = autocast
        self.copies: dict[int, torch.Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is ATTENTION:
            return self.attention(*args, **kwargs)
        if self.autocast and function in MATRICES:
            args, kwargs = tree_map(self.narrow, (args, kwargs))
        elif self.autocast and function in WIDE:
            args, kwargs = tree_map(widen, (args, kwargs))
        return function(*args, **kwargs)

    def narrow(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32 or self.autocast is None:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(self.autocast)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(self.autocast)
        return self.copies[id(value)]

    def attention(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any
    ) -> torch.Tensor:
        """By the memory-efficient kernel, which masks do not change: they are read as they lie."""
        query, key, value = (self.narrow(one) for one in (query, key, value))
        causal = bool(options.get("is_causal"))
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(query, key, value, None, query.requires_grad or key.requires_grad, 0.0, causal)[0]


def widen(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
