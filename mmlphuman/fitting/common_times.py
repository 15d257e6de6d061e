"""The times at which there is a picture of every camera, and which of each camera's pictures those are.

Data path: Track of each video (or a count of pictures), the frames asked for -> CommonTimes.
Shape letters: V cameras, F frames.

Videos are taken to begin together. Frame f is at f / rate after each one's beginning, rate being that of the slowest
camera; of each video the frame nearest to that time is its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmlphuman.fitting.video import Track, last_whole_frame

UNEVEN = 0.25  # of a frame's time: gaps that differ by more are a rate that varies


@dataclass(frozen=True)
class CommonTimes:
    """Which of each camera's pictures are taken."""

    numbers: tuple[np.ndarray, ...]  # V times (F,): counted from each camera's first picture
    rate: float | None  # frames a second; None for pictures
    notes: tuple[str, ...]


def frame_range(text: str) -> slice:
    """`first:last:step` (each may be left out, last is taken along) or one number. Raises ValueError."""
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = [-1]
    if len(numbers) > 3 or any(number is not None and number < 0 for number in numbers):
        raise ValueError(f"--frames {text}: first:last:step is needed, such as 0:99 or 10:200:2")
    first, last, step = (numbers * 2 if len(numbers) == 1 else numbers + [None])[:2] + [
        numbers[2] if len(numbers) == 3 else None
    ]
    first, step = first or 0, 1 if step is None else step
    if step < 1 or (last is not None and last < first):
        raise ValueError(f"--frames {text}: holds no frame; first:last:step is needed, such as 0:99")
    return slice(first, None if last is None else last + 1, step)


def times_of_pictures(names: Sequence[str], counts: Sequence[int], frames: slice) -> CommonTimes:
    """names, counts: V cameras and how many pictures each has. Raises ValueError for a range without frames."""
    count = min(counts)
    chosen, notes = _in_range(frames, count, f"the pictures are {count} frames")
    return CommonTimes((np.array(chosen),) * len(names), None, (*_length_notes(names, counts), *notes))


def times_of_videos(names: Sequence[str], tracks: Sequence[Track], frames: slice) -> CommonTimes:
    """names, tracks: V cameras and their videos. Raises ValueError for a range without frames, and for videos that have
    one frame only or are cut short within the range."""
    for track in tracks:
        if len(track.times) < 2:
            raise ValueError(
                f"{track.path}: has one frame only; a video is needed, or pictures of all cameras"
            )
    rates = [track.rate for track in tracks]
    rate, notes = min(rates), []
    if max(rates) / rate > 1.01:
        each = ", ".join(f"{name} {one:.4g}" for name, one in zip(names, rates, strict=True))
        notes.append(f"frames a second differ ({each}): pictures are taken at {rate:.4g} a second")
    lengths = [track.duration * rate for track in tracks]
    count = max(1, round(min(lengths)))
    if any(abs(length - count) >= 0.5 for length in lengths):
        notes += _length_notes(names, [round(length) for length in lengths])
    chosen, range_notes = _in_range(frames, count, f"the videos have {count} common frames")
    notes += range_notes
    times, numbers = np.array(chosen) / rate, []
    for track in tracks:
        nearest = _nearest_frames(track, times, rate)
        numbers.append(nearest)
        notes += _rate_notes(track, nearest, times)
    return CommonTimes(tuple(numbers), rate, tuple(notes))


def _in_range(asked: slice, count: int, there_are: str) -> tuple[range, list[str]]:
    """Of frames 0 to count - 1 those that are asked for; a note if more are."""
    chosen = range(count)[asked]
    if not chosen:
        raise ValueError(f"--frames: {there_are}, 0 to {count - 1}; none is in the range")
    if asked.stop is None or asked.stop <= count:
        return chosen, []
    return chosen, [
        f"--frames asks for frames up to {asked.stop - 1}, there are 0 to {count - 1}: {len(chosen)} are taken"
    ]


def _length_notes(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    if len(set(counts)) == 1:
        return []
    each = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
    return [
        f"lengths differ ({each} frames): the first {min(counts)} are used; do all recordings begin together?"
    ]


def _nearest_frames(track: Track, times: np.ndarray, rate: float) -> np.ndarray:
    """(F,) numbers of the video's frames; times: (F,) seconds, rising."""
    if times[-1] > track.times[-1] + 0.75 / track.rate:
        last = last_whole_frame(track)
        raise ValueError(
            f"{track.path}: is cut short after frame {last} of {track.promised}; copy it again, or use what is "
            f"there: --frames 0:{int((track.times[last] + 0.5 / track.rate) * rate)}"
        )
    after = np.clip(np.searchsorted(track.times, times), 1, len(track.times) - 1)
    nearer = times - track.times[after - 1] <= track.times[after] - times
    return after - nearer


def _rate_notes(track: Track, nearest: np.ndarray, times: np.ndarray) -> list[str]:
    notes, gaps = [], np.diff(track.times)
    if np.abs(gaps * track.rate - 1).max() > UNEVEN:
        off = np.abs(track.times[nearest] - times)
        notes.append(
            f"{track.path}: its rate varies (frames last {1e3 * gaps.min():.0f} to {1e3 * gaps.max():.0f} ms); "
            f"the nearest frames are taken, up to {1e3 * off.max():.0f} ms off; set the camera to a constant rate"
        )
    if (repeated := int((np.diff(nearest) == 0).sum())) > 0:
        notes.append(f"{track.path}: {repeated} of its frames stand for two times, it has dropped frames")
    return notes
