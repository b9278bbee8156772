"""The flows: every stage of dvc.yaml in the order of what it needs, and one flow for each stage.

The profile that params.yaml names runs in place; anything else runs in a worktree and becomes a DVC experiment.
"""

import os
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from prefect import Flow, State, flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import artifacts, durations, experiment, graph, orphans, reports, review, unfinished
from flows.place import DEFAULT, Place, called, place
from flows.stage import repro
from iy import erased, params
from iy.errors import UserError
from iy.photos.own import own_photos, stated
from iy.process import die_with_parent

Profile = Literal[tuple([DEFAULT, *params.profiles()])]
FORM = """

Args:
    profile: Settings to run with. params.yaml: the profile named there; it runs in the project, others in a worktree.
    photos: Your own photographs: a folder, s3://bucket/folder, a folder of tars, or a table. Empty: the profile's.
    overrides: Changed settings, e.g. {"finetune.stages.4.steps": 40}. Files stay: the run becomes a DVC experiment.
    force: Run also what has not changed.
"""


def what() -> str:
    """The run's name in Prefect."""
    given = flow_run.parameters
    return called(given["profile"], given["photos"], given["overrides"])


def make(name: str, target: str | None, purpose: str) -> Flow:
    """A flow whose parameters become a form in Prefect's pages."""

    def one(
        profile: Profile = DEFAULT,  # pyright: ignore[reportInvalidTypeForm] (the profiles that there are)
        photos: str = "",
        overrides: dict[str, Any] = {},  # noqa: B006 (a form's default, never changed)
        force: bool = False,
    ) -> State:
        return follow(target, None if profile == DEFAULT else profile, photos, overrides, force)

    one.__name__ = one.__qualname__ = name
    one.__doc__ = purpose + FORM
    return flow(name=name, flow_run_name=what, description=purpose)(one)


pipeline = make(
    "pipeline",
    None,
    "Photos to registered model: every stage of dvc.yaml, each after what it needs; unchanged stages are Cached.",
)


def stage_flow(name: str) -> Flow:
    """A flow that brings stage `name` up to date after the stages that it needs."""
    return make(name, name, f"Stage {name}, after whatever it needs that is not up to date. Force reruns {name} alone.")


def __getattr__(name: str) -> Flow:
    """`flows.pipeline.curate` and so on: one flow for each stage that dvc.yaml states."""
    if name.startswith("_") or name not in graph.names():
        raise AttributeError(name)
    globals()[name] = stage_flow(name)
    return globals()[name]


def follow(target: str | None, profile: str | None, photos: str, overrides: dict[str, Any], force: bool) -> State:
    """Run `target` (None: all) and what it needs, one task each; the state tells the first failure in one line."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # started by a runner; a run from a shell may outlive its terminal
        die_with_parent()
        unfinished.sign()
    log = get_run_logger()
    orphans.sweep(log.warning)
    try:
        erased.keep(log.warning)
        changes = stated({**(own_photos(photos) if photos else {}), **overrides})
        with place(profile, changes, log.info) as where, reports.noting(where.state, run_id(), what()):
            failed = run_stages(where, target, force)
            if failed:
                raise Stopped(failed.message)
            places = finish(where, target, log.info)
    except (UserError, Stopped) as error:  # Prefect logs the message with the state
        return Failed(message=str(error))
    return Completed(message="up to date", data=places)


class Stopped(Exception):
    """A stage failed; the worktree, if any, is kept."""


def run_stages(where: Place, target: str | None, force: bool) -> State | None:
    """The first state that is not Completed, or None."""
    needs = graph.upstream(where.folder)
    stages = needed(needs, target)
    profile = where.settings.profile
    get_run_logger().info(durations.expected(where.state, profile, stages))
    progress = create_progress_artifact(0.0, key="pipeline-progress", description=f"stages done, of {len(stages)}")
    assert isinstance(progress, UUID)  # a coroutine only where one is awaited
    states: dict[str, State] = {}
    for number, stage in enumerate(stages, 1):
        if stage == "select" and where.settings.select.review == "required":
            review.wait(where.folder, where.settings)
        states[stage] = repro(
            stage,
            str(where.folder),
            str(where.state),
            force and target in (None, stage),
            run_id(),
            wait_for=[states[before] for before in needs[stage]],
            return_state=True,
        )
        if not states[stage].is_completed():
            return states[stage]
        if seconds := states[stage].result():
            durations.note(where.state, profile, stage, seconds)
        artifacts.publish(stage, where, states[stage].name or "Completed")
        update_progress_artifact(progress, 100 * number / len(stages))
    return None


def needed(needs: dict[str, list[str]], target: str | None) -> list[str]:
    """`target` (None: every stage) and all that it reads from, directly or not, in their order."""
    found = set(needs) if target is None else {target}
    for stage in reversed(list(needs)):
        if stage in found:
            found.update(needs[stage])
    return [stage for stage in needs if stage in found]


def run_id() -> str:
    """What ties the stages' MLflow runs together: one parent run for this flow run."""
    return str(flow_run.id)


def finish(where: Place, target: str | None, say: Callable[[str], None]) -> dict[str, str]:
    """Save the experiment, bring another profile's outputs home, and say where to look."""
    home = where.name is None
    if where.name:
        experiment.save(where.home, where.folder, where.name, needed(graph.upstream(where.folder), target))
        moved = experiment.bring(where.home, where.folder)
        home = bool(moved)
        say(
            f"saved as DVC experiment {where.name!r}: `dvc exp show` lists it, `dvc exp apply {where.name}` restores it"
            + (f" (DVC then misses what comes after {target}, which was not asked for)" if target else "")
            + (f"; outputs are in {', '.join(moved)}" if moved else "")
        )
    return artifacts.summary(where, run_id(), home)
