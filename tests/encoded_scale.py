"""`python -m tests.encoded_scale FEW MANY`, in an empty folder: as many examples go into a store, and batches are read.

What the models would give is drawn at random instead; all else is what a stage does. Prints for each count, the lower
one first, the peak of memory so far in KB, and CPU seconds for a row that is stored and for an example that is read.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from iy import records
from iy.finetune import data, encode, store
from iy.finetune.loader import Loader
from iy.finetune.store import ROWS
from iy.params import Params
from tests import encoding

READ = 250  # batches of four


class Filler(encode.Encoder):
    """An encoder without models."""

    def make(self, wanted: encode.Wanted, missing: np.ndarray, title: str, own: int, processes: int) -> None:
        how = encode.How("", self.size, 1)
        for job in encode.jobs(wanted, missing, how, self.places[wanted.kind]):
            starts = range(0, len(job.items), ROWS)
            store.write(
                job.path, ((job.keys[i : i + ROWS], [self.row(one) for one in job.items[i : i + ROWS]]) for i in starts)
            )

    def row(self, item: dict) -> store.Row:
        if "caption" in item:
            return {"clip": torch.randn(6, 8), "ul2": torch.randn(9, 8)}
        if "landmarks" in item:
            return {"crop": torch.zeros(3, 8, 8, dtype=torch.uint8)}
        box, sizes = torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([32, 32, 0, 0, 32, 32], dtype=torch.int32)
        return {"latents": torch.randn(4, 4, 4), "box": box, "sizes": sizes}


def photos(count: int) -> Iterator[list[dict]]:
    """Rows of curate's table, four photos a person."""
    for start in range(0, count, 1000):
        yield [
            {
                "id": f"{i:064x}",
                "person": f"person-{i // 4:06d}",
                "caption": f"a portrait, number {i}",
                "box": [1.0, 2.0, 30.0, float(i % 40)],
                "landmarks": [1.0] * 10,
                "embedding": [0.5] * 128,
                "shard": "00000.tar",
                "offset": 0,
                "length": i,
                "split": "train",
                "verdict": records.ACCEPTED,
            }
            for i in range(start, min(start + 1000, count))
        ]


def run(settings: Params, count: int) -> dict[str, float]:
    records.stream(data.photo_table(settings), photos(count), records.PHOTO)
    base = SimpleNamespace(vae=None, text=None, device=torch.device("cpu"), latent_shape=(4, 4, 4))
    start = time.process_time()
    data.Encoder = Filler
    examples, _ = data.load_examples(settings, settings.finetune.stages["1"], base, 8)
    assert len(examples) == count
    stored = (time.process_time() - start) / count
    loader = Loader(examples, settings.finetune.training, 0, 2, rows=slice(None), ahead=0, pinned=False)
    loader(0)
    start = time.process_time()
    for block in range(1, 1 + READ):
        loader(block)
    read = (time.process_time() - start) / (READ * settings.finetune.training.batch)
    status = Path("/proc/self/status").read_text().splitlines()
    [peak] = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    return {"peak": peak, "stored": stored, "read": read}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = []
    for count in sys.argv[1:]:
        Path(count).mkdir()
        with contextlib.chdir(count):
            found.append(run(encoding.settings(Path("base"), encoding="alone"), int(count)))
    print(json.dumps(found))
