"""Videos or pictures of a person, and a calibration -> a capture with masks and body, ready to train on.

Data path: FitRequest (fit_request.py) -> footage -> landmarks and outlines (networks, or the user's files) -> masks ->
cameras and times -> points -> body -> [masks again, with the body known, and the body on them] -> a capture in
THuman4.0's layout (fit_results.py).

Every stage leaves its result in OUT/fit/ and is not done again while that is there, so that an interrupted fit goes on
with the same command, and a result can be replaced by a better one: remove what depends on it (it is said in the order
above) and start again. Once all is done nothing needs OUT/fit any more. What is doubtful is in the report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.calibrations.calibration import with_scale
from mmlphuman.calibrations.forms import read_calibration
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.images import decode_image
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import require_writable
from mmlphuman.files import atomic_folder, atomic_write, free_folder, read_npz
from mmlphuman.fitting.body_fit import FittedPerson, fit_body
from mmlphuman.fitting.fit_request import FOOTAGE, REQUEST_FILE, FitRequest, footage_begun, kept_result
from mmlphuman.fitting.fit_results import FittedCapture, finish, summary, write_results
from mmlphuman.fitting.footage import Footage, extract_footage
from mmlphuman.fitting.keypoint_files import notes_on, read_keypoints, require_in_pictures
from mmlphuman.fitting.masks import Masks, copy_masks, make_masks
from mmlphuman.fitting.networks import interpreter_in, landmark_shifts, run_networks
from mmlphuman.fitting.observations import LANDMARKS, BodyFit, Landmarks, Points, Rig
from mmlphuman.fitting.people import torso_length
from mmlphuman.fitting.posed_body import read_fitted_body
from mmlphuman.fitting.recordings import find_recordings
from mmlphuman.fitting.report import body_in_time
from mmlphuman.fitting.rig import CameraChange, refine_rig
from mmlphuman.fitting.silhouettes import NEAR, draw_silhouette, masks_in
from mmlphuman.fitting.triangulation import mend_swaps, triangulate
from mmlphuman.fitting.writing import (
    BODY_FILE,
    POSE_FILE,
    read_fit,
    read_rig,
    write_body,
    write_fit,
    write_json,
    write_points,
    write_poses,
    write_rig,
)
from mmlphuman.json_file import read_json

FEWEST_CAMERAS = 4
TORSO, MANY_TIMES = 0.5, 2.5  # metres from the shoulders to the hips; children are smaller, few people larger
UNITS = (0.001, 0.01, 0.0254, 0.1, 1.0)  # metres

STANDS = 0.8  # cosine between the person and the axis that is taken for up

Say = Callable[[str], None]


def fit_capture(request: FitRequest, say: Say = print) -> FittedCapture:
    """Does all that is not done yet. Raises FileNotFoundError or ValueError, one line, for what cannot be used."""
    read_fitted_body(request.body)  # what is wrong with it is said before the long part
    if request.keypoints is None or request.masks is None:
        interpreter_in(request.networks)
    footage = take_footage(request, say)
    notes = list(footage.notes)
    if len(footage.cameras) < FEWEST_CAMERAS:
        notes.append(
            f"{len(footage.cameras)} cameras: {FEWEST_CAMERAS} all round are the fewest for a whole avatar"
        )
    say(f"footage      {footage.frames} frames of {len(footage.cameras)} cameras")
    for note in notes:  # now, not after the long part
        say(f"note         {note}")
    given = given_masks(request, footage)  # what is wrong with them is said before the networks run
    landmarks, outlines, found = take_landmarks(request, footage, say)
    notes += found
    if given is None:
        assert outlines is not None, "the networks have drawn them"
        given = make_masks(footage, outlines, landmarks, request.fit_dir / "masks")
    masks, notes = given.folder, [*notes, *given.notes]
    rig, changes, found = take_rig(request, footage, landmarks, say)
    notes += found
    triangulated = triangulate(landmarks, rig)
    landmarks = triangulated.landmarks
    rig, points, found = y_up(rig, triangulated.points)
    notes += [*triangulated.notes, *found]
    write_points(request.fit_dir / "points.npz", points)
    person = take_body(request, footage, rig, landmarks, points, masks, say)
    if outlines is not None and request.masks is None:
        masks, found = masks_of_body(request, footage, rig, person.fit, outlines, landmarks)
        notes += found
        start = person.fit.poses, person.fit.translations, person.fit.betas
        person = take_body(request, footage, rig, landmarks, None, masks, say, "body_again", start)
    notes += person.notes
    return finish(request, footage, masks, rig, changes, person, landmarks, notes)


def refine_capture(
    data_dir: Path,
    body: Path,
    out: Path,
    keypoints: Path | None = None,
    device: str = "cpu",
    say: Say = print,
) -> FittedCapture:
    """Better poses, shape and surface for a capture that has poses: on its masks, and landmarks where they are given.

    Writes smpl_params.npz, SMPLX_NEUTRAL.npz, report.md and contact_sheet.png into the new folder `out`; the capture
    stays as it is. Raises FileNotFoundError or ValueError, one line.
    """
    out = free_folder(out, "--out")
    layout = open_capture(data_dir)
    params = read_smpl_params(layout.pose_path, model_file=body)
    frames, cameras = len(params), []
    for view, camera in enumerate(layout.cameras):
        path = next((p for frame in range(frames) if (p := layout.find_image(view, frame)) is not None), None)
        if path is None:
            raise ValueError(
                f"{data_dir}: camera '{camera.name}' has no picture of the {frames} frames with poses"
            )
        height, width = decode_image(path, cv2.IMREAD_GRAYSCALE).shape
        cameras.append(replace(camera, image_size=(width, height)))
    rig = Rig(tuple(cameras), np.zeros(len(cameras)))
    landmarks = None
    if keypoints is not None:
        names = [camera.name for camera in cameras]
        landmarks, _ = mend_swaps(read_keypoints(keypoints, names, range(frames)), rig)
    start = params.poses, params.translations, params.betas
    person = fit_body(body, rig, landmarks, None, layout.find_mask, start, device, say)
    with atomic_folder(out) as folder:
        write_poses(folder / POSE_FILE, person.fit)
        write_body(folder / BODY_FILE, person.fit, body)
        changes = tuple(CameraChange(camera.name, 0, 0, 0, np.nan, np.nan) for camera in cameras)
        write_results(folder, body, rig, changes, person, landmarks, layout.find_image, person.notes)
    return summary(out, out / BODY_FILE, person, person.notes)


def take_footage(request: FitRequest, say: Say) -> Footage:
    """Pictures at common times, and the cameras as they were given, in OUT/fit/footage."""
    folder = request.fit_dir / FOOTAGE
    if (folder / REQUEST_FILE).is_file():
        return footage_begun(request)
    free_folder(request.out, "--out")
    require_writable(Path(os.path.realpath(request.out)).parent, "--out")
    calibration = read_calibration(request.calibration)
    cameras = with_scale(calibration.cameras, request.unit)
    say(f"calibration  {calibration.form}, {len(cameras)} cameras")
    recordings, notes = find_recordings(request.source, replace(calibration, cameras=cameras))
    if recordings[0].video is None and _lies_in(request.out, recordings[0].place.parent):
        raise ValueError(
            f"--out {request.out}: lies among the folders of pictures in {recordings[0].place.parent}, of which it "
            "would look like one; name a folder elsewhere"
        )
    if not calibration.is_metric and request.unit == 1:
        notes.append("the calibration has no metric scale: give --unit, its unit in metres")
    record = {REQUEST_FILE: request.record()}
    try:
        return extract_footage(recordings, folder, request.frames, request.scale, notes, more_files=record)
    finally:
        for place in (folder.parent, request.out):  # where nothing came, nothing is left
            with suppress(OSError):
                place.rmdir()


def _lies_in(place: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(place)).parents


def take_landmarks(
    request: FitRequest, footage: Footage, say: Say
) -> tuple[Landmarks, Path | None, tuple[str, ...]]:
    """Landmarks, the folder of soft outlines (None where the user has masks and keypoints), notes."""
    names = [camera.name for camera in footage.cameras]
    landmarks, outlines, notes = None, None, ()
    if request.keypoints is not None:
        landmarks = read_keypoints(
            request.keypoints, names, request.numbers(footage.frames), scale=request.scale
        )
        require_in_pictures(request.keypoints, landmarks, footage.cameras)
        notes = notes_on(landmarks, names)
    if landmarks is None or request.masks is None:
        say("people       landmarks and outlines in every picture, by the networks")
        networked = run_networks(footage, request.fit_dir, request.people, request.networks)
        outlines = networked.outlines
        if landmarks is None:
            landmarks, notes = networked.landmarks, networked.notes
    require_human_size(landmarks, footage.cameras, request.unit)
    return landmarks, outlines, notes


def require_human_size(landmarks: Landmarks, cameras: Sequence[CalibratedCamera], unit: float) -> None:
    """ValueError where the person would be a giant or a dwarf: the rest is judged in metres."""
    torso = torso_length(cameras, landmarks)
    if not np.isfinite(torso) or TORSO / MANY_TIMES < torso < TORSO * MANY_TIMES:
        return
    factor = unit * TORSO / torso
    nearest = min(UNITS, key=lambda one: abs(np.log(one / factor)))
    told = f"{nearest:g}" if abs(np.log(nearest / factor)) < np.log(1.5) else f"{factor:.2g}"
    raise ValueError(
        f"the calibration's unit is no metre, the person's trunk would be {torso:.3g} m long; start again with "
        f"--unit {told}"
    )


def given_masks(request: FitRequest, footage: Footage) -> Masks | None:
    """The user's own, or None. Raises as `copy_masks`."""
    if request.masks is None:
        return None
    return copy_masks(footage, request.masks, request.fit_dir / "masks", request.numbers(footage.frames))


def take_rig(
    request: FitRequest, footage: Footage, landmarks: Landmarks, say: Say
) -> tuple[Rig, tuple[CameraChange, ...], tuple[str, ...]]:
    given = Rig(footage.cameras, np.zeros(len(footage.cameras)))
    if not request.refine_cameras:
        changes = tuple(CameraChange(camera.name, 0, 0, 0, np.nan, np.nan) for camera in footage.cameras)
        return given, changes, ()
    path, about = request.fit_dir / "rig.json", request.fit_dir / "rig_changes.json"
    if not (path.is_file() and about.is_file()):
        say("cameras      checked by the person's landmarks")
        refined = refine_rig(landmarks, given, say)
        write_rig(path, refined.rig)
        write_json(about, {"changes": [asdict(one) for one in refined.changes], "notes": refined.notes})
    with kept_result(path):
        rig, content = read_rig(path), read_json(about)
        changes = tuple(CameraChange(**change) for change in content["changes"])
        names = [camera.name for camera in footage.cameras]
        if not ([c.name for c in rig.cameras] == [c.name for c in changes] == names):
            raise ValueError(f"{path}: is of other cameras")
        return rig, changes, tuple(map(str, content["notes"]))


def y_up(rig: Rig, points: Points) -> tuple[Rig, Points, tuple[str, ...]]:
    """Turns the world so that y is up, as motions and viewers expect it: by the axis along which the person stands.

    A world that stands askew keeps its tilt. Where the person is not seen to stand, nothing is turned.
    """
    names = ("shoulder", "ankle")
    places = [
        np.stack([points.places[:, LANDMARKS.index(f"{side}_{name}")] for side in ("left", "right")])
        for name in names
    ]
    seen = [
        np.stack([points.confidence[:, LANDMARKS.index(f"{side}_{name}")] for side in ("left", "right")]) > 0
        for name in names
    ]
    standing = (places[0] - places[1])[seen[0] & seen[1]]
    if not len(standing):
        return rig, points, ()
    upwards = np.median(standing / np.linalg.norm(standing, axis=1, keepdims=True).clip(1e-6), 0)
    axis = int(np.abs(upwards).argmax())
    if abs(upwards[axis]) < STANDS:
        note = "it is not known what is up, the person hardly stands: is it y in the calibration?"
        return rig, points, (note,)
    up = np.eye(3)[axis] * np.sign(upwards[axis])
    if up[1] > 0.5:
        return rig, points, ()
    side = np.eye(3)[(axis + 1) % 3]
    turn = np.stack([side, up, np.cross(side, up)])  # new from old
    cameras = tuple(replace(camera, R=camera.R @ turn.T) for camera in rig.cameras)
    turned = replace(points, places=(points.places @ turn.T).astype(np.float32))
    sign = "-" if upwards[axis] < 0 else ""
    return (
        replace(rig, cameras=cameras),
        turned,
        (f"{sign}{'xyz'[axis]} is up in the calibration: turned, y is up now",),
    )


def take_body(
    request: FitRequest,
    footage: Footage,
    rig: Rig,
    landmarks: Landmarks,
    points: Points | None,
    masks: Path,
    say: Say,
    name: str = "body",
    start: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> FittedPerson:
    """name: of its files, NAME.npz the fit, NAME_errors.npz and NAME_notes.json what is known about it."""
    fit_dir = request.fit_dir
    path, errors, notes = (fit_dir / f"{name}{end}" for end in (".npz", "_errors.npz", "_notes.json"))
    if not path.is_file():
        say("body         shape once, a pose for each frame")
        find_mask = masks_in(masks, rig.cameras)
        shifts = landmark_shifts() if request.keypoints is None else None
        person = fit_body(request.body, rig, landmarks, points, find_mask, start, request.device, say, shifts)
        with atomic_write(errors) as file:
            np.savez_compressed(file, allow_pickle=False, errors=person.landmark_errors.astype(np.float32))
        write_json(notes, person.notes)
        write_fit(path, person.fit)  # last: it says that all is there
    with kept_result(path):
        fit, of_landmarks = read_fit(path), read_npz(errors, ["errors"])["errors"]
        if fit.overlap.shape != (len(rig.cameras), footage.frames) or len(fit.poses) != footage.frames:
            raise ValueError(f"{path}: is of other frames or cameras")
        if of_landmarks.shape[:2] != fit.overlap.shape:
            raise ValueError(f"{errors}: is of other frames or cameras")
        return FittedPerson(fit, of_landmarks, tuple(map(str, read_json(notes))))


def masks_of_body(
    request: FitRequest, footage: Footage, rig: Rig, fit: BodyFit, outlines: Path, landmarks: Landmarks
) -> tuple[Path, tuple[str, ...]]:
    """Once more, now that it is known where the body is: a witness that knows armpits and touching things."""
    body = read_fitted_body(request.body)
    faces = body.faces.numpy()
    posed = [body_in_time(body, fit, float(late)) for late in rig.time_offsets]

    def silhouette(view: int, frame: int) -> np.ndarray:
        camera = rig.cameras[view]
        assert camera.image_size is not None
        local = posed[view](frame) @ camera.R.T + camera.T
        homogeneous = local @ camera.K.T
        pixels = homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], NEAR)
        return draw_silhouette(pixels, local[:, 2], faces, camera.image_size)

    made = make_masks(footage, outlines, landmarks, request.fit_dir / "masks_of_body", silhouette)
    return made.folder, made.notes
