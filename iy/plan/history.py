"""What the plan would have said of this project's last run beside what that took: the difference is added."""

import json

from iy import params, project, records
from iy.plan.stages import Stage


def last_run(settings: params.Params) -> tuple[int, dict[str, float]] | None:
    """Photos and seconds of every stage of the profile's last run here; None without one."""
    table = settings.photos_dir / "photos.parquet"
    try:
        taken = json.loads((project.state() / "durations.json").read_text(encoding="utf-8"))[settings.profile]
    except (OSError, ValueError, KeyError):
        return None
    if not table.exists():
        return None
    with records.opened(table, records.PHOTO) as file:
        return file.metadata.num_rows, taken


def corrected(stages: list[Stage], then: list[Stage], taken: dict[str, float]) -> list[Stage]:
    """`then`: the plan of the last run; what it was wrong by does not grow with the photos."""
    said = {one.name: one.seconds for one in then}
    return [
        one._replace(seconds=max(taken[one.name], one.seconds + taken[one.name] - said[one.name]))
        if one.name in taken
        else one
        for one in stages
    ]
