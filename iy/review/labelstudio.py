"""Label Studio's JSON: tasks with annotations of one choice and one text (https://labelstud.io/guide/export).

The labelling configuration that fits:

    <View>
      <Image name="reference" value="$reference"/>
      <Image name="image" value="$image"/>
      <Text name="caption" value="$caption"/>
      <Choices name="verdict" toName="image" choice="single">
        <Choice value="accepted"/>
        <Choice value="rejected"/>
      </Choices>
      <TextArea name="reason" toName="image"/>
    </View>
"""

import base64
import json
from pathlib import Path
from typing import Any

from iy import names
from iy.errors import UserError
from iy.records import ACCEPTED, REJECTED
from iy.review.log import Judgement
from iy.review.things import Thing, Things
from iy.review.verdicts import Judged
from iy.storage import write_bytes


def export(judged: Judged, things: Things, path: Path) -> int:
    """Every thing as a task, pictures inside it, with the judgements so far; how many."""
    tasks = [
        task(thing, things, [own[key] for own in judged.values() if key in own]) for key, thing in things.by_id.items()
    ]
    write_bytes(path, (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode())
    return len(tasks)


def task(thing: Thing, things: Things, judgements: list[Judgement]) -> dict[str, Any]:
    data = {
        "id": thing.row["id"],
        "kind": thing.kind,
        "caption": thing.row["caption"] or "",
        "image": embedded(things.image(thing, beside=False)),
        "reference": embedded(things.image(thing, beside=True)) if thing.beside else "",
    }
    return {"data": data, "annotations": [annotation(one) for one in judgements]}


def embedded(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def annotation(one: Judgement) -> dict[str, Any]:
    said = [{"from_name": "verdict", "to_name": "image", "type": "choices", "value": {"choices": [one.verdict]}}]
    if one.reason:
        said.append({"from_name": "reason", "to_name": "image", "type": "textarea", "value": {"text": [one.reason]}})
    return {"completed_by": {"email": one.reviewer}, "result": said}


def load(path: Path) -> list[Judgement]:
    """The judgements in an export; a task or annotation that is none is refused by its number."""
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a JSON file ({error})") from None
    if not isinstance(tasks, list):
        raise UserError(f"{path} is not a Label Studio export: a list of tasks is expected")
    found = []
    for number, one in enumerate(tasks, 1):
        try:
            found += [
                judgement(one["data"]["id"], given) for given in one["annotations"] if not given.get("was_cancelled")
            ]
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise UserError(f"{path}, task {number}: not a task with a verdict (lacks or misstates {error})") from None
    return found


def judgement(key: str, given: dict[str, Any]) -> Judgement:
    by = given["completed_by"]
    reviewer = names.clean(str(by.get("email") or by["id"] if isinstance(by, dict) else by))
    values = {one["from_name"]: one["value"] for one in given["result"]}
    verdict = values["verdict"]["choices"][0]
    if verdict not in (ACCEPTED, REJECTED) or not isinstance(key, str):
        raise ValueError(f"{verdict!r}")
    reason = " ".join(values["reason"]["text"][0].split()) if "reason" in values else ""
    return Judgement(key, verdict, reviewer, reason)
