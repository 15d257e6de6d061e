"""Does the body lie in the masks? By camera, by frame, in size, and its hands.

Data path: Fits of the sampled (frame, camera) pairs -> Findings.
A camera is judged by its median over frames and a frame by its median over cameras, so that neither is blamed for
the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.preparation.file_checks import camera_name
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding, cut_list
from mmlphuman.preparation.fit_measure import Fit

# Shares of the projected body inside the mask. A good fit has 0.95 and more.
OFF, LOOSE = 0.6, 0.85
OUTLIER = 0.08  # below the median of all cameras or frames
NO_OVERLAP = 0.25  # intersection over union below which the camera does not look at the same person
SIZE_OUTLIER = 0.10  # of a camera's size ratio, relative to the median of all cameras
SIZE_RANGE = (0.85, 1.5)  # of mask over body, all cameras: skin to wide clothes
# A camera that is turned or moved a little against the others, in degrees as it sees the person: a fit to real pictures
# left 0.07 in each of four cameras.
LEAST_TURN = 0.2
TURN_SIGMAS = 4.0
TURN_OUTLIER = 3.0  # times what the other cameras have
LEAST_TURN_FRAMES = 5
OUT_OF_VIEW = 0.5  # share of the body that a camera should see in the median
FAR_SHARE, HOLE_SHARE = 0.05, 0.02
# The mean hand pose fits better: by this much of a hand's outline, and beyond chance.
HAND_GAIN = 1.0  # cm^2
HAND_SIGMAS = 3.0
SHOWN_WORST = 3


def suspicious_cameras(fits: Sequence[Fit]) -> list[int]:
    """Cameras that fit badly, or worse than the others: the ones worth a diagnosis. Worst first."""
    inside, overlaps = _by(fits, "camera", "inside"), _by(fits, "camera", "overlap")
    usual_inside, usual_overlap = _median(inside.values()), _median(overlaps.values())
    found = [
        camera
        for camera in inside
        if not (inside[camera] >= max(LOOSE, usual_inside - OUTLIER))
        or not (overlaps[camera] >= max(NO_OVERLAP, usual_overlap - OUTLIER))
    ]
    return sorted(found, key=lambda camera: np.nan_to_num(overlaps[camera]))


def _off_cameras(fits: Sequence[Fit], diagnoses: Mapping[int, str]) -> list[int]:
    """Cameras that do not look at the posed body, or would fit much better read in another way."""
    inside, overlaps = _by(fits, "camera", "inside"), _by(fits, "camera", "overlap")
    return [
        camera
        for camera in suspicious_cameras(fits)
        if camera in diagnoses or not (inside[camera] >= OFF and overlaps[camera] >= NO_OVERLAP)
    ]


def check_fit(
    layout: CaptureLayout, fits: Sequence[Fit], diagnoses: Mapping[int, str], late: Collection[int] = ()
) -> list[Finding]:
    """All rows on how body and masks lie. diagnoses: of the cameras that are off, where there is one; late: those that
    show other times, whose displacement says nothing about how they are turned."""
    off = _off_cameras(fits, diagnoses)
    sound = [fit for fit in fits if fit.camera not in off]
    return [
        _check_off(layout, fits, off, diagnoses),
        _check_loose(layout, sound),
        _check_turns(layout, [fit for fit in sound if fit.camera not in late]),
        _check_sizes(layout, sound),
        _check_frames(sound),
        _check_view(layout, fits),
        _check_share(
            layout,
            sound,
            "far",
            FAR_SHARE,
            "mask far from body",
            "of the mask is over 0.3 m away from the body: other things in the mask, or wide clothes",
        ),
        _check_share(
            layout, sound, "holes", HOLE_SHARE, "mask holes", "of the body lies in holes of the mask"
        ),
        _check_hands(sound),
    ]


def _by(fits: Sequence[Fit], key: str, value: str) -> dict[int, float]:
    """Median of a number over the fits of each camera or frame; NaN where none has it."""
    groups: dict[int, list[float]] = {}
    for fit in fits:
        groups.setdefault(getattr(fit, key), []).append(getattr(fit, value))
    return {k: _median(values) for k, values in sorted(groups.items())}


def _median(values) -> float:
    values = [value for value in values if not np.isnan(value)]
    return float(np.median(values)) if values else float("nan")


def _check_off(layout, fits, off, diagnoses) -> Finding:
    inside = _by(fits, "camera", "inside")
    if not off:
        return Finding("cameras see the body", OK, f"in all {len(inside)} cameras it lies on the masks")
    texts = []
    for camera in off:
        share = "none" if np.isnan(inside[camera]) else f"{inside[camera]:.0%}"
        text = f"{camera_name(layout, camera)} has {share} of the body inside its masks"
        texts.append(f"{text} and fits if {diagnoses[camera]}" if camera in diagnoses else text)
    what = f"in {len(off)} of {len(inside)} cameras the body misses the masks"
    if len(off) == len(inside) and not diagnoses:
        what += " (poses of other frames or of another capture, translation in other units?)"
    return Finding("cameras see the body", ERROR, what, cut_list(texts, "; "))


def _check_loose(layout, fits) -> Finding:
    inside = _by(fits, "camera", "inside")
    if not inside:
        return Finding("body inside masks", OK, "not measured: no camera fits")
    middle = _median(inside.values())
    worst = sorted(inside, key=inside.__getitem__)
    loose = [c for c in worst if inside[c] < LOOSE or inside[c] < middle - OUTLIER]
    named = [f"{camera_name(layout, c)} {inside[c]:.1%}" for c in loose or worst[:SHOWN_WORST]]
    if loose:
        what = f"median {middle:.1%}; it fits loosely in {len(loose)} of {len(inside)} cameras"
        return Finding("body inside masks", WARNING, what, cut_list(named))
    return Finding("body inside masks", OK, f"median {middle:.1%}; lowest", ", ".join(named))


def _check_turns(layout, fits) -> Finding:
    check = "cameras' directions"
    turns = {}
    for camera in sorted({fit.camera for fit in fits}):
        values = np.array([fit.turn for fit in fits if fit.camera == camera and np.isfinite(fit.turn).all()])
        if len(values) >= LEAST_TURN_FRAMES:
            middle = np.median(values, 0)
            error = 1.4826 * np.median(np.abs(values - middle), 0) / np.sqrt(len(values))
            turns[camera] = middle, float(np.linalg.norm(middle)), float(np.linalg.norm(error))
    if len(turns) < 2:
        return Finding(
            check, OK, "not measured: too few cameras and frames in which the body lies on the mask"
        )
    turned = []
    for camera, (_, size, error) in turns.items():
        others = np.median([other for name, (_, other, _) in turns.items() if name != camera])
        if size > max(LEAST_TURN, TURN_SIGMAS * error, TURN_OUTLIER * others):
            turned.append(camera)
    if not turned:
        return Finding(
            check, OK, f"right to {max(size for _, size, _ in turns.values()):.2f} degrees in every camera"
        )
    named = []
    for camera in sorted(turned, key=lambda camera: -turns[camera][1]):
        right, down = turns[camera][0]
        sides = f"{abs(right):.2f} to the {'right' if right > 0 else 'left'}"
        named.append(
            f"{camera_name(layout, camera)} {sides} and {abs(down):.2f} {'down' if down > 0 else 'up'}"
        )
    return Finding(
        check,
        WARNING,
        f"{len(turned)} of {len(turns)} cameras see the person beside the projected body, in degrees: turned or moved "
        "since they were calibrated? Calibrate them again, or leave them out",
        cut_list(named),
    )


def _check_sizes(layout, fits) -> Finding:
    ratios = {c: r for c, r in _by(fits, "camera", "size_ratio").items() if not np.isnan(r)}
    if not ratios:
        return Finding("body size", OK, "not measured: no camera sees the whole body")
    middle = _median(ratios.values())
    if not SIZE_RANGE[0] <= middle <= SIZE_RANGE[1]:
        return Finding(
            "body size",
            WARNING,
            f"in all cameras the person is {middle:.2f} times as large as the projected body; are betas of "
            "this subject and of this body model, and camera positions in metres?",
        )
    odd = {c: r / middle for c, r in ratios.items() if abs(np.log(r / middle)) > SIZE_OUTLIER}
    if odd:
        worst = sorted(odd, key=lambda c: -abs(np.log(odd[c])))
        named = [f"{camera_name(layout, c)} {odd[c]:.2f} times" for c in worst]
        return Finding(
            "body size",
            WARNING,
            "against the projected body the person is larger or smaller in a camera than in the others; is "
            "its focal length or distance wrong?",
            cut_list(named),
        )
    return Finding("body size", OK, f"person {middle:.2f} times the unclothed body, alike in all cameras")


def _check_frames(fits) -> Finding:
    inside = {f: share for f, share in _by(fits, "frame", "inside").items() if not np.isnan(share)}
    if not inside:
        return Finding("frames fit", OK, "not measured: no camera fits")
    middle = _median(inside.values())
    worst = sorted(inside, key=inside.__getitem__)
    bad = [frame for frame in worst if inside[frame] < LOOSE or inside[frame] < middle - OUTLIER]
    shown = [f"{frame} {inside[frame]:.1%}" for frame in (bad or worst[:SHOWN_WORST])]
    if bad:
        what = f"the body fits worse in {len(bad)} of {len(inside)} sampled frames than in others or at all"
        return Finding("frames fit", WARNING, what, "frame " + cut_list(shown))
    return Finding("frames fit", OK, f"median {middle:.1%}; lowest", "frame " + ", ".join(shown))


def _check_view(layout, fits) -> Finding:
    in_view = _by(fits, "camera", "in_view")
    out = [camera for camera in sorted(in_view, key=in_view.__getitem__) if in_view[camera] < OUT_OF_VIEW]
    lost = sorted({fit.frame for fit in fits if fit.in_view == 0 and fit.camera not in out})
    if out:
        named = [f"{camera_name(layout, c)} sees {in_view[c]:.0%}" for c in out]
        return Finding(
            "body in view", WARNING, f"{len(out)} cameras see less than half of the body", cut_list(named)
        )
    if lost:
        return Finding(
            "body in view", WARNING, "the body is out of view", f"frames {cut_list(list(map(str, lost)))}"
        )
    return Finding("body in view", OK, f"at least {min(in_view.values()):.0%} in the median of every camera")


def _check_share(layout, fits, field: str, limit: float, check: str, what: str) -> Finding:
    found = [(getattr(fit, field), fit) for fit in fits if getattr(fit, field) > limit]
    if not found:
        return Finding(check, OK, f"at most {limit:.0%} in any sampled picture")
    found.sort(key=lambda pair: -pair[0])
    named = [f"frame {fit.frame} {camera_name(layout, fit.camera)} {share:.0%}" for share, fit in found]
    return Finding(check, WARNING, f"up to {found[0][0]:.0%} {what}", cut_list(named))


def _check_hands(fits: Sequence[Fit]) -> Finding:
    """Poses that were fitted relative to the mean hand must have it added, or the fingers stay too straight.

    Limits: it needs hands of several pixels a finger and poses away from the body; fits that are off by more
    than the mean hand's curl hide it, which is why chance is counted per frame.
    """
    per_frame: dict[int, list[float]] = {}
    for fit in fits:
        if fit.inside >= LOOSE and fit.hand_gain:
            per_frame.setdefault(fit.frame, []).extend(fit.hand_gain)
    gains = np.array([np.mean(values) for values in per_frame.values()])
    if len(gains) < 3:
        return Finding(
            "hand convention", OK, "not decidable: hands are hardly in view, or the body fits too loosely"
        )
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    changed = (
        f"{'better' if gains.mean() > 0 else 'worse'} by {abs(gains.mean()):.1f} +- {error:.1f} cm^2 a hand"
    )
    if gains.mean() > max(HAND_GAIN, HAND_SIGMAS * error):
        return Finding(
            "hand convention",
            WARNING,
            f"with the model file's mean hand added the hands would fit the masks {changed}: the poses seem to be "
            "relative to it (flat_hand_mean=False); add hands_meanl and hands_meanr",
            "smpl_params.npz left_hand_pose, right_hand_pose",
        )
    if gains.mean() > -HAND_SIGMAS * error:
        return Finding(
            "hand convention",
            OK,
            "not decidable: with the model file's mean hand added the hands would fit the masks about as well "
            f"({changed})",
        )
    return Finding(
        "hand convention",
        OK,
        "relative to flat hands, as the method takes them: with the model file's mean hand added they would fit the "
        f"masks {changed}",
    )
