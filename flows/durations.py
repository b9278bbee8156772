"""About how long each stage takes: from this project's last runs, else from the figures in durations.yaml."""

import json
from pathlib import Path

import yaml

from iy.storage import write_json

SHIPPED = Path(__file__).with_name("durations.yaml")


def note(state: Path, profile: str, stage: str, seconds: float) -> None:
    """Keep what a stage took that really ran."""
    kept = own(state)
    kept.setdefault(profile, {})[stage] = round(seconds, 1)
    write_json(state / "durations.json", kept)


def own(state: Path) -> dict[str, dict[str, float]]:
    """What the last runs of this project took, by profile and stage."""
    try:
        return json.loads((state / "durations.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def shipped(profile: str) -> tuple[dict[str, float], str]:
    """Seconds by stage as they were measured elsewhere, and where; nothing where nobody has measured."""
    try:
        found = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
        return found["seconds"][profile], found["machine"]
    except KeyError:
        return {}, ""


def expected(state: Path, profile: str, stages: list[str]) -> str:
    """One line: how many stages, about how long each, and where these figures come from."""
    here = own(state).get(profile, {})
    elsewhere, machine = shipped(profile)
    if not here and not elsewhere:
        return f"{len(stages)} stages: {', '.join(stages)}; how long each takes here is told from the second run on"
    times = {stage: here.get(stage, elsewhere.get(stage)) for stage in stages}
    each = ", ".join(f"{stage} {about(seconds)}" for stage, seconds in times.items())
    borrowed = [stage for stage in stages if stage not in here and stage in elsewhere]
    source = f"measured on {machine}" if len(borrowed) == len(stages) else f"{', '.join(borrowed)} on {machine}"
    label = f" ({source})" if borrowed else " (as last time here)" if here else ""
    whole = f", about {about(sum(filter(None, times.values())))} if all run" if all(times.values()) else ""
    return f"{len(stages)} stages{whole}: {each}{label}; what has not changed is taken from an earlier run"


def about(seconds: float | None) -> str:
    """`40 s`, `12 min`, `3.5 h`; a question mark where nobody has measured."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
