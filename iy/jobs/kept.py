"""What was computed and may be asked for again, as long as it fits; what was not asked for the longest goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Kept:
    """At most `most` bytes of answers by key; `weigh` says how many bytes an answer holds."""

    def __init__(self, most: int, weigh: Callable[[Any], int]):
        self.most, self.weigh, self.held = most, weigh, 0
        self.answers: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The answer of `key`, made if it is not held."""
        if key in self.answers:
            self.answers.move_to_end(key)
            return self.answers[key][0]
        answer = make()
        size = self.weigh(answer)
        self.answers[key] = answer, size
        self.held += size
        while self.held > self.most and len(self.answers) > 1:
            _, (_, size) = self.answers.popitem(last=False)
            self.held -= size
        return answer

    def forget(self) -> None:
        self.answers.clear()
        self.held = 0
