"""The averaged (EMA) weights: on the device, or on the CPU and there beside the next step."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from diffusers.training_utils import EMAModel


def averaged(weights: Iterable[torch.nn.Parameter], decay: float, device: torch.device, where: str) -> "Average":
    """where: `device` or `cpu` (see `params.Savings`). The average of weights of any dtype is in float32: its steps are
    smaller than bfloat16 tells."""
    weights = list(weights)
    return Average(weights, decay, device) if where == "device" else Behind(weights, decay)


class Average(EMAModel):
    """diffusers' average."""

    def __init__(self, weights: list[torch.nn.Parameter], decay: float, device: torch.device):
        super().__init__(weights, decay=decay, foreach=True)
        self.to(device)
        self.shadow_params: list[torch.Tensor] = [shadow.float() for shadow in self.shadow_params]

    def give_back(self) -> None:
        """Before weights change: nothing reads them any more."""

    def finish(self) -> None:
        """Whatever was asked for is done."""


class Behind(Average):
    """The average on the CPU. A step costs a copy of the weights, made by a stream of its own on a GPU, and is added by
    a thread while the next one is computed: nobody waits for it. The values are those of `Average`, to the byte."""

    def __init__(self, weights: list[torch.nn.Parameter], decay: float):
        super().__init__(weights, decay, torch.device("cpu"))
        self.gpu = weights[0].device if weights[0].is_cuda else None
        self.stream = None if self.gpu is None else torch.cuda.Stream(self.gpu)
        like = [torch.empty_like(one, device="cpu", pin_memory=self.gpu is not None) for one in weights]
        self.copies = [one.requires_grad_() for one in like]  # EMAModel averages what is trained
        self.thread = ThreadPoolExecutor(1, "average")
        self.adding: Future[None] | None = None

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.finish()
        copied = self.copy(list(parameters))
        self.adding = self.thread.submit(self.add, copied)

    def copy(self, weights: list[torch.nn.Parameter]) -> "torch.cuda.Event | None":
        """Into `copies`; on a GPU they are whole when the event has passed."""
        if self.stream is None:
            torch._foreach_copy_(self.copies, weights)
            return None
        self.stream.wait_stream(torch.cuda.current_stream(self.gpu))
        with torch.cuda.stream(self.stream):
            torch._foreach_copy_(self.copies, weights, non_blocking=True)
            return self.stream.record_event()

    @torch.no_grad()
    def add(self, copied: "torch.cuda.Event | None") -> None:
        if copied is not None:
            copied.synchronize()
        super().step(self.copies)

    def give_back(self) -> None:
        if self.stream is not None:
            torch.cuda.current_stream(self.gpu).wait_stream(self.stream)

    def finish(self) -> None:
        if self.adding is not None:
            self.adding.result()
            self.adding = None

    def copy_to(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.finish()
        super().copy_to(parameters)
