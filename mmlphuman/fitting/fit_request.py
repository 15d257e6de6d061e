"""What a fit is asked for, and whether what an earlier start has left answers the same request.

Data path: the command's words -> FitRequest -> its record beside the footage -> that of a later start against it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmlphuman.calibrations.calibration import with_scale
from mmlphuman.capture import thuman4
from mmlphuman.capture.calibration import calibration_content
from mmlphuman.fitting.footage import Footage, read_footage
from mmlphuman.fitting.writing import write_json
from mmlphuman.json_file import read_json

FIT = "fit"  # the stages' folder in the capture
FOOTAGE = "footage"  # there: the pictures, and what was asked for
REQUEST_FILE = "request.json"
# Of a request, what may change until one of these results is there: who has been refused does not begin anew.
FROM_LANDMARKS = ("rig.json", "points.npz", "body.npz")
CHANGEABLE = {
    "people": ("person.json", *FROM_LANDMARKS),
    "keypoints": FROM_LANDMARKS,
    "unit": FROM_LANDMARKS,
    "refine_cameras": FROM_LANDMARKS,
    "masks": ("body.npz",),
    "body": ("body.npz",),
}


@dataclass(frozen=True)
class FitRequest:
    """What the user asks for. Paths may be relative."""

    source: Path  # folder of videos, or of folders of pictures
    out: Path  # the capture to make
    calibration: Path  # file or folder of any known form
    body: Path  # in SMPL-X's form
    networks: Path  # environment of the packaged networks
    frames: slice = field(default_factory=lambda: slice(None))
    scale: float = 1.0  # of the pictures
    unit: float = 1.0  # metres in the calibration's unit
    people: tuple[str, ...] = ()  # whom of several, see people.parse_pick
    keypoints: Path | None = None  # the user's own, in place of the networks'
    masks: Path | None = None  # the user's own, in place of ours
    refine_cameras: bool = True
    device: str = "cpu"

    def record(self) -> dict:
        """What decides about the result."""
        return {
            "source": str(self.source.resolve()),
            "calibration": str(self.calibration.resolve()),
            "body": str(self.body.resolve()),
            "frames": [self.frames.start, self.frames.stop, self.frames.step],
            "scale": self.scale,
            "unit": self.unit,
            "people": sorted(self.people),
            "keypoints": None if self.keypoints is None else str(self.keypoints.resolve()),
            "masks": None if self.masks is None else str(self.masks.resolve()),
            "refine_cameras": self.refine_cameras,
        }

    @property
    def fit_dir(self) -> Path:
        """Of the stages' results."""
        return self.out / FIT

    def numbers(self, count: int) -> list[int]:
        """Of the capture's frames, `count`, in the source."""
        first, step = self.frames.start or 0, self.frames.step or 1
        return list(range(first, first + step * count, step))


def footage_begun(request: FitRequest) -> Footage:
    """What an earlier start has left. ValueError where other words were said then, on which results depend."""
    fit_dir, now = request.fit_dir, request.record()
    record = fit_dir / FOOTAGE / REQUEST_FILE
    with kept_result(request.out):
        earlier, footage = read_json(record), read_footage(fit_dir / FOOTAGE)
        if set(earlier) != set(now):
            raise ValueError(f"{record}: is damaged or of another version")
        cameras = with_scale(footage.cameras, request.unit / float(earlier["unit"]))
    for name, value in now.items():
        results = CHANGEABLE.get(name, (FOOTAGE,))
        if earlier[name] != value and any((fit_dir / result).exists() for result in results):
            raise ValueError(
                f"--out {request.out}: was begun with {name} {earlier[name]}, now it is {value}; name a new folder, or "
                "give the same"
            )
    if earlier["masks"] != now["masks"]:
        shutil.rmtree(fit_dir / "masks", ignore_errors=True)  # made of the others
    if earlier != now:
        write_json(fit_dir / FOOTAGE / thuman4.CALIBRATION_FILE, calibration_content(cameras))
        write_json(record, now)
    return replace(footage, cameras=cameras)


@contextmanager
def kept_result(path: Path) -> Iterator[None]:
    """What an earlier start has left may have been damaged since: says what to do."""
    try:
        yield
    except (ValueError, OSError, KeyError, TypeError) as error:
        what = (
            str(error) if str(path.parent) in str(error) else f"{path}: is damaged"
        )  # KeyError says a key only
        raise ValueError(f"{what}; remove {path}, it is made anew then") from error
