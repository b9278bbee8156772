"""Who becomes champion: one function from numbers to a verdict with its reason."""

from typing import NamedTuple

from iy import params
from iy.errors import UserError

PROMOTED, REFUSED = "promoted", "refused"
Metrics = dict[str, dict[str, float]]  # metric -> {value, low, high, n}


class Verdict(NamedTuple):
    verdict: str
    reason: str


def decide(candidate: Metrics, champion: Metrics | None, settings: params.Register) -> Verdict:
    """`candidate` replaces `champion` (None: none yet) when it draws what is asked and is not clearly less alike."""
    aligned = value(candidate, settings.alignment, "value")
    if aligned < settings.minimum_prompt_alignment:
        return Verdict(
            REFUSED,
            f"{settings.alignment} {aligned:.3f} is below register.minimum_prompt_alignment "
            f"{settings.minimum_prompt_alignment:.3f}",
        )
    own = value(candidate, settings.metric, "value")
    if champion is None:
        return Verdict(
            PROMOTED, f"the first of its name: {settings.metric} {own:.3f}, {settings.alignment} {aligned:.3f}"
        )
    if settings.metric not in champion:
        return Verdict(
            REFUSED, f"the champion was registered without {settings.metric}: promote by hand if this one is better"
        )
    low = value(champion, settings.metric, "low")
    if own < low:
        return Verdict(
            REFUSED, f"{settings.metric} {own:.3f} is below the champion's interval, which begins at {low:.3f}"
        )
    return Verdict(
        PROMOTED, f"{settings.metric} {own:.3f} is not below the champion's interval, which begins at {low:.3f}"
    )


def value(metrics: Metrics, name: str, part: str) -> float:
    try:
        found = metrics[name][part]
    except (KeyError, TypeError):
        raise UserError(
            f"register: the evaluation has no {name!r} with {part!r}; it has {', '.join(sorted(metrics))}: "
            "name one in register.metric and register.alignment"
        ) from None
    if found is None:
        raise UserError(f"register: {name} could not be measured (its {part} is null): see the evaluation's report")
    return float(found)
