"""How far a test goes: as far as every commit affords, or with IY_THOROUGH=1 as far as one wants to know at times."""

import os
from typing import TypeVar

Much = TypeVar("Much")
THOROUGH = os.environ.get("IY_THOROUGH") == "1"


def depth(quick: Much, thorough: Much) -> Much:
    return thorough if THOROUGH else quick
