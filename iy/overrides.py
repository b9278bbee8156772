"""Settings changed for one run: KEY=VALUE as written on a command line, put in place of what a profile says."""

from typing import Any

import yaml

from iy import params
from iy.errors import UserError


def read(changes: list[str]) -> dict[str, Any]:
    """`a.b.c=value` lines as a mapping; values are YAML."""
    found = {}
    for one in changes:
        key, sign, value = one.partition("=")
        if not sign:
            raise UserError(f"--set {one}: write KEY=VALUE, for example --set finetune.stages.4.steps=40")
        found[key.strip()] = yaml.safe_load(value)
    return found


def changed(values: Any, overrides: dict[str, Any]) -> Any:
    """`values` with each `a.b.c` of `overrides` set in place."""
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = values
        for part in path:
            if not isinstance(place, dict):
                break
            place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UserError(f"override {key!r}: {key.rpartition('.')[0]!r} holds one value and has no keys below it")
        place[last] = value
    return values


def apply(settings: params.Params, changes: list[str]) -> params.Params:
    """The settings with `changes`, checked anew."""
    if not changes:
        return settings
    return params.parse(changed(settings.resolved(), read(changes)), "overrides")
