"""Making SynPairs beside its bound: the U-Net's evaluations of the same pairs, run bare on recorded inputs.

Ours is all that makes a shard: rewriting, drawing, refining, finding and comparing faces, writing. Models are loaded
before the clock starts, for both.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from iy import params
from iy.bench.measure import Case, report, wait
from iy.errors import UserError
from iy.synpairs.bounds import Bounds
from iy.synpairs.models import names_of
from iy.synpairs.plan import chosen_photos
from iy.synpairs.shards import How, Shard, make_shard, opened

ANY = Bounds(-1.0, 1.0)


def run(settings: params.Params, pairs: int, rounds: int) -> dict:
    """Pairs per second, ours beside the U-Net's bare; the median of `rounds`, in turns."""
    if not (settings.bundle_dir(1) / "config.json").exists():
        raise UserError(f"{settings.bundle_dir(1)} is not there: run finetune1 first (dvc repro synpairs)")
    chosen = chosen_photos(settings.data_dir("curate") / "photos.parquet", settings.synpairs, settings.seed)
    chosen = [chosen[k % len(chosen)] for k in range(pairs)]
    if settings.synpairs.generator is not None or settings.synpairs.refiner not in ("bundle", "none"):
        raise UserError(
            "iy bench synpairs times stage 1's bundle: set synpairs.generator: null and synpairs.refiner: bundle"
        )
    how = How(json.dumps(settings.resolved()), names_of(settings), ANY, torch.get_num_threads())
    model = opened(how)[0].generator.pipeline.model
    calls = recorded(model.unet, how, chosen)
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        taken["ours"].append(made(how, chosen))
        taken["bare"].append(replayed(model.unet, calls))
    rate = {name: pairs / float(np.median(seconds)) for name, seconds in taken.items()}
    case = Case("making SynPairs", "the U-Net bare", rate["ours"], rate["bare"], "pairs/s")
    return report([case], model.device, pairs=pairs, evaluations=len(calls), rounds=rounds)


def made(how: How, chosen: list[tuple[dict, int]]) -> float:
    """Seconds of making one shard of `chosen`."""
    with tempfile.TemporaryDirectory() as aside:
        wait()
        start = time.perf_counter()
        make_shard(Shard(how, Path(aside, "shard"), 0, 0, chosen, len(chosen)))
        wait()
        return time.perf_counter() - start


def recorded(unet: torch.nn.Module, how: How, chosen: list[tuple[dict, int]]) -> list[tuple[tuple, dict]]:
    """What the U-Net is asked while that shard is made."""
    calls: list[tuple[tuple, dict]] = []
    hook = unet.register_forward_pre_hook(lambda _, given, named: calls.append((given, named)), with_kwargs=True)
    try:
        made(how, chosen)
    finally:
        hook.remove()
    return calls


@torch.no_grad()
def replayed(unet: torch.nn.Module, calls: list[tuple[tuple, dict]]) -> float:
    """Seconds of asking it all of that again."""
    wait()
    start = time.perf_counter()
    for given, named in calls:
        unet(*given, **named)
    wait()
    return time.perf_counter() - start
