"""What the pages tell people to type exists: files, commands, options, settings, and Python that runs as it stands."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.att_faces import photo

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "infra" / "README.md"])
PAGES.remove(ROOT / "CHANGELOG.md")  # it speaks of what is gone, too
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(kind: str) -> list[tuple[Path, str]]:
    return [(page, body) for page in PAGES for lang, body in FENCE.findall(page.read_text()) if lang == kind]


def commands() -> list[tuple[Path, str]]:
    """Every line of a shell block, and every `iy …`, `make …` and `python -m …` in the text."""
    found = [
        (page, line.split(" #")[0].strip())
        for page, body in blocks("sh")
        for line in body.replace("\\\n", " ").split("\n")
        if line.strip()
    ]
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        found += [(page, code) for code in re.findall(r"`((?:iy|make|python -m) [^`]+)`", text)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target} does not exist"


def test_the_readme_is_short_and_narrow():
    lines = (ROOT / "README.md").read_text().split("\n")
    assert len(lines) <= 121 and max(map(len, lines)) <= 120


def test_every_page_is_reached_from_the_readme():
    linked = {target for target in LINK.findall((ROOT / "README.md").read_text())}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


@pytest.mark.parametrize("page, command", [c for c in commands() if c[1].startswith("iy ")], ids=lambda x: str(x)[-60:])
def test_commands_of_iy_and_their_options_exist(page, command):
    from iy.cli import app

    words = command.split()[1:]
    names = []
    for word in words:
        if not re.fullmatch(r"[a-z]+", word) or len(names) == 2:
            break
        names.append(word)
    for depth in range(len(names), 0, -1):
        shown = CliRunner().invoke(app, [*names[:depth], "--help"], env={"COLUMNS": "200"})
        if shown.exit_code == 0:
            break
    assert shown.exit_code == 0, f"{page.name}: {command}"
    for option in re.findall(r"(?<!\S)--[a-z-]+", command):
        assert option in shown.output, f"{page.name}: {command}: no option {option}"


@pytest.mark.parametrize(
    "page, command", [c for c in commands() if c[1].startswith("make ")], ids=lambda x: str(x)[-60:]
)
def test_targets_of_make_exist(page, command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"{page.name}: {command}"


@pytest.mark.parametrize("page, command", [c for c in commands() if "python -m " in c[1]], ids=lambda x: str(x)[-60:])
def test_modules_that_are_run_exist(page, command):
    name = re.search(r"python -m ([\w.]+)", command).group(1)
    if name.startswith(("iy.", "flows", "foundation", "infra")):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists() or name == "iy.", (
            f"{page.name}: {name}"
        )


def test_settings_that_are_set_exist():
    from iy import params

    known = params.load("studio").resolved()
    for page in PAGES:
        for key in re.findall(r"--set ([\w.]+)=", page.read_text()):
            at = known
            for part in key.split("."):
                assert part in at, f"{page.name}: no setting {key}"
                at = at[part]


def test_paths_that_are_named_exist():
    made = ("data", "models", "reports", ".iy", "decisions/studio.csv", "reviews", "erasures/report")
    for page in PAGES:
        for path in re.findall(
            r"`((?:iy|flows|infra|profiles|docs|tests|weights|foundation)/[\w./]+)`", page.read_text()
        ):
            if not path.startswith(made):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_python_that_draws_runs_as_it_stands(tmp_path, monkeypatch):
    """On a real photograph, with the bundle that ships in place of a run's."""
    [body] = [body for page, body in blocks("python") if page.name == "python.md"]
    monkeypatch.chdir(ROOT)
    Image.fromarray(photo("s1", 1)).save(tmp_path / "me.jpg")
    for name in ("me.jpg", "laughing.png"):
        body = body.replace(f'"{name}"', repr(str(tmp_path / name)))
    exec(compile(body.replace("models/studio/finetune4", "weights/studio/pretrained"), "docs/python.md", "exec"), {})
    assert Image.open(tmp_path / "laughing.png").size == (64, 64)


def test_python_snippets_are_python_and_import_what_exists():
    for page, body in blocks("python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("iy."):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"
