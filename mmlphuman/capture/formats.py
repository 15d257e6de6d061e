"""Which format a capture folder has: its calibration file tells. A new format adds its reader here."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmlphuman.capture import actorshq, avatarrex, thuman4
from mmlphuman.capture.layout import CaptureLayout

VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv")
READERS = {
    avatarrex.CALIBRATION_FILE: avatarrex.read_avatarrex,
    thuman4.CALIBRATION_FILE: thuman4.read_thuman4,
    actorshq.CALIBRATION_FILE: actorshq.read_actorshq,
}


def open_capture(data_dir: str | Path) -> CaptureLayout:
    """Recognise the format of a capture folder and read its calibration.

    Raises FileNotFoundError if there is no such folder, ValueError if no known calibration file is in it, if
    there are several, or if the calibration is unusable.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"capture folder {root} does not exist; give the right --data_dir")
    found = [calibration for calibration in READERS if (root / calibration).is_file()]
    if videos := what_of_videos(root):
        raise ValueError(videos)
    if not found:
        raise ValueError(
            f"{root}: no capture of a known format: it must hold {' or '.join(READERS)} "
            "(is --data_dir one level off?)"
        )
    if len(found) > 1:
        raise ValueError(
            f"{root}: holds calibrations of several formats, {' and '.join(found)}; keep only the one that "
            "its images belong to"
        )
    return READERS[found[0]](root)


def what_of_videos(root: Path) -> str:
    """What to do with a folder that is no capture but holds videos, itself or one level down; "" for any other."""
    if any((root / calibration).is_file() for calibration in READERS):
        return ""
    places = [root, *sorted(place for place in root.iterdir() if place.is_dir())]
    for place in places:
        video = next((file for file in sorted(place.iterdir()) if file.suffix.lower() in VIDEO_ENDINGS), None)
        if video is not None:
            return (
                f"{root}: holds videos ({video.relative_to(root)}), not a capture; make one of them first: "
                f"python script/fit_capture.py --data_dir {shlex.quote(str(root))}"
            )
    return ""
