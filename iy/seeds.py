"""Seeds that are derived from what they are for: the same parts, the same noise, in any order and on any machine."""

import hashlib


def derived_seed(*parts: object) -> int:
    """An integer in [0, 2^31) that only these parts decide."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


def cell_seed(seed: int, person: str, prompt: int, number: int) -> int:
    """Of one benchmark cell's noise: the same for base and stages, so that they differ by the model alone."""
    return int(hashlib.sha256(f"{seed}/{person}/{prompt}/{number}".encode()).hexdigest()[:8], 16) >> 1
