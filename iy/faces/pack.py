"""insightface's `FaceAnalysis` on a folder of ONNX files. Nothing is downloaded; its own packs are research-only."""

from pathlib import Path

import cv2
import numpy as np

from iy import params
from iy.device import onnx_providers
from iy.errors import UserError, one_line
from iy.faces import weights
from iy.faces.face import Face, biggest_first, reduced
from iy.faces.recognise import Recogniser
from iy.storage import file_sha256

PADDING = 0.4  # of the short side: SCRFD misses faces that fill the picture
SIDE = 640  # what the detector looks at
UNPINNED = "unknown licence (insightface's own packs are for research only)"


class Pack:
    name = "insightface"

    def __init__(self, faces: params.Faces, usage: weights.Usage, device: str) -> None:
        self.folder = checked_folder(faces.pack)
        self.licence = allowed(self.folder, usage)
        self.minimum_score, self.embed_size = faces.minimum_score, faces.embed_size
        self.app = self.open(onnx_providers(device))
        self.recogniser: Recogniser = PackRecogniser(self.app.models["recognition"], self.licence)

    def open(self, providers: list[str]):
        import onnxruntime
        from insightface.app import FaceAnalysis

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            app = FaceAnalysis(
                name=str(self.folder),
                allowed_modules=["detection", "recognition"],
                providers=providers,
                sess_options=options,
            )
            app.prepare(ctx_id=-1 if len(providers) == 1 else 0, det_thresh=self.minimum_score, det_size=(SIDE, SIDE))
        except Exception as error:  # insightface and onnxruntime raise many kinds on a pack that is not one
            raise UserError(
                f"faces.pack {self.folder} cannot be opened by insightface ({one_line(error)}): it needs one "
                "detector and one recogniser as ONNX files"
            ) from None
        if "recognition" not in app.models:
            raise UserError(
                f"faces.pack {self.folder} holds no recogniser: put an ONNX recogniser (112 x 112) beside the detector"
            )
        return app

    def detect(self, image: np.ndarray) -> list[Face]:
        pad = round(PADDING * min(image.shape[:2]))
        padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(127,) * 3)
        boxes, landmarks = self.app.models["detection"].detect(bgr(padded), max_num=0, metric="default")
        if landmarks is None:
            return []
        return biggest_first(
            [
                Face((box[:4] - pad).astype(np.float32), (points - pad).astype(np.float32), float(box[4]))
                for box, points in zip(boxes, landmarks, strict=True)
            ]
        )

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        return self.recogniser.embed(*reduced(image, face, self.embed_size))


class PackRecogniser:
    name = "insightface"
    threshold = 0.378  # fr_feature's on the AT&T faces; ArcFace models have theirs near it

    def __init__(self, model, licence: str) -> None:
        self.model, self.licence = model, licence
        self.version = file_sha256(model.model_file)[:12]
        self.width = model.output_shape[-1]  # numbers per face

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        from insightface.app.common import Face as TheirFace

        found = TheirFace(bbox=face.box, kps=face.landmarks, det_score=face.score)
        return np.asarray(self.model.get(bgr(image), found), np.float32)


def checked_folder(pack: str | None) -> Path:
    if pack is None:
        raise UserError(
            "faces.analyser: insightface needs faces.pack: name a folder with an ONNX detector and "
            f"recogniser (`{weights.COMMAND}` makes {weights.folder() / weights.PACK})"
        )
    if not Path(pack).is_dir():
        raise UserError(
            f"faces.pack: the folder {pack} does not exist: `{weights.COMMAND}` makes "
            f"{weights.folder() / weights.PACK}, or use faces.analyser: open"
        )
    if not list(Path(pack).glob("*.onnx")):
        raise UserError(f"faces.pack: the folder {pack} holds no .onnx file: put a detector and a recogniser there")
    return Path(pack).resolve()  # insightface looks for any other in its own folder, and on the network


def allowed(folder: Path, usage: weights.Usage) -> str:
    """The pack's licences; files that carry a pinned name must have the pinned bytes."""
    licences = []
    for file in sorted(folder.glob("*.onnx")):
        digest = file_sha256(file)
        by_hash = [name for name, known in weights.WEIGHTS.items() if known.sha256 == digest]
        if file.stem in weights.WEIGHTS and file.stem not in by_hash:
            raise UserError(
                f"faces.pack: {file} does not have the pinned sha256 "
                f"{weights.WEIGHTS[file.stem].sha256[:16]}…: delete it, then run `{weights.COMMAND}`"
            )
        if by_hash:
            weights.require(by_hash[0], usage)
        elif usage != "research":
            raise UserError(f"usage: {usage} does not allow {file}: {UNPINNED}; choose faces.analyser: open")
        licences.append(f"{file.name}: {weights.WEIGHTS[by_hash[0]].licence if by_hash else UNPINNED}")
    return "; ".join(licences)


def bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])
