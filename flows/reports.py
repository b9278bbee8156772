"""The reports that runs left, kept run by run under `.iy/reports`, and the pages that show them.

`python -m flows.reports PORT` answers this machine alone: a first page that says which run is which, the newest first,
and every file that it links to.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flows import orphans
from iy import project, report, web
from iy.storage import write_json

FACTS = "run.json"
PROCESS = "process"
WORKS = "still runs"
COMPLETE = "complete"
STOPPED = "was stopped; run the same again and it continues"
KILLED = "was killed; run the same again and it continues"


def folder(state: Path) -> Path:
    return state / "reports"


def begin(state: Path, run: str, name: str) -> None:
    """Note that the flow run `run`, called `name`, works from now on in this process."""
    write_json(
        folder(state) / run / FACTS,
        {"name": name, "began": datetime.now(UTC).isoformat(timespec="seconds"), PROCESS: orphans.tag()},
    )


def end(state: Path, run: str, how: str) -> None:
    """Note how it ended."""
    facts = noted(folder(state) / run)
    facts.pop(PROCESS, None)
    write_json(folder(state) / run / FACTS, facts | {"state": how})


@contextlib.contextmanager
def noting(state: Path, run: str, name: str) -> Iterator[None]:
    """While the run works, and how it ended."""
    begin(state, run, name)
    try:
        yield
    except BaseException as error:
        end(state, run, f"failed: {error}" if isinstance(error, Exception) else STOPPED)
        raise
    end(state, run, COMPLETE)


def noted(run: Path) -> dict[str, Any]:
    """What is known of the run that left this folder; of one from before there were notes, its folder's age."""
    try:
        return json.loads((run / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        began = datetime.fromtimestamp(run.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return {"name": run.name, "began": began, "state": ""}


def state_of(facts: dict[str, Any]) -> str:
    if PROCESS not in facts:
        return facts.get("state", "")
    return KILLED if orphans.ended(facts[PROCESS]) else WORKS


def index(reports: Path) -> str:
    """The first page: a row for each run, the newest first, with links to what its stages left."""
    # an erasure may have taken them away since
    runs = [(noted(run), run) for run in (reports.iterdir() if reports.is_dir() else ()) if run.is_dir()]
    runs.sort(key=lambda one: (one[0]["began"], one[1].name), reverse=True)
    rows = [[facts["name"], began(facts), state_of(facts), links(run)] for facts, run in runs]
    shown = [report.table(["Run", "Began", "State", "Reports"], rows)] if rows else []
    lead = "What each run left to look at, the newest first." if rows else "No run has left a report yet."
    return report.page("Reports", [("Runs", shown)] if shown else [], lead)


def began(facts: dict[str, Any]) -> str:
    """In this machine's time: `2026-11-27 14:05`."""
    return datetime.fromisoformat(facts["began"]).astimezone().strftime("%Y-%m-%d %H:%M")


def links(run: Path) -> Markup:
    """The stages in the order in which they were kept."""
    stages = sorted((one for one in run.iterdir() if one.is_dir()), key=lambda one: (one.stat().st_mtime, one.name))
    found = [Markup('<a href="{}">{}</a>').format(where, stage.name) for stage in stages for where in pages(run, stage)]
    return Markup(", ").join(found) or Markup("–")


def pages(run: Path, stage: Path) -> list[str]:
    """Where to look at what a stage left: its page, else its first picture."""
    if (stage / "index.html").exists():
        return [f"{run.name}/{stage.name}/"]
    pictures = sorted(path for kind in ("*.png", "*.jpg") for path in stage.rglob(kind))
    return [f"{run.name}/{path.relative_to(run).as_posix()}" for path in pictures[:1]]


def application(reports: Path, port: int) -> Starlette:
    def first(request: Request) -> Response:
        return HTMLResponse(index(reports))

    def icon(request: Request) -> Response:
        """None: browsers ask for one."""
        return Response(status_code=204)

    files = Mount("/", StaticFiles(directory=reports, html=True, check_dir=False))
    guard = Middleware(web.Guard, hosts={f"{name}:{port}" for name in (web.HERE, "localhost")}, largest=0)
    return Starlette(routes=[Route("/", first), Route("/favicon.ico", icon), files], middleware=[guard])


def main() -> None:
    port, reports = int(sys.argv[1]), folder(project.state())
    reports.mkdir(parents=True, exist_ok=True)
    web.run(application(reports, port), web.listen(web.HERE, port))


if __name__ == "__main__":
    main()
