"""What a row of a job table may say, and what is wrong with one: its number, the column, and the remedy.

A row names a photograph (`reference`) or a person of the curated collection (`person`), a `prompt`, and whatever it
wants otherwise than the settings' `draw` says. Several people in one picture are a JSON list: `["a.jpg", "b.jpg"]`.
"""

import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from iy import names, spreadsheet
from iy.errors import UserError
from iy.spreadsheet import Row

SPELLINGS = {
    "reference": ("reference", "references", "photo", "photos", "image", "uri", "file_name"),
    "person": ("person", "people", "label", "person_name", "person_id", "identity"),
    "prompt": ("prompt", "caption", "text"),
    "negative_prompt": ("negative_prompt", "negative"),
    "seed": ("seed",),
    "name": ("name",),
    "steps": ("steps", "num_inference_steps"),
    "guidance": ("guidance", "guidance_scale"),
    "identity_guidance": ("identity_guidance", "identity_guidance_scale"),
    "guidance_rescale": ("guidance_rescale",),
    "width": ("width",),
    "height": ("height",),
    "person_strength": ("person_strength",),
    "branch_strength": ("branch_strength",),
    "regions": ("regions",),
}
MEANING = {names.folded(spelling): ours for ours, several in SPELLINGS.items() for spelling in several}
LONGEST = 65536  # characters of a prompt
log = logging.getLogger(__name__)


def opened(value: Any) -> Any:
    """JSON that stands in a cell, as CSV can hold no other lists."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("it is no JSON") from None
    return value


def listed(value: Any) -> Any:
    value = opened(value)
    return list(value) if isinstance(value, list | tuple) else [value]


def no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it is no number")
    return value


def whole(value: str) -> str:
    """JSON may hold halves of characters, which no tokenizer reads, and zero bytes, which no file's name holds."""
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("it is no text")
    return value


Whole = Annotated[int, BeforeValidator(no_truth)]
Number = Annotated[float, BeforeValidator(no_truth), Field(ge=-100, le=100, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(whole)]
Names = Annotated[list[Text], Field(min_length=1, max_length=8), BeforeValidator(listed)]
Part = Annotated[float, Field(ge=0, le=1)]
Box = tuple[Part, Part, Part, Part]


class Asked(BaseModel):
    """What one row asks for; None where it says nothing. A field's description says what would be right."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    reference: Names | None = Field(None, description="give the file of a photograph, or a JSON list of several")
    person: Names | None = Field(None, description="give a person of the collection, or a JSON list of several")
    prompt: Text = Field(description="say what the picture shows")
    negative_prompt: Text | None = Field(None, description="say what the picture shall not show")
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] | None = Field(None, description="give a whole number, 0 or more")
    name: Text | None = Field(None, description="give the picture's file a plain name")
    steps: Annotated[Whole, Field(ge=1, le=1000)] | None = Field(None, description="give a whole number, 1 to 1000")
    guidance: Number | None = Field(None, description="give a number, such as 3.0")
    identity_guidance: Number | None = Field(None, description="give a number, such as 3.0")
    guidance_rescale: Annotated[Number, Field(ge=0, le=1)] | None = Field(None, description="give a number, 0 to 1")
    width: Annotated[Whole, Field(ge=1)] | None = Field(None, description="give a number of pixels")
    height: Annotated[Whole, Field(ge=1)] | None = Field(None, description="give a number of pixels")
    person_strength: Annotated[list[Number], BeforeValidator(listed)] | None = Field(
        None, description="give a number, 1 is as trained; for several people a JSON list"
    )
    branch_strength: Annotated[dict[str, Number], BeforeValidator(opened)] | None = Field(
        None, description='give a JSON object, such as {"vision": 0.5}'
    )
    regions: Annotated[list[Box], BeforeValidator(opened)] | None = Field(
        None, description="give a JSON list of a box [x0, y0, x1, y1] a person, in shares of the picture, 0 to 1"
    )


class Wrong(Exception):
    """What is wrong with one row, in one sentence."""


@lru_cache(4096)
def meaning(name: str) -> str | None:
    """Our name for the column `name`; None for what is not read."""
    return MEANING.get(names.folded(name))


@lru_cache(4096)
def nearly(name: str) -> str | None:
    """Which of our names `name` nearly is, without being it."""
    own = names.folded(name)
    close = names.near(name, MEANING) if len(own) > 3 and own not in MEANING else []
    return MEANING[close[0]] if close else None


def check(columns: list[str], path: Path) -> None:
    """Refuse a table without prompts or people, or that says one thing in two columns."""
    found = [ours for name in columns if (ours := meaning(name))]
    if twice := sorted({ours for ours in found if found.count(ours) > 1}):
        raise UserError(f"{path} has two columns for {twice[0]}: keep one")
    if "prompt" not in found or not {"reference", "person"} & set(found):
        raise UserError(
            f"{path}: columns prompt and one of reference, person are needed; it has "
            f"{', '.join(columns)[:200] or 'none'}"
        )


def used(field: pa.Field) -> bool:
    """Is a parquet's column read? One that is nearly ours is, so that it is told."""
    return bool(meaning(field.name) or nearly(field.name))


def rows(path: Path) -> Iterable[Row]:
    """The rows of a job table."""
    return spreadsheet.rows(path, spreadsheet.Asked(check, used))


def asked(row: Row) -> Asked:
    """What a row asks for. Raises `Wrong`."""
    if row.reason:
        raise Wrong(row.reason)
    told = said(row.said)
    try:
        found = Asked.model_validate(told)
    except ValidationError as error:
        raise Wrong(sentence(error, told)) from None
    if (found.reference is None) == (found.person is None):
        raise Wrong("column reference or person: fill in one of them, and not both")
    people = len(found.reference or found.person or ())
    for column, several in (("person_strength", found.person_strength), ("regions", found.regions)):
        if several is not None and len(several) != people:
            raise Wrong(f"column {column}: it has {len(several)} entries for {people} people: give one for each")
    return found


def said(pairs: spreadsheet.Said) -> dict[str, Any]:
    """What is filled in, by our names."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if spreadsheet.empty(value):
            continue
        if (ours := meaning(name)) is None:
            pass_over(name)
        elif ours in found:
            raise Wrong(f"column {name}: {ours} is said twice: keep one")
        else:
            found[ours] = value.strip() if isinstance(value, str) else value
    return found


def pass_over(name: str) -> None:
    if ours := nearly(name):
        raise Wrong(f"column {name!r:.60}: it is nearly {ours}: call it {ours}, or take it out")
    warn_once(name)


@lru_cache(256)
def warn_once(name: str) -> None:
    log.warning("column %.60r is not read", name)


def sentence(error: ValidationError, told: dict[str, Any]) -> str:
    column = str(error.errors()[0]["loc"][0])
    remedy = Asked.model_fields[column].description
    if column not in told:
        return f"column {column}: nothing is there: {remedy}"
    return f"column {column}: {told[column]!r:.60} does not do: {remedy}"
