"""What the page may ask for, checked: numbers in their bounds, no unknown key, and nothing that names a file."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

MOST_SEEDS, MOST_PEOPLE, MOST_MODELS = 8, 4, 2
LONGEST = 2000  # characters of a prompt; the encoders read fewer

Strength = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Guidance = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=8, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Key = Annotated[str, Field(min_length=1, max_length=200)]
Box = tuple[float, float, float, float]


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Person(Sent):
    """face: what the server called the photograph's face. region: (x0, y0, x1, y1) in shares of the picture."""

    face: Key
    strength: Strength
    region: Box | None

    @field_validator("region")
    @classmethod
    def holds_something(cls, box: Box | None) -> Box | None:
        if box is None:
            return None
        x0, y0, x1, y1 = box
        if not all(map(math.isfinite, box)) or not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError("left, top, right and bottom edge are shares of the picture: 0 to 1, the lower ones first")
        return box


class Style(Sent):
    """A LoRA of the folder that the page was started with, and its weight."""

    name: Key
    weight: Strength


class Drawing(Sent):
    """Everything that decides the pictures: the same drawing gives the same pictures.

    width, height: pixels; None is the model's own size. branches: strength per branch, 1 as it was trained.
    """

    models: Annotated[list[Key], Field(min_length=1, max_length=MOST_MODELS)]
    prompt: Annotated[str, Field(max_length=LONGEST)]
    negative: Annotated[str, Field(max_length=LONGEST)]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]
    steps: Annotated[int, Field(ge=1, le=200)]
    guidance: Guidance
    identity_guidance: Guidance
    width: Side | None
    height: Side | None
    people: Annotated[list[Person], Field(max_length=MOST_PEOPLE)]
    branches: dict[Key, Strength]
    styles: Annotated[list[Style], Field(max_length=MOST_PEOPLE)]

    @field_validator("prompt")
    @classmethod
    def says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("say what the picture shows")
        return prompt

    def options(self) -> dict[str, Any]:
        """The pipeline's keywords that all pictures share, those left out that would say what it does anyway."""
        found: dict[str, Any] = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "identity_guidance_scale": self.identity_guidance,
        }
        if self.negative.strip():
            found["negative_prompt"] = self.negative
        found |= {name: side for name in ("width", "height") if (side := getattr(self, name)) is not None}
        if any(person.strength != 1 for person in self.people):
            found["person_strength"] = [person.strength for person in self.people]
        if any(person.region for person in self.people):
            found["regions"] = [person.region or (0.0, 0.0, 1.0, 1.0) for person in self.people]
        if changed := {name: value for name, value in self.branches.items() if value != 1}:
            found["branch_strength"] = changed
        return found


def sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's complaints, with the place where it is."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{place}: {str(first['msg']).removeprefix('Value error, ')}"
