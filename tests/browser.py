"""Prefect's pages in a real Chromium: press Run, fill the form, cancel, and read what the page shows."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.services import some_ports
from tests import toy_project

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 120_000  # ms for one element: a busy machine draws pages slowly


@contextlib.contextmanager
def services(project: Path, code: Path) -> Iterator[str]:
    """`python -m flows.ui` in `project` with the code of `code`; yields Prefect's address, ends it as Ctrl-C does."""
    prefect, mlflow, reports = some_ports(3)
    command = [
        sys.executable,
        "-m",
        "flows.ui",
        "--prefect-port",
        str(prefect),
        "--mlflow-port",
        str(mlflow),
        "--reports-port",
        str(reports),
    ]
    log = project.parent / f"{project.name}-ui.log"
    with log.open("w") as out:
        child = subprocess.Popen(
            command,
            cwd=project,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=toy_project.environment(project) | {"PYTHONPATH": str(code)},
        )
    try:
        wait(lambda: "Ready" in log.read_text() or child.poll() is not None, 480, "flows.ui")
        assert child.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{prefect}"
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(90)


def wait(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: nothing after {seconds} s"
        time.sleep(0.3)
    return value


class Prefect:
    """The pages (through Chromium) and, to know what to look for, the API behind them."""

    def __init__(self, base: str, page):
        self.base, self.page = base, page

    def api(self, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.base}/api{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def deployments(self) -> dict[str, str]:
        return {one["name"]: one["id"] for one in self.api("/deployments/filter", {})}

    def open(self, path: str) -> None:
        self.page.goto(self.base + path, wait_until="domcontentloaded", timeout=PATIENCE)

    def look_away(self) -> None:
        """A page that follows a run takes a third of a processor from it."""
        self.page.goto("about:blank")

    def press_run(self, deployment: str, profile: str | None = None, overrides: dict | None = None) -> str:
        """Run → Quick run, or Custom run with the form filled in; the new flow run's id."""
        before = {one["id"] for one in self.api("/flow_runs/filter", {})}
        self.open(f"/deployments/deployment/{self.deployments()[deployment]}")
        self.page.get_by_role("button", name="Run", exact=True).click()
        if profile is None:
            self.page.get_by_text("Quick run").click()
        else:
            self.page.get_by_text("Custom run").click()
            self.choose(profile)
            if overrides:
                self.page.locator("textarea.p-code-input__textarea").first.fill(json.dumps(overrides))
        return wait(lambda: self.submitted(before), 90, "a new flow run").pop()

    def submitted(self, before: set[str]) -> set[str]:
        """The runs that were not there `before`. A form that still stands open is submitted (again): on a busy machine
        it now and then overlooks the button."""
        button = self.page.get_by_role("button", name="Submit")
        if button.is_visible() and button.is_enabled():
            with contextlib.suppress(Exception):  # it may go while it is pressed
                button.click(timeout=3000)
        with contextlib.suppress(AssertionError):
            wait(lambda: {one["id"] for one in self.api("/flow_runs/filter", {})} - before, 15, "a run")
        return {one["id"] for one in self.api("/flow_runs/filter", {})} - before

    def choose(self, profile: str) -> None:
        box, option = (
            self.page.locator("button.p-select-button__control").first,
            self.page.locator(".p-select-option").get_by_text(profile, exact=True),
        )
        box.wait_for()
        for _ in range(10):
            box.focus()
            self.page.keyboard.press("ArrowDown")
            with contextlib.suppress(Exception):
                option.first.wait_for(timeout=3000)
                option.first.click()
                break
        self.page.locator("button.p-select-button__control", has_text=profile).first.wait_for()

    def state(self, run: str) -> str:
        return self.api(f"/flow_runs/{run}")["state"]["name"]

    def ends(self, run: str, seconds: float) -> str:
        wait(
            lambda: self.api(f"/flow_runs/{run}")["state"]["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"),
            seconds,
            "the end of the run",
        )
        return self.state(run)

    def tasks(self, run: str) -> dict[str, dict]:
        return {one["name"]: one for one in self.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})}

    def said(self, run: str) -> str:
        """The run's log, its tasks' included."""
        return "\n".join(
            one["message"]
            for one in self.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        )

    def links(self, run: str) -> dict[str, set[str]]:
        """What the graph on the run's page draws: each task with those it follows."""
        nodes = {node["id"]: node for _, node in self.api(f"/flow_runs/{run}/graph-v2")["nodes"]}
        return {node["label"]: {nodes[parent["id"]]["label"] for parent in node["parents"]} for node in nodes.values()}

    def shown(self, run: str, tab: str, words: list[str]) -> str:
        """The text of the run's page once its `tab` shows all `words`."""
        self.open(f"/runs/flow-run/{run}")
        self.page.get_by_role("tab", name=tab).or_(self.page.get_by_text(tab, exact=True)).last.click()
        for word in words:
            self.page.get_by_text(word, exact=True).first.wait_for(timeout=PATIENCE)
        return self.page.inner_text("body")

    def press_cancel(self, run: str) -> None:
        """Cancel → confirm, on the run's page (already open or not)."""
        if run not in self.page.url:
            self.open(f"/runs/flow-run/{run}")
        self.page.get_by_role("button", name="Cancel", exact=True).first.click()
        self.page.get_by_role("button", name="Confirm", exact=True).click()
