"""Points, landmarks and masks of one person -> shape, poses and surface of a body file.

Data path: Points, Landmarks -> poses and shape (landmark_fit.py) -> on the masks (silhouettes.py): poses and
shape, then poses and surface -> BodyFit, and what of it is doubtful.
Shape letters: V cameras, F frames, K landmarks, J joints (55), B vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmlphuman.fitting.landmark_fit import (
    PictureTerm,
    PosedTerms,
    Progress,
    Variables,
    at_pictures,
    fit_landmarks,
    fit_points,
    landmark_loss,
    minimise,
    picture_terms,
    pose_state,
    prior_loss,
    start_from_points,
    variables_at,
)
from mmlphuman.fitting.observations import LANDMARKS, LEFT_HAND, BodyFit, Landmarks, Points, Rig
from mmlphuman.fitting.pose_prior import make_pose_prior
from mmlphuman.fitting.posed_body import FittedBody, read_fitted_body, skin, vertex_normals
from mmlphuman.fitting.silhouettes import (
    FindMask,
    OutlineMatches,
    Outlines,
    OutlineTerm,
    match_outlines,
    read_outlines,
    spread_vertices,
)
from mmlphuman.fitting.surface_offsets import solve_offsets
from mmlphuman.fitting.triangulation import Observations, observe
from mmlphuman.pose_layout import LEFT_FINGERS
from mmlphuman.text import cut_ranges

SHAPE_ROUNDS, SURFACE_ROUNDS = 3, 3  # drawings of the body, first with its shape free, then with its surface
ROUND_STEPS = 40  # of L-BFGS between two drawings

# What is told as doubtful.
LOW_OVERLAP = 0.8  # of the mean over a frame's cameras
FAR_LANDMARKS = 0.04  # metres across the ray, median of a frame's body landmarks
JUMP = 0.12  # metres by which a joint leaves the middle of its neighbours' places


class Silhouettes:
    """The masks' part of the fit: draws the body, pairs its outline with the masks', and gives the loss."""

    def __init__(self, body: FittedBody, outlines: Sequence[Outlines]):
        self.body, self.outlines = body, tuple(outlines)
        self.inside = torch.from_numpy(
            spread_vertices(body.template.cpu().numpy(), body.faces.cpu().numpy())
        ).to(body.template.device)
        self.offsets = np.zeros(len(body.template))  # (B,) metres along the normals
        self.terms: tuple[OutlineTerm, ...] = ()
        self.matches: tuple[OutlineMatches, ...] = ()
        self.overlap = np.zeros((0, 0))  # (V, F)

    def displacements(self, betas: Tensor) -> Tensor | None:
        """(B, 3) of the offsets; None while there are none."""
        if not self.offsets.any():
            return None
        normals = vertex_normals(self.body.vertices(betas), self.body.faces)
        return normals * torch.tensor(self.offsets[:, None], dtype=normals.dtype, device=normals.device)

    def posed(self, variables: Variables) -> dict[float, tuple[np.ndarray, np.ndarray]]:
        """Vertices and normals (F, B, 3) in the world, for each time of a camera."""
        with torch.no_grad():
            betas = variables.shape()
            displaced = self.displacements(betas)
            rest = self.body.vertices(betas, displaced)
            state = pose_state(self.body.frame(displaced), variables)
            rest_normals = vertex_normals(rest, self.body.faces)
            found = {}
            for time in sorted({camera.time for camera in self.outlines}):
                transforms = at_pictures(state.transforms, time)
                moved = at_pictures(variables.translations(), time)[:, None]
                turning = transforms.clone()
                turning[..., :3, 3] = 0
                found[time] = (
                    (skin(self.body.weights, transforms, rest) + moved).cpu().numpy(),
                    skin(self.body.weights, turning, rest_normals).cpu().numpy(),
                )
        return found

    def draw(self, variables: Variables, with_surface: bool = False) -> float:
        """Pairs outlines anew, and moves the surface if it is to; the mean overlap before that."""
        posed = self.posed(variables)
        faces = self.body.faces.cpu().numpy()
        results = [match_outlines(camera, *posed[camera.time], faces) for camera in self.outlines]
        self.matches = tuple(matches for matches, _ in results)
        self.overlap = np.stack([overlap for _, overlap in results])
        if with_surface:
            fingers = self.body.weights[:, LEFT_FINGERS.start :].sum(1) > 0.5
            rest = self.body.vertices(variables.shape()).cpu().numpy().astype(np.float64)
            places, normals = zip(*(posed[camera.time] for camera in self.outlines), strict=True)
            self.offsets = solve_offsets(
                self.offsets, rest, faces, fingers.cpu().numpy(), self.outlines, self.matches, places, normals
            )
        self.terms = tuple(
            OutlineTerm(camera, matches, self.body.weights)
            for camera, matches in zip(self.outlines, self.matches, strict=True)
        )
        return float(np.nanmean(self.overlap)) if np.isfinite(self.overlap).any() else float("nan")

    def loss(self, variables: Variables, state: PosedTerms, displaced: Tensor | None) -> Tensor:
        rest = self.body.vertices(variables.shape(), displaced)
        total = rest.new_zeros(())
        worlds: dict[float, tuple[Tensor, Tensor, Tensor]] = {}
        for term in self.terms:
            if term.time not in worlds:
                transforms = at_pictures(state.transforms, term.time)
                moved = at_pictures(variables.translations(), term.time)
                inside = skin(self.body.weights[self.inside], transforms, rest[self.inside])
                worlds[term.time] = transforms, moved, inside + moved[:, None]
            transforms, moved, inside = worlds[term.time]
            total = total + term.outline_loss(rest, transforms, moved) + term.inside_loss(inside)
        return total / len(variables)


def fit_silhouettes(
    silhouettes: Silhouettes,
    terms: Sequence[PictureTerm],
    variables: Variables,
    progress: Progress = print,
    keep_shape: bool = False,
) -> None:
    """Poses and shape, then poses and surface, on masks and landmarks, in place. terms may be empty.

    keep_shape: for landmarks that tell it well. Masks show clothes, and a shape that fills them has its spine and hips
    elsewhere; the surface moves from the second drawing on.
    """
    body = silhouettes.body
    prior = make_pose_prior().to(variables.device)
    for turn in range(SHAPE_ROUNDS + SURFACE_ROUNDS):
        with_surface = turn >= (1 if keep_shape else SHAPE_ROUNDS)
        overlap = silhouettes.draw(variables, with_surface)
        displaced = silhouettes.displacements(variables.shape())
        frame = body.frame(displaced)

        def loss(displaced=displaced, frame=frame) -> Tensor:
            state = pose_state(frame, variables)
            total = prior_loss(variables, state, prior) + landmark_loss(state, terms)
            return total + silhouettes.loss(variables, state, displaced)

        variables.rebase()
        leaves = [*variables.motion(), variables.offsets]
        if not (with_surface or keep_shape):
            leaves.append(variables.betas)
        reached = minimise(loss, leaves, ROUND_STEPS)
        progress(f"body on masks, overlap so far {overlap:.3f} (loss {reached:.1f})")
    overlap = silhouettes.draw(variables)
    progress(f"overlap of body and masks {overlap:.3f}")


@dataclass(frozen=True)
class FittedPerson:
    fit: BodyFit
    landmark_errors: (
        np.ndarray
    )  # (V, F, K) pixels between the body's landmarks and what was seen; NaN where nothing
    notes: tuple[str, ...]


def fit_body(
    body_path,
    rig: Rig,
    landmarks: Landmarks | None,
    points: Points | None,
    find_mask: FindMask | None,
    start: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    device: str = "cpu",
    progress: Progress = print,
    shifts: np.ndarray | None = None,
) -> FittedPerson:
    """All of the fit. landmarks: with left and right mended, as `triangulate` gives them; find_mask: see silhouettes.

    start: poses (F, 165), translations (F, 3) and betas (10,) to improve; then points are not needed, and landmarks
    or masks may be missing. shifts: (K, 3) by which the landmarks' detector is known to be off, see `read_fitted_body`;
    then they tell the shape, and masks do not.
    Raises ValueError, one line, for what cannot be fitted.
    """
    body = read_fitted_body(body_path, shifts).to(device)
    if landmarks is None and find_mask is None:
        raise ValueError("a fit needs landmarks or masks of the person")
    if start is not None:
        variables = variables_at(*start, device)
    elif points is not None and landmarks is not None:
        variables = start_from_points(body.to("cpu"), points, device)
        fit_points(body, points, variables, progress=progress)
    else:
        raise ValueError("a fit needs landmarks and points, or poses to start from")
    frames = len(variables)
    observations = None if landmarks is None else observe(landmarks, rig.cameras)
    terms = () if observations is None else picture_terms(observations, rig, device)
    if terms:
        fit_landmarks(body, terms, variables, progress=progress)
    silhouettes = Silhouettes(body, ())
    overlap = np.full((len(rig.cameras), frames), np.nan)
    if find_mask is not None:
        silhouettes = Silhouettes(body, read_outlines(rig, frames, find_mask, progress))
        fit_silhouettes(silhouettes, terms, variables, progress, keep_shape=shifts is not None)
        overlap = silhouettes.overlap
    with torch.no_grad():
        state = pose_state(body.frame(silhouettes.displacements(variables.shape())), variables)
    errors = _landmark_errors(state, terms, observations) if observations is not None else None
    fit = BodyFit(
        betas=variables.shape().cpu().numpy(),
        poses=variables.poses(),
        translations=variables.translations().cpu().numpy(),
        normal_offsets=silhouettes.offsets.astype(np.float32),
        overlap=overlap.astype(np.float32),
    )
    pixels, metres = (
        errors if errors is not None else np.full((2, len(rig.cameras), frames, len(LANDMARKS)), np.nan)
    )
    return FittedPerson(fit, pixels, doubts(overlap, metres, state.joints.cpu().numpy()))


def _landmark_errors(
    state: PosedTerms, terms: Sequence[PictureTerm], observations: Observations
) -> tuple[np.ndarray, np.ndarray]:
    """(V, F, K) pixels and metres across the ray, NaN where nothing was seen."""
    pixels, metres = np.full((2, *observations.confidence.shape), np.nan)
    for view, term in enumerate(terms):
        seen = term.weights.cpu().numpy() > 0
        across = term.across(state.landmarks).sqrt()
        depth = term.local(state.landmarks)[..., 2].clamp(min=0.1)
        focal = (term.K[0, 0] * term.K[1, 1]).sqrt()
        metres[view][seen] = across.cpu().numpy()[seen]
        pixels[view][seen] = (across * focal / depth).cpu().numpy()[seen]
    return pixels, metres


def doubts(overlap: np.ndarray, metres: np.ndarray, joints: np.ndarray) -> tuple[str, ...]:
    """Frames that should be looked at. overlap: (V, F), metres: (V, F, K), both with NaN; joints: (F, J, 3)."""
    notes = []
    with_masks = np.isfinite(overlap).any(0)
    of_frame = np.ones(len(joints))
    of_frame[with_masks] = np.nanmean(overlap[:, with_masks], 0)
    if (of_frame < LOW_OVERLAP).any():
        notes.append(
            f"body and masks overlap by less than {LOW_OVERLAP} in frames {_frames(of_frame < LOW_OVERLAP)} "
            f"(lowest {of_frame.min():.2f} in frame {of_frame.argmin()}); look at their masks and poses"
        )
    body = metres[:, :, : LEFT_HAND.start]
    seen = np.isfinite(body).any((0, 2))
    error = np.zeros(len(joints))
    error[seen] = np.nanmedian(body.transpose(1, 0, 2)[seen], axis=(1, 2))
    if (error > FAR_LANDMARKS).any():
        notes.append(
            f"the body lies {100 * FAR_LANDMARKS:g} cm and more from the landmarks in frames "
            f"{_frames(error > FAR_LANDMARKS)}; look at their landmarks"
        )
    if len(joints) > 2:
        leaves = np.linalg.norm(joints[1:-1] - (joints[2:] + joints[:-2]) / 2, axis=-1).max(1)
        if (leaves > JUMP).any():
            notes.append(
                f"the body jumps in frames {_frames(np.pad(leaves > JUMP, 1))}; frames left out of the videos, or "
                "wrong landmarks"
            )
    return tuple(notes)


def _frames(chosen: np.ndarray) -> str:
    return cut_ranges(np.flatnonzero(chosen).tolist())
