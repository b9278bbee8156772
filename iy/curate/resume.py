"""Where an unfinished stage keeps what its torch models said: in its work folder, named by what decides it."""

import json
from collections.abc import Sequence
from pathlib import Path

from iy.storage import folder_digest, sha256


def place(work: Path, name: str, models: Sequence[str], settings: object) -> Path:
    """`<work>/<name>-<hash>` of the settings and of the models, those that lie here with their files.

    (Of the code, and so of what a captioner is asked, `work` is named already.)
    """
    digests = [folder_digest(Path(model)) if Path(model).is_dir() else model for model in models]
    return work / f"{name}-{sha256(json.dumps([digests, settings], sort_keys=True).encode())[:16]}"
