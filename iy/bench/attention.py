"""Cross-attention of one denoising step: four parallel branches beside diffusers' IP-Adapter and our own naive form.

ours   K and V computed once per generation, one query for all branches, no padding
stock  diffusers' Attention with IPAdapterAttnProcessor2_0: text (padded to 77) and the same vision tokens, every step
naive  four attentions, each with its own query, K and V of the padded tokens, every step

Every layer of a U-Net is measured once per shape and counted as often as the U-Net has it; CPU by default.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0

from iy.bench.measure import against_all, in_turns, report
from iy.model.attention import Context, ParallelAttention, Tokens, readable

WIDTHS = {"ul2": 4096, "byt5": 1472}  # of UL2 and of ByT5-small; the own text's and vision's are the U-Net's
PADDED = {"clip": 77, "ul2": 128, "byt5": 256}
READ = {"clip": 32, "ul2": 34, "byt5": 132}  # tokens of a prompt of some 25 words
OWN = "clip"


class Layer(NamedTuple):
    positions: int
    channels: int
    heads: int
    count: int  # of such layers in the U-Net


class Shape(NamedTuple):
    width: int  # of text and vision tokens
    vision: int  # tokens of one reference
    layers: tuple[Layer, ...]


SHAPES = {
    "studio": Shape(192, 65, (Layer(64, 128, 4, 3), Layer(16, 160, 5, 4))),
    "sd15": Shape(
        768, 257, (Layer(4096, 320, 8, 5), Layer(1024, 640, 8, 5), Layer(256, 1280, 8, 5), Layer(64, 1280, 8, 1))
    ),
    "sdxl": Shape(2048, 257, (Layer(4096, 640, 10, 10), Layer(1024, 1280, 20, 60))),
}


def run(shapes: list[str], rounds: int, batch: int = 2, device: str = "cpu", dtype: str = "float32") -> dict:
    """Milliseconds of whole steps and of each layer. batch 2: guidance's two halves of one picture."""
    where, kind = torch.device(device), getattr(torch, dtype)
    cases, layers = [], {}
    for name in shapes:
        shape, rows = SHAPES[name], []
        for layer in shape.layers:
            seconds = in_turns(ways(shape, layer, batch, where, kind), rounds)
            rows.append(layer._asdict() | {f"{way}_ms": round(1000 * value, 3) for way, value in seconds.items()})
        step = {way: sum(row[f"{way}_ms"] * row["count"] for row in rows) for way in ("ours", "stock", "naive")}
        cases += against_all(name, {way: round(value, 2) for way, value in step.items()}, "ms a step")
        layers[name] = rows
    how = {"dtype": dtype, "batch": batch, "rounds": rounds, "read": READ, "padded": PADDED}
    return report(cases, where, layers=layers, **how)


@torch.no_grad()
def ways(shape: Shape, layer: Layer, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Callable]:
    torch.manual_seed(0)
    attention = Attention(layer.channels, shape.width, layer.heads, dim_head=layer.channels // layer.heads).eval()
    widths = {"vision": shape.width} | WIDTHS
    ours = ParallelAttention(attention, 0, OWN, widths, dict.fromkeys(["vision", OWN, *WIDTHS], 1.0))
    for matrix in ours.out.values():
        torch.nn.init.normal_(matrix, std=0.05)
    stock: Any = IPAdapterAttnProcessor2_0(layer.channels, shape.width, (shape.vision,))  # its annotations lack a tuple
    for part in (attention, ours, stock):
        part.to(device, dtype)
    x = torch.randn(batch, layer.positions, layer.channels, device=device, dtype=dtype)
    padded = tokens(shape, batch, PADDED, device, dtype)
    context = kept(attention, ours, cut(padded))
    text, vision = padded[OWN][0], padded["vision"][0]

    def one_step(way: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def quiet() -> torch.Tensor:
            with torch.no_grad():
                return way()

        return quiet

    return {
        "ours": one_step(lambda: ours(attention, x, context)),
        "stock": one_step(lambda: stock(attention, x, (text, [vision[:, None]]))),
        "naive": one_step(lambda: naive(attention, ours, x, padded)),
    }


def tokens(shape: Shape, batch: int, lengths: dict[str, int], device: torch.device, dtype: torch.dtype) -> Tokens:
    """Padded hidden states (B, L, D) of every branch, and which of them a prompt of `READ` tokens fills."""
    found = {}
    for name, length in {"vision": shape.vision, **lengths}.items():
        hidden = torch.randn(batch, length, WIDTHS.get(name, shape.width), device=device, dtype=dtype)
        real = torch.arange(length, device=device) < READ.get(name, length)
        found[name] = hidden, real.expand(batch, -1)
    return found


def cut(padded: Tokens) -> Tokens:
    """Without the padding, as a single prompt is read."""
    return {name: (hidden[:, mask[0]], mask[:, mask[0]]) for name, (hidden, mask) in padded.items()}


def kept(attention: Attention, ours: ParallelAttention, real: Tokens) -> Context:
    return Context([ours.keys_values(attention, real)], dict.fromkeys(real), dict.fromkeys(real))


def naive(attention: Attention, ours: ParallelAttention, x: torch.Tensor, padded: Tokens) -> torch.Tensor:
    """The formula as it stands: per branch a query, K, V of all tokens, a masked softmax, an output."""
    last: Any = attention.to_out
    total = torch.zeros_like(x)
    for name, pair in padded.items():
        query = ours.split(attention.to_q(x))
        kv = ours.keys_values(attention, {name: pair})
        mask, _ = readable(pair[1])
        answer = ours.alpha[name] * ours.attend(query, kv, {name: mask})[name]
        total = total + torch.nn.functional.linear(answer, last[0].weight)
    return total + last[0].bias
