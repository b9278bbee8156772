"""The page to play with: it draws what the pipeline draws, tells errors in sentences, and nobody else can use it."""

import asyncio
import base64
import http.client
import io
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import uvicorn
import yaml
from PIL import Image
from safetensors.torch import save_file

from iy import params, web
from iy.errors import UserError
from iy.faces import recogniser_name
from iy.pictures import Limits
from iy.play import commands, pages
from iy.play.asked import Drawing
from iy.play.easel import Easel
from iy.play.events import lines
from iy.play.models import Models, on_disk
from iy.play.server import LARGEST, application
from iy.play.styles import styles_in
from iy.policy import people
from iy.policy.people import BLOCKED, Person
from iy.provenance.read import read
from iy.storage import png
from tests import att_faces, browser

ASKED = {
    "prompt": "a smiling person in a blue jacket",
    "negative": "",
    "seeds": [3, 4],
    "steps": 2,
    "guidance": 3.0,
    "identity_guidance": 2.0,
    "width": None,
    "height": None,
    "people": [],
    "branches": {},
    "styles": [],
}
LOGIN = web.Login("ana", "a long password")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project folder whose stages 1 and 2 have run, with a random tiny model; a LoRA for it; photographs."""
    import torch

    from iy.diffusion import load_base
    from iy.model import ImagineYourselfPipeline, Personaliser, bundle
    from tests.drawing import style
    from tests.tiny import moved, tiny_base, tiny_settings

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("project")
    settings = params.parse(tiny_settings(tiny_base(root / "base")), "tiny")
    base = load_base(settings.base)
    bundle.save(Personaliser(base, settings.model), root / settings.bundle_dir(1), {})
    changed = moved(base, settings.model)
    bundle.save(changed, root / settings.bundle_dir(2), {})
    (root / "loras").mkdir()
    save_file(style(ImagineYourselfPipeline.build(changed, base)), root / "loras" / "ink.v1.safetensors")
    (root / "profiles").mkdir()
    values = {name: value for name, value in settings.resolved().items() if name != "profile"}
    (root / "profiles" / f"{settings.profile}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    for name, image in photographs().items():
        (root / name).write_bytes(png(image))
    (root / "notes.txt").write_text("no picture")
    return root


def photographs() -> dict[str, np.ndarray]:
    ana, ben = att_faces.photo("s1", 1), att_faces.photo("s2", 3)
    return {
        "ana.png": ana,
        "ben.png": ben,
        "both.png": np.hstack([ana, ben]),
        "wall.png": np.full((90, 90, 3), 120, np.uint8),
    }


class Server:
    """The page in a thread of this process, and one page that is open."""

    def __init__(self, home: Path, login: web.Login | None = None):
        listening = web.listen(web.HERE, 0)
        self.port = listening.getsockname()[1]
        self.host = f"{web.HERE}:{self.port}"
        settings = params.load(next((home / "profiles").glob("*.yaml")).stem)
        self.models = Models(settings, on_disk(settings, []), champion=True)
        self.easel = Easel(settings, self.models, styles_in(home / "loras"), home / "pictures")
        self.pages = pages.Pages()
        app = application(self.easel, self.pages)
        app.add_middleware(web.Guard, hosts={self.host}, largest=LARGEST, login=login)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        browser.wait(lambda: self.server.started, 30, "the server")

    def end(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def ask(self, path: str, body=None, **headers) -> tuple[int, str]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        try:
            request = urllib.request.Request(f"http://{self.host}{path}", data, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def open(self) -> str:
        """The token of a page that was just loaded."""
        text = self.ask("/")[1]
        return json.loads(text.split('id="given">')[1].split("</script>")[0])["token"]

    def post(self, path: str, token: str, body) -> dict:
        status, text = self.ask(path, body, X_Page=token)
        assert status == 200, text
        return json.loads(text)

    def look(self, token: str, name: str, models: list[str]) -> tuple[int, dict]:
        query = urllib.parse.urlencode([("name", name), *(("model", one) for one in models)])
        status, text = self.ask(f"/faces?{query}", Path(name).read_bytes(), X_Page=token)
        return status, json.loads(text)

    def draw(self, token: str, **changes) -> list[dict]:
        status, text = self.ask("/draw", ASKED | {"models": self.stages[:1]} | changes, X_Page=token)
        assert status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    @property
    def stages(self) -> list[str]:
        """Stage 2, stage 1."""
        return list(self.models.choices)


@pytest.fixture(scope="module")
def running(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        server = Server(home)
        yield server
        server.end()


@pytest.fixture
def server(running, home, monkeypatch):
    monkeypatch.chdir(home)
    return running


def pictures(news: list[dict]) -> dict[tuple[str, int], bytes]:
    """(model, seed) -> PNG."""
    assert news[-1] == {"done": True}, news[-1]
    return {
        (one["model"], picture["seed"]): base64.b64decode(picture["png"].partition(",")[2])
        for one in news
        for picture in one.get("pictures", [])
    }


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_two_models_draw_the_person_from_the_same_seeds_and_the_python_draws_it_again(server, home, tmp_path):
    token, stages = server.open(), server.stages
    status, seen = server.look(token, "ana.png", stages)
    crop = pixels(base64.b64decode(seen["crops"][0].partition(",")[2]))
    assert status == 200 and len(seen["crops"]) == 1, "both stages read the same crop, which is shown"
    assert crop.shape == (64, 64, 3) and (crop[0, 0] == 128).all(), "masked outside the face"
    people = [{"face": seen["face"], "strength": 0.7, "region": None}]
    asked = {"models": stages, "people": people, "branches": {"vision": 1.5, "clip": 1}, "negative": "rain", "steps": 3}
    news = server.draw(token, **asked)
    told = [(one["step"], len(one["previews"])) for one in news if one.get("model") == stages[0] and "step" in one]
    assert told == [(1, 2), (2, 2), (3, 0)], "previews while it draws, none of what is finished"
    drawn = pictures(news)
    assert set(drawn) == {(stage, seed) for stage in stages for seed in (3, 4)} and len(set(drawn.values())) == 4
    assert pictures(server.draw(token, **asked)) == drawn, "the same is drawn again"
    code = server.post("/code", token, ASKED | asked)["python"]
    exec(compile(code, "copied", "exec"), {})
    again = [np.asarray(Image.open(f"portrait-{seed}.png")) for seed in (3, 4)]
    assert all((pixels(drawn[stages[0], seed]) == image).all() for seed, image in zip((3, 4), again, strict=True))


def test_a_picture_is_saved_with_its_settings_and_only_when_asked(server, home):
    token = server.open()
    news = server.draw(token, seeds=[7])
    assert not (home / "pictures").exists()
    [shown] = next(one["pictures"] for one in news if "pictures" in one)
    path = Path(server.post("/save", token, {"id": shown["id"]})["saved"])
    assert path.read_bytes() == next(iter(pictures(news).values()))
    said = read(path, server.easel.settings.provenance, Limits(10**8, 4096))
    assert (said.state, said.source, said.description) == ("own", "trainedAlgorithmicMedia", None), "signed, no prompt"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["seed"] == 7 and record["prompt"] == ASKED["prompt"] and record["bundle"] == server.stages[0]
    assert "seeds = [7]" in record["python"]
    status, said = server.ask("/save", {"id": shown["id"]}, X_Page=server.open())
    assert status == 400 and "draw it again" in said, "another page's picture"


@pytest.mark.parametrize(
    "name, says",
    [
        ("wall.png", "wall.png: no face was found"),
        ("both.png", "both.png: 2 faces were found: cut the photograph"),
        ("notes.txt", "notes.txt: not an image"),
    ],
)
def test_a_photograph_that_is_of_no_use_is_told_in_a_sentence(server, name, says):
    status, said = server.look(server.open(), name, server.stages[:1])
    assert status == 400 and says in said["detail"]


def test_who_is_blocked_while_the_page_is_open_is_refused(server, home):
    token, lists = server.open(), Path(server.easel.settings.policy.people)
    analyser = server.models.open(server.stages[0]).analyser
    ana = att_faces.photo("s1", 1)
    face = analyser.embed(ana, analyser.detect(ana)[0]).tolist()
    people.add(lists, Person("Ana", BLOCKED, recogniser_name(analyser), [face], "2026-11-27"))
    try:
        status, said = server.look(token, "ana.png", server.stages[:1])
        assert status == 400 and said["detail"].startswith("ana.png: this person must not be drawn")
        assert server.look(token, "ben.png", server.stages[:1])[0] == 200
    finally:
        people.remove(lists, "Ana")
    assert server.look(token, "ana.png", server.stages[:1])[0] == 200


@pytest.mark.parametrize(
    "change, says",
    [
        ({"prompt": " "}, "prompt: say what the picture shows"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": list(range(9))}, "seeds: "),
        ({"steps": 0}, "steps: "),
        ({"guidance": 31}, "guidance: "),
        ({"more": 1}, "more: "),
        ({"people": [{"face": "x", "strength": 3, "region": None}]}, "people.0.strength: "),
        ({"people": [{"face": "x", "strength": 1, "region": [0.5, 0, 0.4, 1]}]}, "the lower ones first"),
        ({"models": ["../../etc"]}, "no model '../../etc'"),
        ({"people": [{"face": "x", "strength": 1, "region": None}]}, "no longer at hand: drop it again"),
        ({"branches": {"nose": 0.5}}, "unknown branch 'nose'"),
        ({"width": 50}, "must be multiples of"),
        ({"styles": [{"name": "../ink", "weight": 1}]}, "no LoRA '../ink'"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_told_in_a_sentence(server, change, says):
    status, text = server.ask("/draw", ASKED | {"models": server.stages[:1]} | change, X_Page=server.open())
    assert (status, says in text) in ((422, True), (200, True)), text
    assert status == 422 or "error" in json.loads(text.splitlines()[-1])


def test_a_style_counts_for_its_drawing_alone(server):
    token = server.open()
    plain = pictures(server.draw(token, seeds=[3]))
    styled = pictures(server.draw(token, seeds=[3], styles=[{"name": "ink.v1.safetensors", "weight": 1}]))
    assert styled != plain and pictures(server.draw(token, seeds=[3])) == plain


def test_what_is_not_changed_is_not_asked_of_the_pipeline():
    person = {"face": "a", "strength": 1, "region": None}
    plain = Drawing.model_validate(ASKED | {"models": ["m"], "people": [person, person], "branches": {"clip": 1}})
    assert set(plain.options()) == {"num_inference_steps", "guidance_scale", "identity_guidance_scale"}
    left = person | {"region": [0, 0, 0.5, 1], "strength": 0.5}
    changed = Drawing.model_validate(ASKED | {"models": ["m"], "people": [left, person], "negative": "rain"}).options()
    assert changed["regions"] == [(0, 0, 0.5, 1), (0, 0, 1, 1)] and changed["person_strength"] == [0.5, 1]
    assert changed["negative_prompt"] == "rain"


def test_nobody_else_can_ask_or_post(server):
    token, body = server.open(), ASKED | {"models": server.stages[:1]}
    assert server.ask("/", Host="evil.example")[0] == 403, "a foreign name that points here"
    assert server.ask("/draw", body, X_Page=token, Host=f"evil.example:{server.port}")[0] == 403
    assert server.ask("/draw", body)[0] == 403 and server.ask("/draw", body, X_Page="guessed")[0] == 403
    assert server.ask("/draw", body, X_Page=token, Origin="http://evil.example")[0] == 403
    assert server.ask("/draw", body, X_Page=token, Origin="null")[0] == 403
    assert server.ask("/beat", {}, X_Page=token, Origin=f"http://{server.host}")[0] == 200
    for path in ("/..%2F..%2Fparams.yaml", "/server.py", "/page.html", "/openapi.json"):
        assert server.ask(path)[0] == 404, path


def test_what_is_too_large_is_refused_before_it_is_read(server):
    for headers, status in (({"Content-Length": str(LARGEST + 1)}, 413), ({"Transfer-Encoding": "chunked"}, 411)):
        connection = http.client.HTTPConnection(web.HERE, server.port, timeout=30)
        connection.putrequest("POST", "/faces?name=a&model=b")
        for name, value in (headers | {"X-Page": server.open()}).items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_a_closed_or_silent_page_is_forgotten(server, monkeypatch):
    token, silent, spoken = server.open(), server.open(), server.open()
    server.look(token, "ana.png", server.stages[:1])
    [face] = server.pages.get(token).faces.values()
    assert [crop.shape for crop in face.crops.values()] == [(64, 64, 3)], "of the photograph the crop alone is kept"
    server.post("/close", token, {})
    assert server.pages.get(token) is None
    assert "load it again" in server.ask("/draw", ASKED | {"models": ["m"]}, X_Page=token)[1]
    server.pages.get(silent).heard -= pages.SILENCE
    server.pages.sweep()
    assert server.pages.get(silent) is None and server.pages.get(spoken) is not None


def test_pages_and_faces_are_bounded():
    some = pages.Pages()
    first = some.open()
    some.get(first).heard -= 1
    for _ in range(pages.MOST_PAGES):
        last = some.open()
    assert some.get(first) is None and len(some.open_ones) == pages.MOST_PAGES
    page = some.get(last)
    keys = [page.see(pages.Seen("a", {})) for _ in range(pages.MOST_FACES + 1)]
    assert list(page.faces) == keys[1:]


def test_work_ends_when_nobody_reads_its_news():
    ended = threading.Event()

    def work(tell, stop):
        tell({"step": 1})
        if stop.wait(30):
            ended.set()

    async def read_one():
        news = lines(work)
        assert json.loads(await anext(news)) == {"step": 1}
        await news.aclose()

    asyncio.run(read_one())
    assert ended.is_set()


def test_a_stopped_drawing_draws_no_further(server):
    from iy.play.drawing import Stopped, draw

    stop, told = threading.Event(), []

    def tell(one):
        told.append(one["step"])
        stop.set()

    asked = Drawing.model_validate(ASKED | {"models": server.stages[:1], "steps": 9})
    with pytest.raises(Stopped):
        draw(server.models.open(server.stages[0]), asked, [], {}, tell, stop)
    assert told == [1]


def test_models_stand_on_one_base_and_the_last_used_stay_open(server, home):
    third = home / "third"
    if not third.exists():
        third.symlink_to(home / server.stages[0])
    models = Models(server.easel.settings, on_disk(server.easel.settings, [third]), champion=False)
    titles = [choice.title for choice in models.choices.values()]
    assert titles == [str(third), f"stage 2 of {models.settings.profile}", f"stage 1 of {models.settings.profile}"]
    first, second = (models.open(key) for key in list(models.choices)[:2])
    assert second.base is first.base and second.analyser is first.analyser
    assert models.open(list(models.choices)[0]) is first
    models.open(list(models.choices)[2])
    assert list(models.opened) == [str(third), server.stages[1]]


def test_a_login_is_asked_of_everybody(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(web, "PATIENCE", 0)
    server = Server(home, LOGIN)
    try:
        for given in ("", "Basic !", "Bearer x", basic("ana", "wrong"), basic("ben", LOGIN.password)):
            for path in ("/", "/models", "/page.js"):
                assert server.ask(path, Authorization=given)[0] == 401, (given, path)
        assert server.ask("/", Authorization=basic(*LOGIN))[0] == 200
    finally:
        server.end()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_listening_elsewhere_needs_a_login_that_nobody_else_can_read(tmp_path):
    with pytest.raises(UserError, match="--host 0.0.0.0: others reach the page there: give --login"):
        commands.play(host="0.0.0.0")
    file = tmp_path / "login"
    file.write_text("ana:a long password\n")
    file.chmod(0o644)
    with pytest.raises(UserError, match="others can read it: chmod 600"):
        commands.read_login(file)
    file.chmod(0o600)
    assert commands.read_login(file) == LOGIN
    file.write_text("ana:short")
    with pytest.raises(UserError, match="12 characters or more"):
        commands.read_login(file)
    with pytest.raises(UserError, match="nowhere cannot be read"):
        commands.read_login(tmp_path / "nowhere")


def test_the_names_that_are_answered():
    assert commands.hosts("127.0.0.1", 80, []) == {"127.0.0.1:80", "localhost:80", "[::1]:80"}
    assert commands.hosts("192.0.2.1", 80, ["play.example.org"]) == {"192.0.2.1:80", "play.example.org"}
    assert "localhost:80" in commands.hosts("0.0.0.0", 80, [])


def test_the_page_starts_without_torch():
    code = "import sys, iy.play.commands, iy.play.server; print({'torch', 'mlflow', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium")
def test_two_people_are_dropped_placed_drawn_by_two_models_and_saved(server, home):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        faults = []
        page.on("pageerror", lambda error: faults.append(error))  # Playwright marks what it is given
        page.set_default_timeout(browser.PATIENCE)
        page.goto(f"http://{server.host}/")
        page.wait_for_selector("#branches .slider", state="attached")
        page.set_input_files("#files", ["both.png", "wall.png", "notes.txt"])
        page.wait_for_selector("#said.trouble:has-text('notes.txt')")
        said = page.inner_text("#said")
        assert "2 faces were found" in said and "no face was found" in said and "not an image" in said
        page.set_input_files("#files", ["ana.png", "ben.png"])
        page.wait_for_selector(".person:nth-child(2) img")
        drag(page, (0.55, 0.1), (0.95, 0.9))
        page.click(".person:nth-child(1) .named")
        drag(page, (0.05, 0.1), (0.45, 0.9))
        assert [page.input_value(f".person:nth-child({i}) .edges") for i in (1, 2)] == [
            "0.05 0.1 0.45 0.9",
            "0.55 0.1 0.95 0.9",
        ]
        page.fill("#prompt", "two people <b>side by side</b>")
        page.fill("#steps", "2")
        page.select_option("#second", server.stages[1])
        page.click("#draw")
        page.wait_for_selector("#said:has-text('drawn in')")
        sources = [page.get_attribute(f"#results figure:nth-of-type({i}) img", "src") for i in (1, 2, 3, 4)]
        assert len(set(sources)) == 4 and all(source.startswith("data:image/png") for source in sources)
        page.click("#results figure button")
        page.wait_for_selector("#said:has-text('saved to')")
        page.click("#copy")
        page.wait_for_selector("#python:has-text('regions=')")
        assert not faults
        assert len(server.pages.open_ones) >= 1
        chromium.close()
    record = max((home / "pictures").glob("*.json"), key=lambda path: path.stat().st_mtime)
    kept = json.loads(record.read_text())
    assert [one["region"] for one in kept["people"]] == [[0.05, 0.1, 0.45, 0.9], [0.55, 0.1, 0.95, 0.9]]
    assert kept["prompt"] == "two people <b>side by side</b>" and kept["people"][0]["photo"] == "ana.png"


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Over the frame, in shares of it."""
    page.locator("#frame").scroll_into_view_if_needed()
    box = page.locator("#frame").bounding_box()
    (x0, y0), (x1, y1) = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end))
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=3)
    page.mouse.up()
