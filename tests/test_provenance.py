"""Drawn pictures say so in words that C2PA's own verifier reads, and show when they were changed."""

import io
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import c2pa
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from iy import cli, params
from iy.errors import UserError
from iy.pictures import Limits
from iy.provenance import keys
from iy.provenance.mark import Drawer, clock, open_marker
from iy.provenance.read import clean, read

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
WHEN = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
LIMITS = Limits(10**8, 1024)
MARK = params.load("studio").provenance


def marked(image=IMAGE, when=WHEN, prompt="a secret prompt", **settings) -> bytes:
    marker = open_marker(MARK.model_copy(update=settings), lambda: Drawer("iy-test", "0123abcd"), "cpu")
    return marker.png(image, when, prompt)


def says(data: bytes, place: Path):
    place.write_bytes(data)
    return read(place, MARK, LIMITS)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunks(png: bytes):
    place = 8
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        yield png[place + 4 : place + 8], png[place:end]
        place = end


def test_the_librarys_own_verifier_accepts_it_and_reads_who_drew_it(tmp_path):
    data = marked()
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
        assert reader.get_validation_state() == "Valid"
        [failure] = reader.get_validation_results()["activeManifest"]["failure"]
        assert failure["code"] == "signingCredential.untrusted", "self-signed"
    found = says(data, tmp_path / "p.png")
    assert (found.state, found.source, found.model) == ("own", "trainedAlgorithmicMedia", "iy-test 0123abcd")
    assert found.time == "2026-11-27T09:30:00Z" and found.xmp and found.xmp.endswith("/trainedAlgorithmicMedia")
    assert found.signer and "self-signed" in found.signer
    assert (np.asarray(Image.open(io.BytesIO(data))) == IMAGE).all()


def test_prompt_and_time_are_said_only_when_asked():
    assert b"secret" not in marked()
    told = open_marker(MARK.model_copy(update={"prompt": True}), lambda: Drawer("iy", "1"), "cpu")
    assert b"secret" in told.png(IMAGE, WHEN, "a secret prompt")
    assert b"2026-11-27" in marked() and b"2026-11-27" not in marked(when=None)


def test_equal_pictures_have_equal_bytes():
    assert marked() == marked() and marked(when=None) == marked(when=None)
    assert marked(IMAGE[::-1]) != marked() != marked(when=clock())


def test_one_changed_pixel_shows(tmp_path):
    image = IMAGE.copy()
    image[3, 5, 1] ^= 1
    other = dict(chunks(saved(Image.fromarray(image), "PNG")))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(other[b"IDAT"] if kind == b"IDAT" else it for kind, it in chunks(marked()))
    assert (np.asarray(Image.open(io.BytesIO(data))) == image).all()
    found = says(data, tmp_path / "p.png")
    assert found.state == "changed" and found.faults


def test_what_is_said_cannot_be_changed_either(tmp_path):
    data = marked().replace(b"0123abcd", b"0123abce")
    assert says(data, tmp_path / "p.png").state == "changed"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_saving_anew_or_cutting_to_80_percent_removes_it(kind, tmp_path):
    image = Image.open(io.BytesIO(marked()))
    cut = image.crop((0, 0, round(image.width * 0.8), round(image.height * 0.8)))
    for one in (image.convert("RGB"), cut.convert("RGB")):
        one.info.clear()
        found = says(saved(one, kind), tmp_path / "p")
        assert (found.state, found.xmp) == ("unsigned", None)


def test_xmp_alone_is_told_as_unsigned(tmp_path):
    image = Image.open(io.BytesIO(marked()))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", image.info["XML:com.adobe.xmp"])
    found = says(saved(image, "PNG", pnginfo=info), tmp_path / "p.png")
    assert found.state == "unsigned" and found.xmp and found.xmp.endswith("trainedAlgorithmicMedia")


def test_hostile_files_are_one_sentence_or_changed(tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(UserError, match="words.png: not an image"):
        read(tmp_path / "words.png", MARK, LIMITS)
    assert says(marked()[:4000], tmp_path / "cut.png").state == "changed"
    assert clean("a\x1b[2J\nb\u202e") == "a\ufffd[2J b\ufffd"


def test_the_key_is_made_once_for_its_owner_alone_and_that_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IY_KEYS", str(tmp_path / "keys"))
    first = keys.signatory(MARK)
    assert "self-signed, nobody vouches" in caplog.text
    assert keys.signatory(MARK).chain == first.chain
    assert stat.S_IMODE(keys.own_file().stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["signing.pem"]


def test_an_own_certificate_signs(tmp_path):
    """P-256: with RFC 6979 its signatures repeat too."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    own, above = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    one, root = (
        keys.certificate(own, "Ada", above, leaf=True),
        keys.certificate(above, f"{keys.NAME} (root)", above, False),
    )
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    chain.write_bytes(one.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM))
    named = {"key": str(key), "certificate": str(chain)}
    key.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        marked(**named)
    key.chmod(0o600)
    data = marked(**named)
    assert data == marked(**named)
    (tmp_path / "p.png").write_bytes(data)
    found = read(tmp_path / "p.png", MARK.model_copy(update=named), LIMITS)
    assert (found.state, found.signer) == ("own", "Ada")
    assert read(tmp_path / "p.png", MARK, LIMITS).state == "signed", "by somebody else than these settings' own"
    with pytest.raises(UserError, match="go together"):
        marked(key=str(key))


def test_the_switch_turns_it_off_and_is_logged(caplog, tmp_path):
    data = marked(mark=False)
    assert "provenance.mark is false" in caplog.text
    assert says(data, tmp_path / "p.png").state == "unsigned"


def test_the_command_tells_it_with_an_exit_code(project):
    Path("p.png").write_bytes(marked())
    done = CliRunner().invoke(cli.app, ["provenance", "p.png"])
    assert done.exit_code == 0 and "iy-test 0123abcd" in done.stdout and "unchanged" in done.stdout
    Path("q.png").write_bytes(saved(Image.fromarray(IMAGE), "PNG"))
    done = CliRunner().invoke(cli.app, ["provenance", "q.png", "--json"])
    assert done.exit_code == 1 and json.loads(done.stdout)["state"] == "unsigned"
