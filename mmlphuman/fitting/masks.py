"""Pictures of one person, soft outlines of a network, landmarks -> masks.

Data path: Footage + OUTLINES/CAM/%08d.png + Landmarks (+ silhouettes of the posed body) -> make_masks ->
OUT/CAM/%08d.png, uint8 with a soft edge.

For each pixel witnesses are added up as logarithms of odds:
- the network's outline, which knows people but not edges;
- the clean background (median of the frames in which the person is elsewhere), as it is or in a shadow, which darkens
  without changing colour, against the colours that the person has in this camera;
- the landmarks: on the bones there is the person, far from all of them nobody;
- a silhouette of the body, once it has been fitted.
A graph cut along the picture's contrast decides at reduced size, a guided filter finds the edge at full size.

Shape letters: H, W height and width of a picture; h, w of a reduced one; N pictures looked at for the background.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mmlphuman.capture.images import MASK_THRESHOLD, decode_image
from mmlphuman.fitting.footage import Footage
from mmlphuman.fitting.observations import BODY_LANDMARKS, LANDMARKS, LEFT_HAND, RIGHT_HAND, Landmarks
from mmlphuman.fitting.picture_size import ASPECT_TOLERANCE
from mmlphuman.fitting.silhouettes import read_mask
from mmlphuman.picture_files import write_png
from mmlphuman.preparation.source_pictures import frames_of
from mmlphuman.resources import in_threads
from mmlphuman.text import cut_ranges

WORKING_SIDE = 960  # pixels of a picture's longer side at which the cut is made
BACKGROUND_FRAMES = 48
BACKGROUND_LEAST = 4  # of them must show a pixel without the person
PERSON_FRAMES = 24  # from which the person's colours are learned
BINS = 16  # of each channel of the person's colours
NOISE_LEAST, NOISE_MOST = 3.0, 12.0  # grey levels
SHADOW_DARKEST, SHADOW_SHARE = 0.5, 0.3  # of the background's brightness; of the background's pixels
NEW_SHARE = 0.02  # of the background's pixels that are like nothing seen before (reflections, moved things)
EVIDENCE_MOST, GUESS_MOST = (
    2.5,
    1.8,
)  # of colours, as logarithm of odds; the latter where no background is known
EVIDENCE_BLUR = 0.8  # working pixels; single pixels are noise
NETWORK_MOST = 4.0
NETWORK_BLUR = 2.5  # working pixels; about the network's own resolution
BONE, FAR, SILHOUETTE = 4.5, -4.0, 4.0
CUT_WEIGHT = 8.0  # of the odds against OpenCV's fixed weight of edges
CUT_LEVELS = 128  # in which the cut sees the odds; a picture's contrast has 256
ODDS_MOST = 8.0
MARGIN = 0.10  # of the person's size, about its box
EDGE = 3  # pixels of the full picture on both sides, in which the edge is found
MOST_AREA = 0.9  # of the picture: more is no person
LEAST_AREA = 2e-4  # of the picture: less is nobody
LEAST_PART = 0.01  # of the person: smaller pieces are dropped, smaller holes filled if the network sees none

_AT = {name: index for index, name in enumerate(LANDMARKS)}
# From, to, half the width of what is surely the person, as a share of the body's size.
BONES = tuple(
    (_AT[f"{side}_{a}"], _AT[f"{side}_{b}"], width)
    for side in ("left", "right")
    for a, b, width in (
        ("shoulder", "elbow", 0.010), ("elbow", "wrist", 0.007),
        ("hip", "knee", 0.014), ("knee", "ankle", 0.009), ("ankle", "heel", 0.004), ("ankle", "big_toe", 0.005),
    )
) + tuple(
    (_AT[f"left_{a}"], _AT[f"right_{a}"], width) for a, width in (("ear", 0.010), ("shoulder", 0.010), ("hip", 0.014))
)  # fmt: skip
SURE, SURE_BEHIND = 0.3, 0.1  # confidence of landmarks that are drawn; of ears, which are hidden from behind
REACH = 0.15  # of the body's size from all bones: farther away is nobody, unless the network is sure
FINGER, HEAD = 0.004, 0.012  # half the width of what is surely one
HEAD_UP = 0.03  # of the body's size above the ears is still the head

Silhouette = Callable[[int, int], np.ndarray]  # camera, frame -> (H, W) of the posed body, 0 where it is not


@dataclass(frozen=True)
class Masks:
    folder: Path
    areas: np.ndarray  # (V, F) share of the picture; 0 where nobody was found
    notes: tuple[str, ...]


def make_masks(
    footage: Footage,
    outlines: str | Path,
    landmarks: Landmarks,
    out: str | Path,
    silhouette: Silhouette | None = None,
) -> Masks:
    """Writes out/CAM/%08d.png for every picture; those that are there are kept, so that it resumes.

    outlines: folder of CAM/%08d.png of the pictures' aspect, how surely a pixel is the person's.
    silhouette: of the body, for a second time after it has been fitted; called from several threads.
    Raises FileNotFoundError or ValueError for what cannot be read.
    """
    outlines, out = Path(outlines), Path(out)
    names = [camera.name for camera in footage.cameras]
    areas = np.zeros((len(names), footage.frames), np.float32)
    with tqdm(total=areas.size, desc="masks", unit="picture", mininterval=2) as bar:

        def of_camera(camera: int, check: Callable[[], None]) -> None:
            maker = None
            for frame in range(footage.frames):
                path = out / names[camera] / f"{frame:08d}.png"
                if path.exists():
                    mask = decode_image(path, cv2.IMREAD_GRAYSCALE)
                else:
                    maker = maker or _CameraMasks(
                        footage, camera, outlines / names[camera], landmarks, silhouette
                    )
                    mask = maker.mask(frame)
                    write_png(path, mask)
                areas[camera, frame] = (mask > 127).mean()
                check()
                bar.update()

        in_threads(of_camera, len(names))
    return Masks(out, areas, notes_on(areas, names))


def copy_masks(footage: Footage, folder: str | Path, out: str | Path, numbers: Sequence[int]) -> Masks:
    """Somebody else's masks, folder/CAM/ of a picture a frame (white on the person, or alpha), under the footage's
    numbers.

    numbers: of the frames in the source. As many masks as there are frames are taken in order; else the lowest numbered
    is that of the source's first frame. Other sizes of the same aspect are scaled; those that are there are kept.
    Raises ValueError for what is missing or does not fit.
    """
    folder, out = Path(folder), Path(out)
    areas = np.zeros((len(footage.cameras), footage.frames), np.float32)
    for camera, of_camera in enumerate(footage.cameras):
        name, size = of_camera.name, of_camera.image_size
        assert size is not None, "footage knows its pictures' sizes"
        found = frames_of(folder / name, name)
        first = min(found, default=0)
        wanted = sorted(found) if len(found) == footage.frames else [first + number for number in numbers]
        missing = [number for number in wanted if number not in found]
        if missing:
            raise ValueError(
                f"{folder / name}: {len(found)} masks for {footage.frames} frames; those numbered "
                f"{cut_ranges(missing)} are missing, give a black picture where nobody is"
            )
        for frame, number in enumerate(wanted):
            target = out / name / f"{frame:08d}.png"
            mask = read_mask(target if target.exists() else found[number])
            if not target.exists():
                _check_aspect(found[number], mask, size)
                if mask.shape[::-1] != size:
                    mask = _resized(mask, size)
                write_png(target, mask)
            areas[camera, frame] = (mask > MASK_THRESHOLD).mean()
    if not areas.any() or (areas > MOST_AREA).mean() > 0.5:
        shutil.rmtree(out)
        how = "all masks are black" if not areas.any() else "most masks are white nearly everywhere"
        raise ValueError(f"{folder}: {how}; the person is white in a mask, all else black")
    return Masks(out, areas, notes_on(areas, [camera.name for camera in footage.cameras]))


def _check_aspect(path: Path, pixels: np.ndarray, size: tuple[int, int]) -> None:
    """size: (width, height) of the picture that it belongs to."""
    height, width = pixels.shape[:2]
    if abs(width * size[1] / (height * size[0]) - 1) > ASPECT_TOLERANCE:
        raise ValueError(f"{path}: is {width}x{height}, its picture {size[0]}x{size[1]}")


def notes_on(areas: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Frames without anybody, or in which the mask's size jumps. areas (V, F) shares of the picture."""
    notes = []
    for name, of_camera in zip(names, areas, strict=True):
        empty = np.flatnonzero(of_camera == 0)
        if len(empty):
            notes.append(f"masks of {name}: nobody in frames {cut_ranges(empty.tolist())}")
        padded = np.pad(of_camera, 3, mode="edge")
        usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), -1)
        odd = np.flatnonzero((of_camera > 0) & (np.abs(of_camera / np.maximum(usual, 1e-9) - 1) > 0.25))
        if len(odd):
            notes.append(
                f"masks of {name}: their size jumps in frames {cut_ranges(odd.tolist())}; look at them, and correct "
                "or delete them"
            )
    return tuple(notes)


class _CameraMasks:
    """One camera's background and the colours of the person in it; then a mask for each frame."""

    def __init__(
        self,
        footage: Footage,
        camera: int,
        outlines: Path,
        landmarks: Landmarks,
        silhouette: Silhouette | None,
    ):
        self._footage, self._camera, self._outlines, self._silhouette = footage, camera, outlines, silhouette
        self._places, self._confidence = landmarks.places[camera], landmarks.confidence[camera]
        size = footage.cameras[camera].image_size
        assert size is not None, "footage knows its pictures' sizes"
        self._scale = min(1.0, WORKING_SIDE / max(size))
        self._size = tuple(max(1, round(length * self._scale)) for length in size)
        chosen = np.unique(np.linspace(0, footage.frames - 1, BACKGROUND_FRAMES).round().astype(int))
        pictures = np.stack([self._small(frame)[0] for frame in chosen])
        network = np.stack([self._small(frame)[1] for frame in chosen])
        reach = 2 * max(2, round(0.006 * max(self._size))) + 1
        person = (
            np.stack([cv2.dilate((p > 0.1).astype(np.uint8), np.ones((reach, reach))) for p in network]) > 0
        )
        self.background, self.noise = clean_background(pictures, person)
        step = max(1, len(chosen) // PERSON_FRAMES)
        core = (
            np.stack([cv2.erode((one > 0.9).astype(np.uint8), np.ones((5, 5))) for one in network[::step]])
            > 0
        )
        self.colours = colour_density(pictures[::step][core])
        anywhere = np.asarray(person.any(0), np.uint8)
        around = cv2.dilate(anywhere, np.ones((4 * reach, 4 * reach))) > 0
        self.surroundings = colour_density(pictures[::step][~person[::step] & around])

    def mask(self, frame: int) -> np.ndarray:
        """(H, W) uint8."""
        picture = self._picture(frame)
        small, network = self._small(frame, picture)
        empty = np.zeros(picture.shape[:2], np.uint8)
        landmarks = self._places[frame] * self._scale, self._confidence[frame]
        if not (network > 0.5).any() or not landmarks[1].any():
            return empty  # not in the picture, or somebody else is where the networks looked
        bones, far = landmark_regions(*landmarks, small.shape[:2])
        window = _window_about((network > 0.3) | bones, MARGIN)
        odds = network_odds(network[window]) + colour_odds(
            small[window], self.background[window], self.noise[window], self.colours, self.surroundings
        )
        odds[bones[window]] += BONE
        odds[far[window] & (network[window] < 0.5)] += FAR
        if self._silhouette is not None:
            body = np.asarray(self._silhouette(self._camera, frame))
            odds += silhouette_odds(_resized((body > 0).astype(np.float32), self._size) > 0.5)[window]
        cut = np.zeros(small.shape[:2], bool)
        cut[window] = graph_cut(small[window], odds)
        cut = _without_specks(cut, network)
        if cut.mean() < LEAST_AREA:
            return empty
        return refined(picture, cut)

    def _picture(self, frame: int) -> np.ndarray:
        return decode_image(self._footage.image(self._camera, frame), cv2.IMREAD_COLOR_RGB)

    def _small(self, frame: int, picture: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, 3) uint8 and the network's outline (h, w) float32 in [0, 1]."""
        picture = self._picture(frame) if picture is None else picture
        path = self._outlines / f"{frame:08d}.png"
        outline = decode_image(path, cv2.IMREAD_GRAYSCALE)
        _check_aspect(path, outline, picture.shape[1::-1])
        return _resized(picture, self._size), _resized(outline, self._size).astype(np.float32) / 255


def _resized(pixels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(pixels, size[:2], interpolation=cv2.INTER_AREA)


def clean_background(pictures: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The background's colours (h, w, 3) float32 and their noise (h, w) float32; NaN where the person never moved off.

    pictures: (N, h, w, 3) uint8; person: (N, h, w) bool, generously.
    """
    count, height, width, _ = pictures.shape
    background = np.full((height, width, 3), np.nan, np.float32)
    noise = np.full((height, width), NOISE_MOST, np.float32)
    rows = max(1, 2**24 // (count * width * 3))
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        values, free = pictures[:, strip], ~person[:, strip]
        seen = free.sum(0)
        middle = np.maximum(seen - 1, 0) // 2
        # What is hidden by the person is sorted to the end.
        ordered = np.sort(np.where(free[..., None], values, 255), axis=0)
        median = np.take_along_axis(ordered, middle[None, :, :, None].repeat(3, 3), 0)[0].astype(np.float32)
        away = np.abs(values.astype(np.float32) - median).mean(-1)
        spread = np.take_along_axis(np.sort(np.where(free, away, np.inf), axis=0), middle[None], 0)[0]
        known = seen >= min(BACKGROUND_LEAST, max(1, count // 2))
        background[strip][known] = median[known]
        noise[strip][known] = np.clip(1.5 * spread[known], NOISE_LEAST, NOISE_MOST)
    return background, noise


def colour_density(pixels: np.ndarray) -> np.ndarray:
    """(BINS, BINS, BINS) float32: how dense colours (N, 3) uint8 are; a volume of 1 in all, in grey levels."""
    counts = np.bincount(
        np.ravel_multi_index(tuple((pixels // (256 // BINS)).T), (BINS,) * 3), minlength=BINS**3
    )
    counts = counts.reshape((BINS,) * 3).astype(np.float32)
    for axis in range(3):  # neighbouring colours are likely, too
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        before, middle, after = (np.take(padded, range(k, k + BINS), axis) for k in range(3))
        counts = 0.25 * before + 0.5 * middle + 0.25 * after
    share = (counts + 1e-4 * counts.sum() / BINS**3) / max(float(counts.sum()), 1.0)
    return share * BINS**3 / 256.0**3


def network_odds(network: np.ndarray) -> np.ndarray:
    """(h, w) float32 of the network's outline, no sharper than the network sees."""
    soft = np.clip(cv2.GaussianBlur(network, (0, 0), NETWORK_BLUR), 1e-3, 1 - 1e-3)
    return np.clip(np.log(soft / (1 - soft)), -NETWORK_MOST, NETWORK_MOST)


def colour_odds(
    picture: np.ndarray,
    background: np.ndarray,
    noise: np.ndarray,
    colours: np.ndarray,
    surroundings: np.ndarray,
) -> np.ndarray:
    """(h, w) float32: logarithm of how much likelier a pixel's colour is on the person than on its background.

    The background's density at a pixel is a Gaussian about its colour B, one about s B with s even between
    SHADOW_DARKEST and 1, and a little of everything. Where it is not known, that of the surroundings' colours.
    """
    known = np.isfinite(background[..., 0])
    clean = np.where(known[..., None], background, 0)
    pixels = picture.astype(np.float32)
    # Light that flickers changes all of the background alike.
    bright = known & (clean.mean(-1) > 30) & (pixels.mean(-1) > 10)
    gain = np.median(pixels[bright].sum(-1) / clean[bright].sum(-1)) if bright.any() else 1.0
    clean = clean * float(np.clip(gain, 0.8, 1.25))
    sigma = np.sqrt(noise**2 + (0.03 * clean.mean(-1)) ** 2)
    length = np.maximum((clean**2).sum(-1), 1.0)
    along = (pixels * clean).sum(-1) / length
    same = np.exp(-0.5 * ((pixels - clean) ** 2).sum(-1) / sigma**2) / (np.sqrt(2 * np.pi) * sigma) ** 3
    shade = np.clip(along, SHADOW_DARKEST, 1)
    off = ((pixels - shade[..., None] * clean) ** 2).sum(-1)
    # Even along a stretch of that length, Gaussian across it.
    stretch = np.maximum((1 - SHADOW_DARKEST) * np.sqrt(length), 3 * sigma)
    shadow = np.exp(-0.5 * off / sigma**2) / (2 * np.pi * sigma**2) / stretch
    anything = 1 / 256.0**3
    behind = (1 - SHADOW_SHARE - NEW_SHARE) * same + SHADOW_SHARE * shadow + NEW_SHARE * anything
    bins = picture // (256 // BINS)
    on_person = colours[bins[..., 0], bins[..., 1], bins[..., 2]]
    behind = np.where(known, behind, surroundings[bins[..., 0], bins[..., 1], bins[..., 2]])
    odds = np.log(on_person + 0.02 * anything) - np.log(behind + 1e-6 * anything)
    most = np.where(known, EVIDENCE_MOST, GUESS_MOST)
    return cv2.GaussianBlur(np.clip(odds, -most, most).astype(np.float32), (0, 0), EVIDENCE_BLUR)


def landmark_regions(
    places: np.ndarray, confidence: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) bool of what is surely the person, and of what is far from all of it. places (K, 2), confidence (K,)."""
    seen = confidence > SURE
    bones = np.zeros(shape[:2], np.uint8)
    if seen[: len(BODY_LANDMARKS)].sum() < 4:
        return bones.astype(bool), bones.astype(bool)
    body = places[: len(BODY_LANDMARKS)][seen[: len(BODY_LANDMARKS)]]
    size = float(np.linalg.norm(body.max(0) - body.min(0)))

    def line(start: int, end: int, half_width: float) -> None:
        first, last = (np.clip(places[k].round(), -9999, 9999).astype(int).tolist() for k in (start, end))
        cv2.line(bones, first, last, 1, max(1, round(2 * half_width * size)))

    for start, end, half_width in BONES:
        if seen[start] and seen[end]:
            line(start, end, half_width)
    ears, shoulders = ([_AT[f"{side}_{name}"] for side in ("left", "right")] for name in ("ear", "shoulder"))
    if (confidence[ears] > SURE_BEHIND).all() and seen[shoulders].all():
        up = places[ears].mean(0) - places[shoulders].mean(0)
        top = places[ears].mean(0) + HEAD_UP * size * up / max(float(np.linalg.norm(up)), 1e-6)
        first, last = (point.round().astype(int).tolist() for point in (places[ears].mean(0), top))
        cv2.line(bones, first, last, 1, max(1, round(2 * HEAD * size)))
    for hand in (LEFT_HAND, RIGHT_HAND):
        if confidence[hand].mean() > SURE:
            for finger in range(5):
                chain = [hand.start, *range(hand.start + 1 + 4 * finger, hand.start + 5 + 4 * finger)]
                for start, end in zip(chain[:-1], chain[1:], strict=True):
                    line(start, end, FINGER)
    if not bones.any():
        return bones.astype(bool), bones.astype(bool)
    distance = cv2.distanceTransform(1 - bones, cv2.DIST_L2, 5)
    return bones.astype(bool), distance > REACH * size


def silhouette_odds(body: np.ndarray) -> np.ndarray:
    """(h, w) float32: for the body's silhouette inside, against it outside, undecided near its edge."""
    inside = cv2.distanceTransform(body.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - body.astype(np.uint8), cv2.DIST_L2, 5)
    width = max(2.0, 0.02 * float(np.sqrt(body.sum())) * 2)
    return SILHOUETTE * np.clip((inside - outside) / width, -1, 1)


def graph_cut(picture: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """(h, w) bool: the cheapest cut between the odds' signs and along the picture's contrast.

    OpenCV's GrabCut, whose cut takes colours' likelihoods from two mixtures of Gaussians. It is given both: the first
    channel of what it sees holds the odds, and of two Gaussians of one width along it the logarithms' difference is a
    straight line. The other two channels are the picture's brightness and its main difference of colours.
    """
    level = (np.clip(odds / ODDS_MOST, -1, 1) + 1) * (CUT_LEVELS / 2)
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2Lab).astype(np.float32)
    chroma = lab[..., 1:] - lab[..., 1:].reshape(-1, 2).mean(0)
    _, _, axes = np.linalg.svd(np.cov(chroma.reshape(-1, 2).T))
    seen = (
        np.stack([level, lab[..., 0], chroma @ axes[0] * 2 + 128], -1).clip(0, 255).round().astype(np.uint8)
    )
    # Between Gaussians at 0 and CUT_LEVELS: log odds = CUT_LEVELS (level - CUT_LEVELS / 2) / variance.
    variance = CUT_LEVELS**2 / (2 * ODDS_MOST * CUT_WEIGHT)
    background, foreground = (_one_gaussian(mean, variance) for mean in (0, CUT_LEVELS))
    mask = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if len(np.unique(mask)) < 2:
        return odds > 0
    nowhere = (0, 0, 0, 0)  # the mask says where to look
    cv2.grabCut(seen, mask, nowhere, background, foreground, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return (mask == cv2.GC_PR_FGD) | (mask == cv2.GC_FGD)


def _one_gaussian(mean: float, variance: float) -> np.ndarray:
    """GrabCut's mixture of five, as 5 weights, 5 means, 5 covariances: one along the first channel, the others none."""
    model = np.zeros((1, 65))
    model[0, 0] = 1
    model[0, 5:8] = mean, 128, 128
    flat = 1e6  # of the channels that do not count
    model[0, 20:29] = np.diag([variance, flat, flat]).ravel()
    for other in range(1, 5):
        model[0, 20 + 9 * other : 29 + 9 * other] = np.eye(3).ravel()
    return model


def _window_about(region: np.ndarray, margin: float) -> tuple[slice, slice]:
    left, top, width, height = cv2.boundingRect(region.astype(np.uint8))
    more = max(8, round(margin * max(width, height)))
    return slice(max(0, top - more), top + height + more), slice(max(0, left - more), left + width + more)


def _without_specks(cut: np.ndarray, network: np.ndarray) -> np.ndarray:
    """Without small pieces, those in which the network sees nobody, and small holes where it sees somebody."""
    least = LEAST_PART * cut.sum()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cut.astype(np.uint8), connectivity=4)
    kept = np.zeros(len(stats), bool)
    for label in range(1, len(stats)):
        kept[label] = stats[label, cv2.CC_STAT_AREA] >= least and network[labels == label].max() > 0.5
    cut = kept[np.asarray(labels, np.int32)]
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~cut).astype(np.uint8), connectivity=4)
    filled = np.zeros(len(stats), bool)
    for label in range(1, len(stats)):
        small = stats[label, cv2.CC_STAT_AREA] < least
        filled[label] = small and (
            stats[label, cv2.CC_STAT_AREA] < 0.1 * least or network[labels == label].mean() > 0.5
        )
    return cut | filled[np.asarray(labels, np.int32)]


def refined(picture: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the cut (h, w) at the picture's size, its edge where the picture's is within EDGE pixels or so."""
    height, width = picture.shape[:2]
    window_small = _window_about(cut, 0.02)
    sy, sx = height / cut.shape[0], width / cut.shape[1]
    window = tuple(
        slice(int(part.start * s), min(int(np.ceil(part.stop * s)), full))
        for part, s, full in zip(window_small, (sy, sx), (height, width), strict=True)
    )
    whole = cv2.resize(cut.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(whole[window], (0, 0), max(0.6, 0.5 * max(sx, sy)))
    guide = picture[window].astype(np.float32) / 255
    radius = EDGE + round(max(sx, sy))
    hard = (soft > 0.5).astype(np.uint8)
    edge = hard.astype(np.float32)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * radius + 1, 4 * radius + 1))
    band = cv2.morphologyEx(hard, cv2.MORPH_GRADIENT, disk) > 0
    # The filter's edges are softer than a lens's.
    edge[band] = np.clip((_guided_filter(guide, soft, radius, 1e-4, band) - 0.5) * 1.8 + 0.5, 0, 1)
    mask = np.zeros((height, width), np.uint8)
    mask[window] = (255 * edge).round()
    return mask


def _guided_filter(
    guide: np.ndarray, values: np.ndarray, radius: int, smallest: float, band: np.ndarray
) -> np.ndarray:
    """He, Sun, Tang, Guided Image Filtering (TPAMI 2013), eq. 14 to 16: locally the values are a straight line in the
    guide's colours. guide (H, W, 3) and values (H, W) float32; smallest: variance of the guide that counts; band (H, W)
    bool, outside which the values are constant. Returns the (N,) values within it."""

    def mean(pixels: np.ndarray) -> np.ndarray:
        return cv2.blur(pixels, (2 * radius + 1, 2 * radius + 1))

    products = np.stack([guide[..., i] * guide[..., j] for i in range(3) for j in range(3)], -1)
    mean_guide, mean_values, mean_both = (
        mean(guide)[band],
        mean(values)[band],
        mean(guide * values[..., None])[band],
    )
    mean_products = np.concatenate([mean(products[..., k : k + 3])[band] for k in (0, 3, 6)], -1).reshape(
        -1, 3, 3
    )
    variance = mean_products - mean_guide[:, :, None] * mean_guide[:, None, :]
    covariance = mean_both - mean_guide * mean_values[:, None]
    slope, offset = np.zeros_like(guide), values.copy()
    slope[band] = np.linalg.solve(variance + smallest * np.eye(3, dtype=np.float32), covariance[..., None])[
        ..., 0
    ]
    offset[band] = mean_values - (slope[band] * mean_guide).sum(-1)
    return (mean(slope)[band] * guide[band]).sum(-1) + mean(offset)[band]
