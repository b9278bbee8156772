"""A person's photos are found wherever they went, and gone from there after an erasure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from iy import erased, records, storage
from iy.cli import app
from iy.erasure import decisions, tables, versions
from iy.erasure import erase as erasing
from iy.erasure.find import find
from iy.errors import UserError
from iy.photos.photo import unreadable
from iy.photos.run import not_erased, run
from iy.pictures import Unreadable
from iy.review.log import Judgement, Log
from iy.synpairs.answers import Answers
from iy.tracking import connect, experiment_id
from iy.tracking.describe import dataset_input
from tests.depth import depth
from tests.photographs import settings

PEOPLE, EACH = ("Ada", "Bob", "Cem"), 3
REFERENCES = ("photos", "curate", "synpairs")


def dvc(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True)
    assert not done.returncode, f"dvc {words}: {done.stdout}\n{done.stderr}"


def photographs(root: Path) -> None:
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        (root / person).mkdir(parents=True)
        for number in range(EACH):
            (root / person / f"{number}.png").write_bytes(storage.png(rng.integers(0, 255, (40, 30, 3), np.uint8)))


def curated() -> list[dict]:
    """What curate, synpairs and a report would write of the photos, without the models that it takes."""
    rows = records.read("data/tried/photos/photos.parquet", records.PHOTO)
    for number, row in enumerate(rows):
        row |= {
            "person": f"p{row['label']}",
            "split": "train",
            "verdict": records.ACCEPTED,
            "embedding": [float(number)] * 8,
        }
    records.write("data/tried/curate/photos.parquet", rows, records.PHOTO)
    pairs = [
        {
            "id": storage.sha256(f"pair {row['id']}".encode()),
            "reference": row["id"],
            "person": row["person"],
            "verdict": records.ACCEPTED,
            "shard": "00000.tar",
        }
        for row in rows
    ]
    storage.write_shard(
        Path("data/tried/synpairs/00000.tar"),
        [(f"{i}.png", b"drawn of " + row["id"].encode()) for i, row in enumerate(rows)],
    )
    records.write("data/tried/synpairs/pairs.parquet", pairs, records.PAIR)
    storage.write_bytes("reports/tried/curate/index.html", f"<p>{[row['id'] for row in rows]}".encode())
    return rows


def tracked(rows: list[dict]) -> None:
    """A pipeline of two runs in MLflow, of which one names the curated photos, and a model that it made."""
    client = connect()
    experiment = experiment_id(client, "tried")
    parent = client.create_run(experiment)
    for name in ("curate", "evaluate"):
        child = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
        if name == "curate":
            client.log_inputs(child.info.run_id, [dataset_input("photos", "data/tried/curate/photos.parquet")])
        client.log_artifacts(child.info.run_id, "reports/tried/curate", "report")
    client.create_registered_model("iy-tried")
    digest = storage.file_sha256("data/tried/curate/photos.parquet")
    client.create_model_version("iy-tried", source="/nowhere", tags={"iy.data.photos": digest})
    client.create_model_version("iy-tried", source="/nowhere", tags={"iy.data.photos": "0" * 64})
    client.set_registered_model_alias("iy-tried", "champion", "1")


@pytest.fixture
def project(tmp_path, monkeypatch, store):
    """A project whose data have two versions, in DVC's cache, in a folder and in a bucket that keeps old versions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/.iy/mlflow.db")
    (tmp_path / ".iy").mkdir()
    photographs(tmp_path / "faces")
    subprocess.run(["git", "init", "-q"], check=True)
    dvc("init", "-q")
    bucket = f"kept-{os.getpid()}-{tmp_path.name[-8:]}".lower().replace("_", "-")
    store.create_bucket(Bucket=bucket)
    store.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    dvc("remote", "add", "-d", "far", f"s3://{bucket}/dvc")
    dvc("remote", "modify", "far", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    dvc("remote", "add", "near", str(tmp_path / "remote"))
    run(settings(source="folder", path="faces"))
    rows = curated()
    storage.write_bytes(".iy/encoded/crops-0/0.arrow", b"encoded: " + rows[0]["id"].encode())
    Answers("a model")(["Ada, smiling"], lambda: ["Ada, laughing"])
    for _ in range(2):
        folders = [f"data/tried/{name}" for name in REFERENCES] + ["reports/tried/curate"]
        dvc("add", "-q", *folders)
        dvc("push", "-q")
        dvc("push", "-q", "-r", "near")
        store.put_object(Bucket=bucket, Key="other", Body=b"not ours")
        records.write("data/tried/curate/photos.parquet", rows[::-1], records.PHOTO)
    curated()
    tracked(rows)
    Log(Path("reviews/tried/log.jsonl")).add(*(Judgement(row["id"], "accepted", "eve", "") for row in rows))
    Path("decisions").mkdir()
    Path("decisions/tried.csv").write_text(
        "id,verdict,reviewer,reason\n" + "".join(f"{r['id']},accepted,eve,\n" for r in rows)
    )
    return tmp_path, store, bucket


def told(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def of(person: str) -> set[str]:
    return {storage.sha256(path.read_bytes()) for path in Path("faces", person).iterdir()}


def everything(root: Path, client, bucket: str) -> dict[str, bytes]:
    """All bytes of the project but the photographs and the erasure's report, and all versions in the bucket."""
    files = {
        str(path): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "faces" not in path.parts and not path.name.startswith("report-")
    }
    for one in client.list_object_versions(Bucket=bucket).get("Versions", []):
        name = f"{one['Key']}@{one['VersionId']}"
        files[name] = client.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Body"].read()
    return files


def holding(files: dict[str, bytes], ids: set[str], pictures: set[bytes]) -> set[str]:
    found = {
        name
        for name, data in files.items()
        if any(one.encode() in data for one in ids) or any(picture in data for picture in pictures)
    }
    parsed = {name: tables.parse(data, name) for name, data in files.items()}
    return found | {name for name, table in parsed.items() if table and table.holding(ids)}


def test_a_person_is_traced_and_erased(project):
    root, client, bucket = project
    ada, others = of("Ada"), of("Bob") | of("Cem")
    pixels = {path.read_bytes()[60:200] for path in Path("faces/Ada").iterdir()}
    left = Path(".iy/experiments/tried-1")
    shutil.copytree("data", left / "data")
    before = holding(everything(root, client, bucket), ada, pixels)
    for place in (
        "data/tried/photos/00000.tar",
        "data/tried/curate/photos.parquet",
        ".dvc/cache",
        "/remote/",
        "dvc/files",
        "artifacts/report/index.html",
        "reviews/tried/log.jsonl",
        "decisions/tried.csv",
    ):
        assert any(place in name for name in before), f"the test's own search must find it in {place}"
    seen = told("trace", "Ada")
    assert f"{left}/data/tried/curate/photos.parquet: 3 rows" in seen, "what a run left that did not end"
    for words in (
        "(Ada/0.png)",
        "person pAda",
        "data/tried/curate/photos.parquet: 3 rows",
        "DVC cache: 4 versions",
        "DVC remote far: 4 versions",
        "DVC remote near: 4 versions",
        "reviews/tried/log.jsonl: 3 decisions",
        "MLflow: 3 runs",
        "model iy-tried 1 (champion)",
    ):
        assert words in seen, (words, seen)
    planned = told("erase", "Ada", "--dry-run")
    assert "would do:" in planned and "model iy-tried 1: tagged iy.erased" in planned
    assert holding(everything(root, client, bucket), ada, pixels) == before, "a dry run changes nothing"

    assert "done: erasures/report-" in told("erase", "Ada", "--yes")
    after = everything(root, client, bucket)
    assert not holding(after, ada, pixels) and not any(b"Ada, laughing" in data for data in after.values())
    assert any(name.startswith("other@") for name in after), "what is not ours stays"
    versions = {str(one.version): one.tags for one in connect().search_model_versions("name = 'iy-tried'")}
    assert "3 photos" in versions["1"]["iy.erased"] and "iy.erased" not in versions["2"]
    assert set(Log(Path("reviews/tried/log.jsonl")).judged["eve"]) == others
    assert len(Path("decisions/tried.csv").read_text().splitlines()) == 1 + len(others)
    (report,) = Path("erasures").glob("report-*.json")
    assert set(json.loads(report.read_text())["photos"]) == ada

    Path("erasures/erased.txt").write_text("")  # as `dvc exp apply` brings it back, from before
    run(settings(source="folder", path="faces"))  # whose files are still there
    erased.keep(print)
    assert len(Path("erasures/erased.txt").read_text().split()) == 3
    assert {row["id"] for row in records.read("data/tried/photos/photos.parquet", records.PHOTO)} == others
    assert not holding(everything(root, client, bucket), ada, pixels)


def test_an_erasure_that_was_killed_goes_on(project, monkeypatch):
    root, client, bucket = project
    bob = of("Bob")
    found, _ = erasing.plan(["pBob"])
    steps = [step.what for step in erasing.steps(found)]
    for number in range(1, len(steps), depth(5, 1)):  # killed before a step: every fifth, or every one but the first
        whole = erasing.steps

        def some(found, last=number, whole=whole):
            for count, step in enumerate(whole(found)):
                if count == last:
                    raise KeyboardInterrupt
                yield step

        monkeypatch.setattr(erasing, "steps", some)
        with pytest.raises(KeyboardInterrupt):
            erasing.erase(erasing.plan([])[0] if number > 1 else found)
        monkeypatch.setattr(erasing, "steps", whole)
    with pytest.raises(UserError, match="another erasure was interrupted"):
        erasing.plan(["pAda"])
    erasing.erase(erasing.plan([])[0])
    assert not holding(everything(root, client, bucket), bob, set()) and not erasing.JOURNAL.exists()


def test_what_other_versions_have_too_stays_in_the_cache():
    photo = {"id": "a", "uri": None, "label": None, "person": None, "reference": None}
    holds, not_it = (
        versions.Folder(own, {own, "settings", own + ".tar"}, [tables.Table(own, own, [photo | {"id": one}])], False)
        for own, one in (("1", "a"), ("2", "b"))
    )
    assert versions.Place("cache", [holds, not_it]).objects({"a"}) == {"1", "1.tar"}
    assert versions.Place("cache", [holds]).objects({"a"}) == {"1", "1.tar", "settings"}
    assert versions.Place("cache", [not_it]).objects({"a"}) == set()


def test_photos_are_named_clearly_or_not_at_all(tmp_path, monkeypatch):
    rows = [{"id": "ab" * 32, "uri": "a.png", "label": "Ada"}, {"id": "ab" * 31 + "cd", "uri": "b.png", "person": "p1"}]
    path = tmp_path / "data/tried/curate/photos.parquet"
    records.write(path, rows, records.PHOTO)
    monkeypatch.chdir(tmp_path)
    here = list(tables.here())
    first, second = (row["id"] for row in rows)
    for name, meant in ((first, {first}), ("a.png", {first}), ("Ada", {first}), ("p1", {second})):
        assert tables.named([name], here) == meant
    with pytest.raises(UserError, match="begins the ids of 2 photos"):
        tables.named(["ab" * 5], here)
    for name in ("Eve", "ab", ""):
        with pytest.raises(UserError, match="no photo and no person"):
            tables.named([name], here)


def test_one_spelling_of_a_name_finds_all_and_near_names_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    spelt = ["Jos\u00e9 P.", "Jose\u0301 P.", " Jos\u00e9  P.", "Jose P.", "Jos\u00e9  PX", "Ana"]
    rows = [{"id": f"{i}" * 64, "uri": f"{label}/{i}.png", "label": label} for i, label in enumerate(spelt)]
    records.write("data/tried/photos/photos.parquet", rows, records.PHOTO)
    for name in spelt[:3]:
        found, lines = find([name])
        assert found.photos == [row["id"] for row in rows[:3]]
        near = [line for line in lines if "nearly so called" in line]
        assert len(near) == 1 and "'Jose P.' (1 photos)" in near[0] and "'Ana'" not in near[0]
    assert tables.named(["Jos\u00e9 P./1.png"], list(tables.here())) == {"1" * 64}
    with pytest.raises(UserError, match=r"nearly so called: 'Ana' \(1 photos\)"):
        tables.named(["\u00c1na"], list(tables.here()))


def test_what_cannot_be_read_stays_erased_in_either_spelling_of_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composed, apart = "Jos\u00e9/1.jpg", "Jose\u0301/1.jpg"
    for kept, comes in ((composed, apart), (apart, composed)):
        erased.add([storage.sha256(kept.encode())])  # as a list of before holds it
        photos = [
            unreadable(Unreadable("broken"), id=storage.sha256(one.encode()), uri=one)
            for one in (comes, f"s3://a/b/{comes}")
        ]
        photos[1].row["id"] = photos[0].row["id"]  # of a bucket it is of the path below
        readable = unreadable(
            Unreadable("refused"), id="ab" * 32, uri=comes
        )  # another photo in the same place, known by its bytes
        assert list(not_erased([*photos, readable], "s3://a/b")) == [readable]
        shutil.rmtree(erased.LIST.parent)


def test_decisions_go_whole_however_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gone, stays = "ab" * 32, "cd" * 32
    rows = f'{gone},rejected,eve,"two\nlines, ""quoted"""\r\n{stays},accepted,eve,\n {gone.upper()} ,accepted,bob,\n'
    Path("decisions").mkdir()
    Path("decisions/a.csv").write_bytes(b"\xef\xbb\xbfid,verdict,reviewer,reason\n" + rows.encode())
    Path("decisions/broken.csv").write_text(f'id,verdict,reviewer,reason\n{gone},a,b,"open\n{stays},a,b,c\n')
    pq.write_table(pa.table({"ID ": [gone, stays], "reason": ["x", "y"]}), "decisions/a.parquet")
    assert decisions.count({gone}) == {"decisions/a.csv": 2, "decisions/a.parquet": 1, "decisions/broken.csv": 1}
    decisions.remove({gone})
    assert decisions.count({gone}) == {} and len(decisions.count({stays})) == 3
    left = Path("decisions/a.csv").read_bytes()
    assert left == b"\xef\xbb\xbfid,verdict,reviewer,reason\n" + f"{stays},accepted,eve,\n".encode()
    Path("decisions/a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="a.parquet may name photos and cannot be read"):
        decisions.count({gone})


def test_the_list_of_the_erased_says_nothing_of_them_and_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert erased.read() == set()
    erased.add(["ab" * 32, "cd" * 32])
    erased.add(["ab" * 32])
    text = erased.LIST.read_text()
    assert len(text.splitlines()) == 2 and "abab" not in text and erased.mark("cd" * 32) in erased.read()
    erased.LIST.write_text("<<<<<<< ours\n")
    with pytest.raises(UserError, match="restore the file from git"):
        erased.read()
    shutil.rmtree(erased.LIST.parent)
