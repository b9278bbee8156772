"""A checkpoint that several processes write together, each its own part: PyTorch's distributed checkpoint, in its
safetensors form. (Its usual form keeps its table of contents as a pickle: it is not used.)

A tensor is named as `weights.<name>`, `ema.<number>` or `optimizer.<number>.<name>`. Parts are put together anew for
any number of processes.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """This process's parts of DTensors; of what is whole everywhere, one process writes it. All processes call it."""
    checkpoint.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read_shards(folder: Path, tensors: Mapping[str, torch.Tensor], alone: bool) -> None:
    """Fill tensors, or this process's parts of DTensors. alone: no other process reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group, which `alone` says
        checkpoint.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def empty(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors on the meta device: what a checkpoint holds, by name."""
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in found.items()
        if isinstance(one, TensorStorageMetadata)
    }


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, put together."""
    tensors = {name: torch.empty_like(one, device="cpu") for name, one in empty(folder).items()}
    read_shards(folder, tensors, alone=True)
    return tensors
