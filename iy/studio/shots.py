"""What a photographer decides: expression, head pose, gaze, light, backdrop and clothes, with a little jitter.

Angles are degrees. Left and right are the viewer's; yaw > 0 turns right, pitch > 0 up, roll > 0 tilts right.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from iy import lexicon

POSE_ANGLES = {
    "frontal": (0, 0, 0),
    "left": (-18, 0, 0),
    "right": (18, 0, 0),
    "up": (0, 12, 0),
    "down": (0, -11, 0),
    "up-left": (-14, 9, 0),
    "up-right": (14, 9, 0),
    "tilt-left": (0, 0, -13),
    "tilt-right": (0, 0, 13),
}
GAZE_ANGLES = {"left": (-36, 0), "right": (36, 0), "up": (0, 16), "down": (0, -20)}  # of the eyes in the head
LIGHT_ANGLES = {
    "soft": (-25, 40),
    "left": (-55, 25),
    "right": (55, 25),
    "dim": (-40, 50),
    "warm": (48, 28),
    "cold": (-45, 35),
}
JITTER = {"yaw": 2.5, "pitch": 2.0, "roll": 2.0, "light_yaw": 6.0, "light_pitch": 5.0}
BADGES = 1 / 3  # of the shots show one
ACTIONS: dict[str, dict[str, float]] = {  # of anny's full strength, which is a human's limit
    "neutral": {},
    "smiling": {"mouthSmile*": 0.80, "cheekSquint*": 0.45, "mouthDimple*": 0.30, "mouthStretch*": 0.15},
    "laughing": {
        "mouthSmile*": 0.90,
        "jawOpen": 0.36,
        "cheekSquint*": 0.75,
        "eyeSquint*": 0.65,
        "mouthUpperUp*": 0.50,
        "mouthLowerDown*": 0.30,
    },
    "surprised": {"jawOpen": 0.46, "browInnerUp": 0.90, "browOuterUp*": 0.85, "eyeWide*": 0.90, "mouthFunnel": 0.40},
    "angry": {
        "browDown*": 1.0,
        "noseSneer*": 0.35,
        "mouthPress*": 0.50,
        "mouthFrown*": 0.55,
        "eyeSquint*": 0.35,
        "mouthStretch*": 0.25,
    },
    "sad": {"mouthFrown*": 1.0, "browInnerUp": 1.0, "mouthShrugLower": 0.55, "eyeBlink*": 0.25},
    "winking": {
        "eyeBlinkLeft": 1.0,
        "cheekSquintLeft": 0.75,
        "mouthSmileLeft": 0.85,
        "mouthSmileRight": 0.35,
        "browDownLeft": 0.45,
        "browOuterUpRight": 0.60,
    },
    "kissing": {"mouthPucker": 1.0, "mouthFunnel": 0.35, "eyeSquint*": 0.15, "jawOpen": 0.05},
    "disgusted": {
        "noseSneer*": 1.0,
        "mouthUpperUp*": 0.85,
        "browDown*": 0.45,
        "eyeSquint*": 0.60,
        "mouthFrown*": 0.40,
        "mouthShrugLower": 0.25,
    },
    "sleeping": {"eyeBlink*": 1.0},
    "shouting": {
        "jawOpen": 0.68,
        "mouthStretch*": 0.60,
        "browDown*": 0.75,
        "noseSneer*": 0.40,
        "mouthLowerDown*": 0.45,
        "mouthUpperUp*": 0.40,
        "eyeSquint*": 0.25,
    },
    "tongue out": {"tongueOut": 1.0, "jawOpen": 0.34, "browOuterUp*": 0.35, "mouthSmile*": 0.30},
}


@dataclass(frozen=True)
class Shot:
    """One way to photograph a person. The first seven are values of `iy.lexicon`, then comes exact jitter."""

    expression: str
    pose: str
    gaze: str
    light: str
    backdrop: str
    garment: str
    garment_colour: str
    yaw: float  # degrees added to the pose
    pitch: float
    roll: float
    light_yaw: float  # degrees added to the light's direction
    light_pitch: float
    strength: float  # of the expression, .88 to 1
    brightness: float  # of the light, .93 to 1.07
    zoom: float  # .97 to 1.03
    seed: int  # of the backdrop's details
    word: str  # on a badge, one of `lexicon.WORDS`; "" without a badge

    def attributes(self) -> dict[str, str]:
        """The shot's lexicon values, keyed by `iy.lexicon.SHOT`."""
        return {name: getattr(self, name) for name in lexicon.SHOT}

    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll of the head in degrees."""
        yaw, pitch, roll = POSE_ANGLES[self.pose]
        return yaw + self.yaw, pitch + self.pitch, roll + self.roll

    def eye_angles(self) -> tuple[float, float]:
        """Yaw and pitch of the eyes in the head, degrees. On the camera they undo most of the head's turn."""
        if self.gaze != "camera":
            return GAZE_ANGLES[self.gaze]
        yaw, pitch, _ = self.angles()
        return float(np.clip(-0.9 * yaw, -34, 34)), float(np.clip(-0.9 * pitch, -20, 20))

    def actions(self) -> dict[str, float]:
        """anny's facial actions for the expression, the lids following the eyes."""
        found: dict[str, float] = {}
        for name, value in ACTIONS[self.expression].items():
            for side in ("Left", "Right") if name.endswith("*") else ("",):
                found[name.removesuffix("*") + side] = value * self.strength if value != 1.0 else value
        vertical = float(np.clip(self.eye_angles()[1] / 20, -1, 1))  # the lids go along all the way at 20 degrees
        for side in ("Left", "Right"):
            if found.get("eyeBlink" + side, 0) < 0.9:
                found[("eyeLookUp" if vertical > 0 else "eyeLookDown") + side] = abs(vertical)
        return found

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Shot":
        return cls(**json.loads(text))


def sample_shot(seed: int) -> Shot:
    """The shot of this seed. All values are equally likely, but half of the gazes meet the camera."""
    return shot_from({}, seed)


def shot_from(attributes: Mapping[str, str], seed: int) -> Shot:
    """A shot with these attributes (any subset of `iy.lexicon.SHOT`); seed draws the others and the jitter."""
    unknown = {
        name: value
        for name, value in attributes.items()
        if name not in lexicon.SHOT or value not in lexicon.LEXICON[name]
    }
    if unknown:
        raise ValueError(f"no such shot attributes: {unknown}; see iy.lexicon.SHOT and LEXICON")
    rng = np.random.default_rng([seed, 3])
    values = {name: str(rng.choice(list(lexicon.LEXICON[name]))) for name in lexicon.SHOT}
    if rng.random() < 0.5:
        values["gaze"] = "camera"
    jitter: dict[str, Any] = {name: float(rng.uniform(-width, width)) for name, width in JITTER.items()}
    values |= attributes
    if values["expression"] == "sleeping" and "gaze" not in attributes:
        values["gaze"] = "camera"
    return Shot(
        **values,
        **jitter,
        strength=float(rng.uniform(0.88, 1.0)),
        brightness=float(rng.uniform(0.93, 1.07)),
        zoom=float(rng.uniform(0.97, 1.03)),
        seed=int(rng.integers(2**31)),
        word=str(rng.choice(lexicon.WORDS)) if rng.random() < BADGES else "",
    )
