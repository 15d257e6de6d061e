"""Which format a capture folder has: its calibration file tells. A new format adds its reader here."""

from __future__ import annotations

from pathlib import Path

from mmlphuman.capture import avatarrex
from mmlphuman.capture.layout import CaptureLayout

READERS = {avatarrex.CALIBRATION_FILE: avatarrex.read_avatarrex}


def open_capture(data_dir: str | Path) -> CaptureLayout:
    """Recognise the format of a capture folder and read its calibration.

    Raises FileNotFoundError if there is no such folder, ValueError if no known calibration file is in it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"capture folder {root} does not exist; give the right --data_dir")
    for calibration, read in READERS.items():
        if (root / calibration).is_file():
            return read(root)
    raise ValueError(
        f"{root}: no capture of a known format: it must hold {' or '.join(READERS)} "
        "(is --data_dir one level off?)"
    )
