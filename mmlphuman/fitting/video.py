"""One video: when its frames are shown, and their pixels.

Data path: video file -> read_track (from the packets alone) -> Track -> decoded_frames -> pixels_of -> RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmlphuman.text import one_line

BT601, BT709, UNKNOWN_COLOURS = 5, 1, 2  # H.273's numbers as PyAV has them
HIGH_DEFINITION = 720  # lines: from there on videos that do not tell have the colours of BT.709


@dataclass(frozen=True)
class Track:
    """When a video's frames are shown."""

    path: Path
    times: np.ndarray  # (N,) seconds from its first frame on, rising
    stamps: np.ndarray | None  # (N,) the same as the file has it; None where it has none
    promised: int  # frames that its index tells of, 0 where there is none

    @property
    def rate(self) -> float:
        """Frames a second; 0 where there is one frame only."""
        return 1 / float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    @property
    def duration(self) -> float:
        """Seconds with all frames that are promised; the last one lasts as long as the others."""
        frames = max(len(self.times), self.promised)
        return self.times[-1] + (frames - len(self.times) + 1) / self.rate


def read_track(path: Path) -> Track:
    """From the packets, nothing is decoded. Raises ValueError for a file that is no video, or holds no frames."""
    from av.error import FFmpegError

    with _open(path) as container:
        stream = container.streams.video[0]
        stamps = []
        with suppress(FFmpegError):  # a cut file ends so; what is missing is told by those who need it
            for packet in container.demux(stream):
                stamps += [packet.pts] * bool(packet.size)
        base, rate, promised = stream.time_base, stream.average_rate, stream.frames
    if not stamps:
        raise ValueError(f"{path}: holds no frames; was it copied whole?")
    if any(stamp is None for stamp in stamps) or len(set(stamps)) < len(stamps):  # AVI tells a rate only
        return Track(path, np.arange(len(stamps)) / float(rate or 25), None, promised)
    if promised > len(stamps) > 2:
        # Cut short: the last packet may be half there, and of those shown before it some may have come later.
        ordered = np.sort(np.array(stamps[:-1]))
        gaps = np.diff(ordered)
        whole = np.flatnonzero(gaps > 1.5 * np.median(gaps))
        ordered = ordered[: int(whole[0]) + 1] if len(whole) else ordered
    else:
        ordered = np.sort(np.array(stamps))
    return Track(path, (ordered - ordered[0]) * float(base), ordered, promised)


def _open(path: Path) -> Any:
    import av  # here, so that those who have pictures need no decoder
    from av.error import FFmpegError

    try:
        container = av.open(str(path))
    except (FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable video ({one_line(error)}); was it copied whole?") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: holds no video")
    return container


def decoded_frames(track: Track, last: int) -> Iterator[tuple[int, Any]]:
    """(number, av.VideoFrame) in the order in which they are shown, up to number `last`. Raises ValueError where one is
    missing or damaged."""
    from av.error import FFmpegError

    path, number, reason = track.path, -1, ""
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                expected, number = number + 1, number + 1
                if track.stamps is not None:
                    number = int(np.searchsorted(track.stamps, frame.pts))
                if number != expected:
                    number = expected - 1
                    break
                if frame.is_corrupt:
                    raise ValueError(
                        f"{path}: frame {number} is damaged; copy it again, or leave it out by --frames"
                    )
                yield number, frame
                if number == last:
                    return
        except FFmpegError as error:
            reason = f" ({one_line(error)})"
    raise ValueError(
        f"{path}: cannot be decoded after frame {number} of {len(track.times)}{reason}; copy it again, or use what is "
        f"there: --frames 0:{max(number, 0)}"
    )


def last_whole_frame(track: Track) -> int:
    """The number of the last frame that can be decoded, 0 at least."""
    last = 0
    with suppress(ValueError):
        for number, _ in decoded_frames(track, len(track.times) - 1):
            last = number
    return last


def pixels_of(frame: Any) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 RGB of an av.VideoFrame as it is stored, and as its mark says that it is to be shown; the same
    array if it has none."""
    colours = frame.colorspace
    if colours == UNKNOWN_COLOURS:
        colours = BT709 if min(frame.width, frame.height) >= HIGH_DEFINITION else BT601
    stored = frame.reformat(format="rgb24", src_colorspace=colours).to_ndarray()
    return stored, np.rot90(stored, frame.rotation // 90) if frame.rotation else stored
