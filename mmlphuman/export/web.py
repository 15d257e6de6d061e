"""A folder that shows the avatar in any browser, served by any server of plain files.

Data path: compact file's content + poses -> avatar.safetensors, poses.npz, player.json, and the page that draws them
(streaming/player, with what it shares with the page of streamed pictures).
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.files import atomic_write
from mmlphuman.streaming.access import CONTENT_TYPES, PAGE_FOLDER, PLAYER_FOLDER

AVATAR, POSES, SETTINGS = "avatar.safetensors", "poses.npz", "player.json"
# Modules of the page of streamed pictures that the player uses as they are.
SHARED = ("dom.js", "mouse.js", "orbit_camera.js", "pace.js", "pose_file.js", "style.css", "timeline.js")


def page_files() -> dict[str, Path]:
    """Name in the folder -> file of this package, index.html last: who finds it finds the others."""
    own = [file for file in sorted(PLAYER_FOLDER.iterdir()) if file.suffix in CONTENT_TYPES]
    files = {name: PAGE_FOLDER / name for name in SHARED} | {file.name: file for file in own}
    return dict(sorted(files.items(), key=lambda item: item[0] == "index.html"))


def web_names(sequence: PoseSequence | None) -> list[str]:
    """All that `write_web` writes."""
    return [AVATAR, *([POSES] if sequence is not None else []), SETTINGS, *page_files()]


def write_web(
    folder: Path, avatar: bytes, sequence: PoseSequence | None, title: str = "", project: bool = False
) -> None:
    """Everything of `web_contents` into a folder."""
    for name, content in web_contents(avatar, sequence, title, project).items():
        with atomic_write(folder / name) as file:
            file.write(content)


def web_contents(
    avatar: bytes, sequence: PoseSequence | None, title: str = "", project: bool = False
) -> dict[str, bytes]:
    """Name in the folder -> content. avatar: the content of a compact file. sequence: about the pelvis
    (PoseSequence.about_pelvis); None: the page has the training frames alone. project: it begins in test mode."""
    contents = {AVATAR: avatar}
    if sequence is not None:
        contents[POSES] = pose_archive(sequence)
    settings = {"title": title, "avatar": AVATAR, "poses": POSES if sequence is not None else None}
    contents[SETTINGS] = json.dumps(settings | {"project": project}, indent=1).encode()
    return contents | {name: file.read_bytes() for name, file in page_files().items()}


def pose_archive(sequence: PoseSequence) -> bytes:
    """An npz in the form of AMASS, which page/pose_file.js and --pose_path read."""
    assert sequence.turns is None and np.array_equal(sequence.rotation, np.eye(3)), "about the pelvis"
    arrays = {
        "poses": sequence.poses.astype(np.float32),
        "trans": sequence.translations.astype(np.float32),
        "frames": sequence.frames.astype(np.int32),
        "mocap_framerate": np.float64(sequence.playback_fps),
    }
    if sequence.expressions is not None:
        arrays["expression"] = sequence.expressions.astype(np.float32)
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # pyright: ignore[reportArgumentType]
    return archive.getvalue()
