"""The decoder: colours, which way is up, what memory holds, and what only looks like a picture."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from iy.errors import UserError
from iy.generate.reference import read_photo
from iy.model.inputs import to_array
from iy.photos import folder, tars
from iy.pictures import Limits, Unreadable, decode
from iy.storage import sha256
from tests.photographs import encoded, gradient, picture, taken, tar_of

LIMITS = Limits(100_000_000, 256)
# xy of red, green, blue; the gamma that stands for its curve
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), 2.2
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), 2.19921875


def icc(device: bytes, colours: bytes, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile, ICC 2.4, laid out by hand."""
    white = np.array([0.9642, 1, 0.8249])
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(79), b"wtpt": fixed(white)} | tags
    table, data, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += key + struct.pack(">II", at + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(data), bytes(4), 0x02400000, device, colours, space)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *np.round(white * 65536).astype(int)) + bytes(48)
    return head + table + data


def fixed(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *np.round(np.asarray(values) * 65536).astype(int))


def profile(primaries: tuple, gamma: float) -> bytes:
    """The profile of RGB with these primaries, D65 white and this gamma."""

    def xyz(point: tuple[float, float]) -> np.ndarray:
        x, y = point
        return np.array([x / y, 1, (1 - x - y) / y])

    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d65, d50 = xyz((0.3127, 0.3290)), np.array([0.9642, 1, 0.8249])
    to_d50 = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ d65)) @ bradford
    matrix = np.stack([xyz(point) for point in primaries], 1)
    columns = (to_d50 @ (matrix * np.linalg.solve(matrix, d65))).T
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {f"{c}XYZ".encode(): fixed(column) for c, column in zip("rgb", columns, strict=True)}
    return icc(b"mntr", b"RGB ", b"XYZ ", tags | {f"{c}TRC".encode(): curve for c in "rgb"})


def sheet() -> Image.Image:
    return Image.fromarray(gradient(120, 180))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, last: bool = False) -> bytes:
    """A PNG with one more chunk after its header, or before its end."""
    at = png.rindex(b"IEND") - 4 if last else 8 + 25
    return png[:at] + chunk(kind, data) + png[at:]


def tagged(kind: str, colours: bytes, image: Image.Image | None = None, **options) -> bytes:
    return encoded(image or sheet(), kind, icc_profile=colours, **options)


def seen_as(colour: tuple[int, int, int], primaries: tuple, gamma: float) -> np.ndarray:
    """What sRGB calls the colour, by the definitions of both."""

    def to_xyz(corners: tuple) -> np.ndarray:
        matrix = np.array([[x / y, 1, (1 - x - y) / y] for x, y in corners]).T
        return matrix * np.linalg.solve(matrix, np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290]))

    srgb = to_xyz(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)))
    light = np.clip(np.linalg.solve(srgb, to_xyz(primaries) @ (np.array(colour) / 255) ** gamma), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("space", [P3, ADOBE], ids=["P3", "Adobe RGB"])
def test_colours_are_what_their_profile_means(kind, space):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind != "TIFF" else {}
    for colour in ((200, 90, 110), (110, 160, 100), (255, 255, 255)):
        image = decode(tagged(kind, profile(*space), Image.new("RGB", (16, 16), colour), **options), *LIMITS)
        assert np.abs(image.mean((0, 1)) - seen_as(colour, *space)).max() < 7


def of_inks() -> bytes:
    """A colour profile of CMYK by which everything is one red, Lab (50, 60, 40), but what has black ink is black."""
    nodes = (bytes((128, 128 + 60, 128 + 40)) + bytes((0, 128, 128))) * 8
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel().tolist())
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + straight * 4 + nodes + straight * 3
    return icc(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def test_inks_are_what_their_profile_means():
    image = decode(tagged("JPEG", of_inks(), sheet().convert("CMYK"), quality=95), *LIMITS)
    assert np.abs(image.astype(int) - (206, 54, 57)).max() < 10


@pytest.mark.parametrize(
    "colours", [b"", b"no profile", profile(*P3)[:200], of_inks()], ids=["none", "text", "cut", "CMYK"]
)
def test_a_profile_that_is_broken_or_of_other_colours_says_nothing(colours):
    assert (decode(tagged("PNG", colours), *LIMITS) == gradient(120, 180)).all()
    grey = decode(tagged("PNG", profile(*P3), sheet().convert("L")), *LIMITS)
    assert (grey == np.asarray(sheet().convert("L"))[..., None]).all()


LONG = zlib.compress(bytes(3_000_000))
TEXTS = [
    (b"zTXt", b"Comment\0\0" + LONG),
    (b"iTXt", b"history\0\1\0\0\0" + LONG),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + bytes(3_000_000)),
    (b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    (b"iCCP", b"bomb\0\0" + zlib.compress(bytes(2**26))),
]


@pytest.mark.parametrize("last", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("kind", "data"), TEXTS, ids=["zTXt", "iTXt", "XMP", "tEXt", "iCCP"])
def test_a_png_is_none_the_worse_for_long_texts(kind, data, last):
    assert (decode(with_chunk(encoded(sheet(), "PNG"), kind, data, last), *LIMITS) == gradient(120, 180)).all()


def test_a_png_whose_texts_say_which_way_is_up_is_turned():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    stored_as = encoded(sheet().transpose(Image.Transpose.ROTATE_90), "PNG")
    image = decode(with_chunk(stored_as, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp), *LIMITS)
    assert (image == gradient(120, 180)).all()


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_kind_is_turned_upright_once(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"append_images": [Image.new("RGB", (120, 180))], "save_all": True} if kind == "MPO" else {}
    data = encoded(sheet().transpose(Image.Transpose.ROTATE_90), kind, exif=exif.tobytes(), **more)
    for side in (256, 90):
        image = decode(data, LIMITS.pixels, side)
        assert image.shape == (side * 120 // 180, side, 3) if side < 180 else image.shape == (120, 180, 3)
        assert image[3, -4, 0] > 190 and image[3, 3, 0] < 60


def test_srgb_itself_changes_nothing_and_linear_light_is_no_srgb():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (decode(tagged("PNG", own), *LIMITS) == gradient(120, 180)).all()
    linear = profile(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 1).replace(b"test\0", b"sRGB\0")
    image = decode(tagged("PNG", linear, Image.new("RGB", (8, 8), (55, 55, 55))), *LIMITS)
    assert (np.abs(image.astype(int) - 128) <= 1).all(), "a fifth of the light is sRGB's middle"


def one_colour_after_the_other(width: int, height: int) -> bytes:
    """A JPEG of a few hundred bytes that claims that size, and whose first scan is of one of its three colours."""
    data = encoded(Image.new("RGB", (16, 16), "red"), "JPEG", subsampling=0)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    sized = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 : scan]
    return sized + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :]


def test_what_a_jpegs_decoder_holds_whole_counts_whole():
    data = one_colour_after_the_other(4000, 3000)
    assert len(data) < 1000
    with pytest.raises(Unreadable, match="4000 x 3000 pixels to decode"):
        decode(data, 10**6, 100)
    padded = encoded(Image.new("RGB", (4000, 3000), "red"), "JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    assert decode(padded, 10**6, 100).shape == (75, 100, 3), "in one scan, after bytes that only fill"


def test_tga_is_read():
    for options in ({}, {"compression": "tga_rle"}):
        assert (decode(encoded(sheet(), "TGA", **options), *LIMITS) == gradient(120, 180)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"", b"MM\0*\0\0", b"MM\0*\0\0\0\x08\xff\xff\1", b"no TIFF header", b"II*\0\x08\0\0\0\xff"]
)
def test_exif_that_is_broken_costs_no_photo(kind, exif):
    assert decode(encoded(sheet(), kind, exif=b"Exif\0\0" + exif), *LIMITS).shape == (120, 180, 3)


def test_few_colours_are_reduced_by_their_mean():
    stripes = np.zeros((100, 600), np.uint8)
    stripes[:, ::2] = 255
    for image in (Image.fromarray(stripes).convert("P"), Image.fromarray(stripes).convert("1")):
        inner = decode(encoded(image, "PNG"), LIMITS.pixels, 100)[:, 2:-2]
        assert np.abs(inner.astype(int) - 127).max() < 20


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\xc5\xd0\xd3\xc6" + bytes(100),  # EPS with a preview
        b"\xd7\xcd\xc6\x9a" + bytes(100),  # WMF
        b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(100),
        b"%PDF-1.7\n",
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100),
        b"\x1aE\xdf\xa3" + bytes(100),  # Matroska
        b"RIFF\0\0\0\0AVI LIST" + bytes(100),
    ],
    ids=["EPS", "EPS with preview", "WMF", "EMF", "PDF", "MP4", "MKV", "AVI"],
)
def test_what_does_not_begin_as_a_picture_is_none_at_any_door(data, tmp_path):
    (tmp_path / "me.png").write_bytes(data)
    says = "not an image, or of a kind that is not read"
    assert [row["reason"] for row in taken(folder.photos, source="folder", path=str(tmp_path))] == [says]
    for door in (lambda: read_photo(data, "me.png", LIMITS), lambda: to_array(tmp_path / "me.png")):
        with pytest.raises(UserError, match=f"me.png: {says}"):
            door()


def test_a_tar_is_read_for_pictures_by_what_they_are_not_what_they_are_called(tmp_path):
    tar_of(
        tmp_path / "a.tar",
        ("1.photo", picture(1)),
        ("2.v1.jpg", picture(2)),
        ("3.npy", b"\x93NUMPY" + bytes(99)),
        ("4.cls", picture(4)),
        ("4.png", picture(5)),
    )
    found = taken(tars.photos, source="webdataset", path=str(tmp_path / "a.tar"))
    assert [row["reason"] for row in found] == [None, None, "the sample has no picture", None]
    assert [row["id"] for row in found if not row["reason"]] == [sha256(picture(shade)) for shade in (1, 2, 5)]


def test_threads_leave_pils_own_limit_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    data = encoded(sheet(), "PNG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decode(data, *LIMITS), range(200)))
    assert before == Image.MAX_IMAGE_PIXELS is not None


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"BM", b"P6 "]),
    st.binary(max_size=300),
)
def test_any_bytes_end_in_pixels_or_a_reason(begins, data):
    try:
        assert decode(begins + data, *LIMITS).dtype == np.uint8
    except Unreadable as reason:
        assert str(reason) and "\n" not in str(reason)


def test_a_git_lfs_pointer_is_told_as_what_it_is(tmp_path):
    (tmp_path / "me.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    (row,) = taken(folder.photos, source="folder", path=str(tmp_path))
    assert "run git lfs pull" in row["reason"]
