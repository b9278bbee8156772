"""People choose by eye: nothing decided is lost, nothing shown is markup, nobody else can decide for them."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from flows import services
from flows.services import some_ports
from iy import records, storage
from iy.errors import UserError
from iy.params import load
from iy.review import labelstudio, verdicts
from iy.review.log import Judgement, Log
from iy.review.things import Things
from iy.select import decisions
from tests import browser
from tests.depth import depth

HERE = Path(__file__).resolve().parents[1]
JUDGED = depth(60, 200)
MARKUP = "<img src=x onerror=\"document.title='broken in'\"><b>bold</b>"


def one(key: str, verdict: str = "accepted", reviewer: str = "ana", reason: str = "") -> Judgement:
    return Judgement(key, verdict, reviewer, reason)


def test_a_log_is_read_back_as_it_was(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(one("1"), one("2", "rejected", reason="“blurred”, truly"), one("1", reviewer="ben"))
    log.add(one("1", "rejected"))
    assert log.undo("ben") == one("1", reviewer="ben") and log.undo("ben") is None and log.undo("nobody") is None
    again = Log(tmp_path / "log.jsonl")
    assert (
        again.judged
        == log.judged
        == {"ana": {"2": one("2", "rejected", reason="“blurred”, truly"), "1": one("1", "rejected")}, "ben": {}}
    )
    assert again.undo("ana") == one("1", "rejected"), "the last judgement goes first"


def test_a_reviewer_has_one_voice_however_the_name_is_spelt(tmp_path):
    composed, apart = "Jos\u00e9", " Jose\u0301 "
    log = Log(tmp_path / "log.jsonl")
    log.add(
        one("1", "rejected", composed), one("1", "rejected", apart), one("1", reviewer="ben"), one("2", reviewer=apart)
    )
    assert set(Log(tmp_path / "log.jsonl").judged) == {composed, "ben"} and set(log.of(apart)) == {"1", "2"}
    assert verdicts.settled(log.judged)[1] == ["1"], "one against one is a tie"
    assert log.undo(composed) == one("2", reviewer=composed) and log.undo(apart).id == "1"


def test_half_a_line_of_a_killed_process_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "log.jsonl"
    Log(path).add(one("1"), one("2"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "3", "verd')
    log = Log(path)
    assert set(log.judged["ana"]) == {"1", "2"} and path.read_bytes() == whole
    log.add(one("3"))
    assert set(Log(path).judged["ana"]) == {"1", "2", "3"}


def test_two_processes_see_each_others_judgements(tmp_path):
    first, second = Log(tmp_path / "log.jsonl"), Log(tmp_path / "log.jsonl")
    first.add(one("1"))
    second.add(one("2", reviewer="ben"))
    first.add(one("3"))
    second.refresh()
    assert (
        first.judged == second.judged == {"ana": {"1": one("1"), "3": one("3")}, "ben": {"2": one("2", reviewer="ben")}}
    )


def test_what_is_no_log_is_said(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(UserError, match="log.jsonl, byte 0: not a line of a review's log"):
        Log(tmp_path / "log.jsonl")


def judged(*judgements: Judgement) -> dict:
    found: dict[str, dict[str, Judgement]] = {}
    for each in judgements:
        found.setdefault(each.reviewer, {})[each.id] = each
    return found


def test_the_majority_decides_and_ties_are_left_out(tmp_path):
    several = judged(
        one("1"),
        one("1", "rejected", "ben", "blurred"),
        one("1", "rejected", "cleo"),
        one("2"),
        one("3"),
        one("3", "rejected", "ben"),
    )
    decided, tied = verdicts.settled(several)
    assert decided == [one("1", "rejected", "ben, cleo", "blurred"), one("2")] and tied == ["3"]
    assert verdicts.export(several, tmp_path / "d.csv") == (2, 1)
    read = decisions.read(tmp_path / "d.csv")
    assert {key: (row.verdict, row.reviewer, row.reason) for key, row in read.items()} == {
        "1": ("rejected", "ben, cleo", "blurred"),
        "2": ("accepted", "ana", ""),
    }, "select reads what is written"
    assert verdicts.load(tmp_path / "d.csv") == decided


def test_agreement_is_cohens_kappa():
    """Ten in common, eight alike; by chance .6 x .6 + .4 x .4 = .52: kappa is (.8 - .52) / (1 - .52)."""
    ana = [one(str(i), "accepted" if i < 6 else "rejected") for i in range(10)]
    ben = [one(str(i), "accepted" if i < 5 or i == 6 else "rejected", "ben") for i in range(10)]
    (row,) = verdicts.agreement(judged(*ana, *ben, one("x", reviewer="ben")))
    assert row["both"] == 10 and row["alike"] == 0.8 and row["kappa"] == pytest.approx((0.8 - 0.52) / (1 - 0.52))
    assert verdicts.agreement(judged(one("1"), one("1", reviewer="ben")))[0]["kappa"] is None, "all alike: undefined"


@pytest.fixture
def collection(project):
    """210 pairs of three train people and their nine photos; one person is held out."""
    rng = np.random.default_rng(0)
    folder = {"photos": project / "data/studio/photos", "synpairs": project / "data/studio/synpairs"}

    def shard(kind: str, names: list[str]) -> list[dict]:
        pictures = [storage.png(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in names]
        places = storage.write_shard(
            folder[kind] / "0.tar", [(f"{name}.png", data) for name, data in zip(names, pictures, strict=True)]
        )
        return [{"id": name, **place._asdict()} for name, place in zip(names, places, strict=True)]

    photos = [
        row
        | {
            "person": f"p{i // 3}",
            "split": "test" if i // 3 == 3 else "train",
            "verdict": "accepted",
            "quality": i / 20,
            "caption": MARKUP,
            "reason": "",
        }
        for i, row in enumerate(shard("photos", [f"photo{i:02d}" for i in range(12)]))
    ]
    pairs = [
        row
        | {
            "person": f"p{i % 4}",
            "reference": f"photo{3 * (i % 4):02d}",
            "similarity": [0.1, i / 1000],
            "kept_pass": 1,
            "caption": f"{MARKUP} number {i}",
            "verdict": "accepted" if i % 2 else "rejected",
            "reason": MARKUP,
        }
        for i, row in enumerate(shard("synpairs", [f"pair{i:03d}" for i in range(280)]))
    ]
    records.write(project / "data/studio/curate/photos.parquet", photos, records.PHOTO)
    records.write(folder["synpairs"] / "pairs.parquet", pairs, records.PAIR)
    return project


def test_train_people_alone_are_judged_the_best_first_beside_another_photo(collection):
    things = Things(load())
    pairs, photos = things.pick("pairs", None), things.pick("photos", None)
    assert len(pairs) == 210 and len(photos) == 9 and all(thing.row["person"] != "p3" for thing in pairs + photos)
    assert [thing.row["id"] for thing in photos[:2]] == ["photo08", "photo07"]
    assert pairs[0].row["verdict"] == "accepted" and all(
        thing.beside["id"] == thing.row["reference"] for thing in pairs
    )
    assert all(thing.beside["person"] == thing.row["person"] and thing.beside is not thing.row for thing in photos)
    assert {thing.row["verdict"] for thing in things.pick("pairs", "rejected")} == {"rejected"}


def test_label_studio_takes_and_gives(collection, tmp_path):
    things = Things(load())
    some = judged(one("pair001", "rejected", reason="blurred"), one("pair001", reviewer="ben"), one("photo01"))
    assert labelstudio.export(some, things, tmp_path / "tasks.json") == len(things.by_id)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    assert judged(*labelstudio.load(tmp_path / "tasks.json")) == some
    tasks[3]["annotations"] = [{"completed_by": 7, "result": []}]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    with pytest.raises(UserError, match="tasks.json, task 4: not a task with a verdict"):
        labelstudio.load(tmp_path / "tasks.json")


def answers(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """`iy review` in a process of its own."""

    def __init__(self, folder, port):
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        self.start()

    def start(self):
        command = [sys.executable, "-m", "iy", "review", "--port", str(self.port)]
        self.child = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, text=True)
        assert "every judgement goes to" in self.child.stdout.readline()
        browser.wait(self.answers, 60, "iy review")

    def answers(self):
        return answers(self.port)

    def ask(self, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def judged(self):
        path = self.folder / "reviews/studio/log.jsonl"
        return Log(path).judged.get("Ana Ö.", {})


@pytest.fixture
def server(collection):
    running = Server(collection, some_ports(1)[0])
    yield running
    running.child.send_signal(signal.SIGINT)
    assert running.child.wait(30) in (0, 130)


def test_nobody_else_can_ask_or_decide(server):
    decision = {"id": "pair001", "verdict": "accepted", "reviewer": "Ana Ö.", "reason": ""}
    page = server.ask("/")[1]
    token = page.split('const token = "')[1].split('"')[0]
    assert server.ask("/judgements", decision)[0] == 403, "another site cannot read the token"
    assert server.ask("/judgements", decision, X_Review_Token="guessed")[0] == 403
    assert server.ask("/", Host="evil.example")[0] == 403, "a foreign name that points here"
    assert server.ask("/judgements", decision, X_Review_Token=token, Host="evil.example:80")[0] == 403
    assert not server.judged()
    for wrong in (
        {"id": "photo11"},
        {"id": "../../etc/passwd"},
        {"verdict": "maybe"},
        {"reviewer": " "},
        {"reviewer": "a\nb"},
        {"reason": "x" * 501},
        {"more": 1},
    ):
        assert server.ask("/judgements", decision | wrong, X_Review_Token=token)[0] in (404, 422), wrong
    assert server.ask("/picture/photo11/own")[0] == 404, "a held-out person's picture"
    assert server.ask("/picture/..%2F..%2Fparams.yaml/own")[0] == 404
    assert server.ask("/judgements", decision, X_Review_Token=token)[0] == 200 and set(server.judged()) == {"pair001"}
    elsewhere = next(
        (
            address[4][0]
            for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
            if not address[4][0].startswith("127.")
        ),
        None,
    )
    if elsewhere:
        with socket.socket() as trial:
            assert trial.connect_ex((elsewhere, server.port)) != 0, "not reachable from another address"


def test_a_port_in_use_and_a_review_without_judgements_are_said(server):
    again = subprocess.run(
        [sys.executable, "-m", "iy", "review", "--port", str(server.port)],
        cwd=server.folder,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 2 and f"error: port {server.port}" in again.stderr
    (server.folder / "reviews/studio/log.jsonl").unlink()
    empty = subprocess.run(
        [sys.executable, "-m", "iy", "review", "export", "d.csv"], cwd=server.folder, capture_output=True, text=True
    )
    assert empty.returncode == 2 and "nobody has judged anything yet" in empty.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium")
def test_judgements_by_keyboard_survive_a_kill(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 900})
        page.goto(server.url)
        page.fill("#reviewer", "Ana Ö.")
        page.press("#reviewer", "Enter")
        page.wait_for_selector("#own[data-id]")
        assert page.inner_text("#caption").startswith(MARKUP) and page.title() == "Review", "a caption is text"
        assert MARKUP in page.inner_text("#facts")
        made = press(page, JUDGED // 2)
        server.child.send_signal(signal.SIGKILL)
        server.child.wait(30)
        assert set(made) == set(server.judged()), "whatever the page said was saved is on disk"
        page.keyboard.press("a")
        page.wait_for_selector(".trouble")
        assert "Not saved" in page.inner_text("#said")
        server.start()
        page.keyboard.press("a")
        page.wait_for_selector("#said:has-text('load it again')")
        page.reload()
        page.wait_for_selector("#own[data-id]")
        made += press(page, JUDGED - len(made))
        assert len(set(made)) == JUDGED and set(server.judged()) == set(made)
        page.keyboard.press("u")
        page.wait_for_selector("#said:has-text('taken back')")
        assert page.get_attribute("#own", "data-id") == made[-1] and len(server.judged()) == JUDGED - 1
        chromium.close()
    reasons = {one.reason for one in server.judged().values() if one.verdict == "rejected"}
    assert reasons == {"", "eyes closed"}
    done = subprocess.run(
        [sys.executable, "-m", "iy", "review", "export", "d.csv"],
        cwd=server.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{JUDGED - 1} decided, 0 tied" in done.stdout
    assert len(decisions.read(server.folder / "d.csv")) == JUDGED - 1


def press(page, count: int) -> list[str]:
    """Judge `count` things by keyboard; the ids that the page says were saved."""
    made = []
    for i in range(count):
        key = page.get_attribute("#own", "data-id")
        page.keyboard.press("ar3"[i % 3])
        page.wait_for_selector(f"#own:not([data-id='{key}'])")
        made.append(key)
    return made


WAITING = """
from pathlib import Path
from prefect import flow
from flows import review
from iy.params import load

@flow
def waiting():
    review.wait(Path("."), load())

waiting()
"""


def test_a_run_that_needs_people_waits_for_them_in_prefect(collection, tmp_path):
    """Paused with a link while anything is undecided, whoever presses Resume; it goes on with the last judgement."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    profile = collection / "profiles/studio.yaml"
    text = profile.read_text().replace("decisions: null", "decisions: decisions/studio.csv")
    profile.write_text(text.replace("review: optional", "review: required"))
    assert load().select.review == "required"
    (collection / "waiting.py").write_text(WAITING)
    things = [key for key, thing in Things(load()).by_id.items() if thing.row["verdict"] == "accepted"]
    service = services.prefect(some_ports(1)[0], {"PREFECT_HOME": str(tmp_path / "prefect")})
    service.start(tmp_path)
    environment = {**os.environ, **service.variables, "PYTHONPATH": str(HERE)}
    service.wait(tmp_path)
    child = subprocess.Popen([sys.executable, "waiting.py"], cwd=collection, env=environment)
    try:
        with (
            temporary_settings({PREFECT_API_URL: service.variables["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):

            def state(kind: str) -> bool:
                assert child.poll() in (None, 0)
                return [run.state.name for run in client.read_flow_runs()] == [kind]

            browser.wait(lambda: state("Paused"), 90, "the run to pause")
            (run,) = client.read_flow_runs()
            count, page = len(things), "http://127.0.0.1:4290"
            assert f"{count} of {count} photos and pairs are not decided; judge them on {page}" in run.state.message
            browser.wait(lambda: answers(4290), 60, "iy review")
            assert urllib.request.urlopen(page, timeout=30).status == 200
            log = Log(collection / "reviews/studio/log.jsonl")
            log.add(*(one(key) for key in things[:-1]))
            assert client.resume_flow_run(run.id).status.value == "ACCEPT"
            browser.wait(
                lambda: f": 1 of {count}" in (client.read_flow_run(run.id).state.message or ""),
                60,
                "the run to pause again",
            )
            log.add(one(things[-1], "rejected"))
            assert child.wait(60) == 0 and client.read_flow_run(run.id).state.is_completed()
    finally:
        child.kill()
        services.stop_all([service])
    assert decisions.read(collection / "decisions/studio.csv").keys() == set(things)
    assert not answers(4290), "the page ended with the wait"
