"""Why a photo is not used. Each rule is one line that returns a reason or nothing."""

from iy import params, rights
from iy.records import ACCEPTED, REJECTED


def judge(row: dict, settings: params.Curate, usage: str) -> dict:
    """The row with its verdict; rows already rejected keep their reason."""
    if row["verdict"] == REJECTED:
        return row
    return reject(row, reason) if (reason := flaw(row, settings, usage)) else row | {"verdict": ACCEPTED}


def reject(row: dict, reason: str) -> dict:
    return row | {"verdict": REJECTED, "reason": reason}


def flaw(row: dict, curate: params.Curate, usage: str) -> str | None:
    """The first thing that is wrong with a measured photo, with the setting that says so."""
    side = min(row["width"], row["height"])
    if why := rights.barred(row, usage):
        return why
    if side < curate.minimum_size:
        return f"too small: shorter side {side} px, curate.minimum_size is {curate.minimum_size}"
    if not row["faces"]:
        return "no face found"
    if row["faces"] > 1:
        return f"{row['faces']} faces of similar size: one person is needed"
    if row["face_size"] < curate.minimum_face:
        return f"face too small: {row['face_size']:.0f} px, curate.minimum_face is {curate.minimum_face}"
    if (share := face_share(row)) < curate.minimum_face_share:
        return (
            f"face too small in the photo: {share:.1%} of it, curate.minimum_face_share is {curate.minimum_face_share}"
        )
    if row["clipped"] > curate.maximum_clipped:
        share = row["clipped"]
        return f"badly exposed: {share:.0%} of the face clipped, curate.maximum_clipped is {curate.maximum_clipped}"
    if row["sharpness"] < curate.minimum_sharpness:
        return f"blurred: sharpness {row['sharpness']:.1f}, curate.minimum_sharpness is {curate.minimum_sharpness}"
    if abs(row["yaw"]) > curate.maximum_yaw:
        return f"turned away: yaw {row['yaw']:.0f}°, curate.maximum_yaw is {curate.maximum_yaw:g}"
    if abs(row["pitch"]) > curate.maximum_pitch:
        return f"turned up or down: pitch {row['pitch']:.0f}°, curate.maximum_pitch is {curate.maximum_pitch:g}"
    return None


def face_share(row: dict) -> float:
    """The face box's area as a share of the photo's."""
    x0, y0, x1, y1 = row["box"]
    return (x1 - x0) * (y1 - y0) / (row["width"] * row["height"])
