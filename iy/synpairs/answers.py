"""What language models answered, kept under .iy/answers: nobody is asked, or paid, twice for the same.

A file holds the answers to the requests that were asked together, under a hash of all that decides them. `iy erase`
removes the folder: captions describe people.
"""

import json
from collections.abc import Callable, Sequence

from iy import project
from iy.storage import sha256, write_json


class Answers:
    """decided_by: what decides an answer besides the request, such as the model and its instructions."""

    def __init__(self, *decided_by: object) -> None:
        self.decided_by = decided_by

    def __call__(self, asked: Sequence, ask: Callable[[], list[str]]) -> list[str]:
        """The answers to `asked` (as JSON takes it): those kept, else what `ask` gives. Silence is not kept."""
        digest = sha256(json.dumps([self.decided_by, asked]).encode())
        path = project.state() / "answers" / digest[:2] / f"{digest}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        answers = ask()
        if any(answers):
            write_json(path, answers)
        return answers
