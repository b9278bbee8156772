"""Photos: every bad file becomes a row with a reason, every good one upright RGB."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iy import records
from iy.errors import UserError
from iy.photos import folder, studio
from iy.photos.run import run
from iy.pictures import Unreadable, decode
from iy.storage import read_image
from tests.photographs import encoded, gradient, settings, taken

ROOT = Path(__file__).parents[1]


def huge_png() -> bytes:
    """A PNG whose header promises 200 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 10000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def take(data: bytes) -> np.ndarray:
    return decode(data, 10**8, 1024)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("TIFF", "CMYK"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("PPM", "L"),
        ("GIF", "P"),
    ],
)
def test_kinds_of_image_keep_their_light(kind, mode):
    picture = Image.fromarray(gradient())
    image = take(encoded(picture.convert(mode), kind))
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    luma = np.asarray(picture.convert("L"), float)
    assert np.abs(np.asarray(Image.fromarray(image).convert("L"), float) - luma).mean() < 12


def test_heic_is_read():
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(gradient(64, 96))).save(out)
    assert take(out.getvalue()).shape == (64, 96, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    grey = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    image = take(encoded(Image.fromarray(grey), kind))
    assert np.abs(image[..., 0] - grey / 257).max() <= 1


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((20, 20, 3), value, np.uint8)) for value in (200, 10)]
    for kind in ("GIF", "WEBP", "PNG"):
        assert abs(int(take(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))[5, 5, 0]) - 200) < 4


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (take(encoded(clear, "PNG")) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_makes_it_upright(orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(gradient())
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (take(encoded(stored, "PNG", exif=exif)) == np.asarray(upright)).all()


def test_large_photos_are_reduced():
    assert decode(encoded(Image.fromarray(gradient(300, 600)), "JPEG"), 10**8, 100).shape == (50, 100, 3)


BAD = {
    "zero bytes": (b"", "empty"),
    "not an image": (b"%PDF-1.4 nothing to see", "not an image"),
    "html": (b"<html>404</html>", "not an image"),
    "truncated JPEG": (encoded(Image.fromarray(gradient(200, 200)), "JPEG")[:1500], "broken JPEG"),
    "truncated PNG": (encoded(Image.fromarray(gradient(200, 200)), "PNG")[:300], "broken"),
    "JPEG header only": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image"),
    "200 megapixels": (huge_png(), "maximum_pixels"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_have_a_reason(name):
    data, reason = BAD[name]
    with pytest.raises(Unreadable, match=reason) as caught:
        take(data)
    assert "\n" not in str(caught.value)


def hostile_folder(root: Path) -> Path:
    """Persons in sub-folders, each kind of bad file, links in circles and names that want to be code."""
    good = encoded(Image.fromarray(gradient()), "JPEG")
    (root / "anna").mkdir(parents=True)
    (root / "anna" / "1.jpg").write_bytes(good)
    (root / "anna" / "deep").mkdir()
    (root / "anna" / "deep" / "2.png").write_bytes(encoded(Image.fromarray(gradient(30, 30)), "PNG"))
    (root / "anna" / "loop").symlink_to(root)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "flat.pgm").write_bytes(encoded(Image.fromarray(gradient()[..., 0]), "PPM"))
    (root / "<script>alert('1')\n&.jpg").write_bytes(good)
    (root / os.fsdecode(b"bytes\xff.jpg")).write_bytes(good)
    (root / ".hidden.jpg").write_bytes(good)
    for name, (data, _) in BAD.items():
        (root / f"{name}.jpg").write_bytes(data)
    return root


def test_a_hostile_folder_loses_nothing(tmp_path, monkeypatch):
    root = hostile_folder(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    run(settings(source="folder", path="in"))
    rows = records.read("data/tried/photos/photos.parquet", records.PHOTO)
    by_uri = {row["uri"]: row for row in rows}
    fine = {"anna/1.jpg", "anna/deep/2.png", "flat.pgm", "<script>alert('1')\n&.jpg", "bytes\\xff.jpg"}
    assert {uri for uri, row in by_uri.items() if row["verdict"] is None} == fine
    assert set(by_uri) == fine | {f"{name}.jpg" for name in BAD} | {"anna/loop", "self.jpg", "pipe.jpg"}
    assert all(row["reason"] and row["shard"] is None for uri, row in by_uri.items() if uri not in fine)
    assert by_uri["anna/deep/2.png"]["label"] == "anna" and by_uri["flat.pgm"]["label"] is None
    assert by_uri["anna/1.jpg"]["id"] == hashlib.sha256((root / "anna/1.jpg").read_bytes()).hexdigest()
    for uri in fine:
        assert read_image("data/tried/photos", by_uri[uri]).shape == (by_uri[uri]["height"], by_uri[uri]["width"], 3)
    first = {path.name: path.read_bytes() for path in Path("data/tried/photos").iterdir()}
    run(settings(source="folder", path="in"))
    assert first == {path.name: path.read_bytes() for path in Path("data/tried/photos").iterdir()}


def test_sidecars(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    (tmp_path / "a.txt").write_text("\ufeffa portrait\n of Ada ")
    (tmp_path / "b.txt").write_text("ignored")
    (tmp_path / "b.json").write_text(
        json.dumps({"caption": "of Bob", "person": "bob", "licence": "CC-BY-4.0", "consent": "signed"})
    )
    (tmp_path / "c.json").write_text("{broken")
    (tmp_path / "d.png.json").write_text(json.dumps({"consent": 7}))
    one, two, three, four = taken(folder.photos, source="folder", path=str(tmp_path))
    assert one["caption"] == "a portrait of Ada" and one["licence"] == "CC0-1.0"
    assert [two[key] for key in ("caption", "label", "licence", "consent")] == ["of Bob", "bob", "CC-BY-4.0", "signed"]
    assert three["reason"] == "its sidecar c.json is not valid JSON" and "consent = 7" in four["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to a user who may not read")
def test_no_permission_is_a_reason(tmp_path):
    (tmp_path / "closed").mkdir()
    for name in ("secret.png", "closed/inside.png"):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
        (tmp_path / name).chmod(0)
    (tmp_path / "closed").chmod(0)
    for place in [tmp_path, *tmp_path.parents[:3]]:
        place.chmod(0o755)
    os.seteuid(65534)
    try:
        rows = taken(folder.photos, source="folder", path=str(tmp_path))
    finally:
        os.seteuid(0)
        (tmp_path / "closed").chmod(0o755)
    assert [row["uri"] for row in rows] == ["closed", "secret.png"]
    assert all("Permission denied" in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (None, "needs photos.path"),
        ("nowhere", "does not exist"),
        ("empty", "holds no files"),
        ("file", "is not a folder"),
        ("junk", "none of the 1 files"),
    ],
)
def test_a_useless_folder_is_one_clear_line(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").write_text("x")
    Path("junk").mkdir()
    Path("junk", "a.jpg").write_text("not a photo")
    with pytest.raises(UserError, match=says):
        run(settings(source="folder", path=path))
    assert not Path("data/tried/photos").exists() and not list(
        Path("data").glob("*/.*") if Path("data").exists() else []
    )


def test_the_module_ends_with_one_line_and_no_traceback(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text("profile: tried\n")
    text = (ROOT / "profiles" / "studio.yaml").read_text().replace("source: studio", "source: folder", 1)
    (tmp_path / "profiles" / "tried.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "iy.photos"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    *before, last = done.stderr.strip().splitlines()
    assert done.returncode != 0 and last.startswith("error: photos.source: folder needs photos.path")
    assert all("INFO" in line or line.startswith("MLflow run ") for line in before), before


def test_studio_people_are_balanced_and_the_same_for_more():
    some = studio.people(36, 1_000_000)
    assert len({(p.gender, p.age, p.ancestry) for p in some}) == 36
    assert [p.seed for p in studio.people(40, 1_000_000)][:36] == [p.seed for p in some]
    assert min(p.seed for p in some) >= 1_000_000 and len({p.seed for p in some}) == 36


def test_studio_photos_are_exact_and_reproducible(tmp_path, monkeypatch):
    from iy import lexicon

    monkeypatch.chdir(tmp_path)
    run(settings(people=2, per_person=2, size=48))
    rows = records.read("data/tried/photos/photos.parquet", records.PHOTO)
    assert len(rows) == 4 and len({row["id"] for row in rows}) == 4 and len({row["label"] for row in rows}) == 2
    for row in rows:
        exact, said = json.loads(row["attributes"]), lexicon.find(row["caption"])
        assert set(lexicon.SHOT) <= set(exact)
        assert said["pose"][0] == exact["pose"] and said["backdrop"][0] == exact["backdrop"]
        assert read_image("data/tried/photos", row).shape == (48, 48, 3)
        assert row["licence"] == "CC0-1.0" and row["verdict"] is None
    first = Path("data/tried/photos/00000.tar").read_bytes()
    run(settings(people=2, per_person=2, size=48))
    assert Path("data/tried/photos/00000.tar").read_bytes() == first
