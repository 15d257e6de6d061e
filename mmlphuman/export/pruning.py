"""Which Gaussians need their offset bases, and an avatar without the others'; how much pictures depend on each number.

Data path: TrainedAvatar -> visible change of every Gaussian over the training poses -> Selection -> pruned avatar,
Gaussians reordered: those with bases of properties and degree-1 colour, those with bases of properties, the rest; each
kind, and the control points, along a curve through space, so that what is near is near in the file too.

Shape letters: N Gaussians, P of them keep their property bases, Q of these those of degree-1 colour, F poses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmlphuman.avatar.avatar import COLOR, LOG_SCALE, OPACITY, QUAT, Avatar, PropertyOffsets
from mmlphuman.avatar.neighbours import places_of
from mmlphuman.avatar.state import PROPERTIES
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.pose_layout import BODY_POSE, POSE_DIM
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import Cameras, Pose

MEAN_POSES = 256  # at most, spread over the training poses: for the mean offsets
# Pictures in which the change is measured: 1.4x their number of poses changes no score by 0.01 dB.
PROBES = 40
PROBE_SIZE = 512  # pixels, height and width
FILL = 0.9  # of the picture's height that the person takes
DISTANCE = 2.5  # of the camera, in body heights
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # between successive cameras: any number of them is well spread
MAX_ELEVATION = 0.25  # radians; cameras look from above and from below
MIN_PSNR = 48.0  # dB on the person, pruned against full; costs 0.1 dB of an avatar that scores 32 dB there
# Neighbours are pruned together and err alike, so their errors add up to more than their squares do: pictures of the
# demo avatar lose 3.6 to 4.1 times what the Gaussians do one by one, for 30% to 80% of them kept.
COHERENCE = 4.0

CURVE_BITS = 16  # an axis, of the curve's cells

PER_GAUSSIAN = ("sh0", "sh1", "log_scales", "quats", "opacity_logits", "xyz_offsets")


@dataclass(frozen=True)
class Probe:
    """A training pose seen from one virtual camera, the person filling the picture."""

    pose: Pose
    cameras: Cameras


@dataclass(frozen=True)
class VisibleChange:
    """Mean squared error of the person's pixels and channels that each Gaussian causes, to first order, if it alone
    always takes its mean offset over the training poses."""

    properties: Tensor  # (N,)
    sh1: Tensor  # (N,)


@dataclass(frozen=True)
class Sensitivity:
    """Mean squared error of the person's pixels and channels for an error of 1 in one number of one Gaussian, to first
    order: of its properties before the activations."""

    properties: Tensor  # (N, 11)
    sh1: Tensor  # (N, 9)


@dataclass(frozen=True)
class Selection:
    order: Tensor  # (N,) the full avatar's index of every Gaussian of the pruned one
    num_properties: int  # P
    num_sh1: int  # Q <= P
    psnr: float  # dB on the person that pruning leaves, as estimated; infinite if nothing is pruned


def spread_poses(poses: Tensor, count: int) -> Tensor:
    """At most `count` of the poses (F, 175), evenly spread."""
    if len(poses) <= count:
        return poses
    return poses[torch.linspace(0, len(poses) - 1, count, device=poses.device).round().long()]


@torch.no_grad()
def probes(trained: TrainedAvatar, count: int) -> Iterator[Probe]:
    """`count` training poses, each from another direction; the body upright."""
    avatar, device = trained.avatar, trained.device
    poses = spread_poses(trained.pose_space.training_poses, count)
    for index in range(count):
        features = poses[index % len(poses)].clone()
        features[: BODY_POSE.start] = 0
        joints, expression = features[:POSE_DIM], features[POSE_DIM:]
        pose = Pose(joints, torch.zeros(3, device=device), torch.eye(3, device=device), expression)
        xyz = avatar(pose, trained.active).posed.xyz
        low, high = xyz.amin(0), xyz.amax(0)
        elevation = MAX_ELEVATION * math.sin(GOLDEN_ANGLE * index * index)
        yield Probe(
            pose,
            camera_in_front((low + high) / 2, float((high - low).max()), GOLDEN_ANGLE * index, elevation),
        )


def camera_in_front(center: Tensor, height: float, azimuth: float, elevation: float) -> Cameras:
    """A camera with y up that looks at `center` (3,) and shows `height` metres."""
    forward = -torch.tensor(
        [
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
            math.cos(azimuth) * math.cos(elevation),
        ]
    )
    right = nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    w2c = torch.eye(4)
    w2c[:3, :3] = rotation
    w2c[:3, 3] = torch.tensor([0, 0, DISTANCE * height]) - rotation @ center.cpu()
    focal, middle = FILL * PROBE_SIZE * DISTANCE, PROBE_SIZE / 2
    intrinsics = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    return Cameras(w2c[None], intrinsics[None], PROBE_SIZE, PROBE_SIZE).to(center.device)


@torch.no_grad()
def mean_offsets(trained: TrainedAvatar) -> PropertyOffsets | None:
    """The offsets' mean over the training poses; None if the run never switched the bases on."""
    if not trained.active.property_bases:
        return None
    poses = spread_poses(trained.pose_space.training_poses, MEAN_POSES)
    total = torch.zeros((), device=trained.device)
    for pose in poses:
        coefficients = trained.avatar.coefficients(pose, trained.active)
        assert coefficients is not None, "the bases are switched on"
        total = total + coefficients
    return trained.avatar.property_offsets(total / len(poses), trained.active)


def visible_change(trained: TrainedAvatar, count: int = PROBES, quiet: bool = False) -> VisibleChange:
    """What the offsets' deviation from their mean does to pictures of the training poses."""
    return look(trained, count, quiet)[0]


def look(
    trained: TrainedAvatar, count: int = PROBES, quiet: bool = False
) -> tuple[VisibleChange, Sensitivity]:
    """Measures in pictures of the training poses what each Gaussian's numbers do.

    A Gaussian's share of the squared change of a picture I is the sum over pixels of (dI/doffsets . deviation)^2.
    It is the expectation of (d(v . I)/doffsets . deviation)^2 over random signs v of all pixels, so one backward
    pass a picture gives an unbiased estimate for all Gaussians at once: colour, shape, opacity and what hides them
    included. Of one number alone it is its derivative's square.
    """
    avatar, active, mean = trained.avatar, trained.active, mean_offsets(trained)
    points, device = len(avatar.xyz), trained.device
    change = torch.zeros(2, points, device=device)
    of_properties, of_sh1 = (torch.zeros(points, numbers, device=device) for numbers in (PROPERTIES, 9))
    backend = choose_backend(trained.config.rasterizer, trained.config.kernels, device)
    generator = torch.Generator().manual_seed(trained.config.seed)
    covered = 0.0
    for probe in tqdm(probes(trained, count), total=count, desc="looking at the bases", disable=quiet):
        with torch.no_grad():
            coefficients = avatar.coefficients(probe.pose.features, active)
            control_offsets = avatar.offset_control_points(coefficients, active)
            offsets = avatar.property_offsets(coefficients, active)
        leaves = PropertyOffsets(
            _leaf(None if offsets is None else offsets.properties, change.new_zeros(points, PROPERTIES)),
            _leaf(None if offsets is None else offsets.sh1, change.new_zeros(points, 3, 3)),
        )
        background = torch.rand(3, generator=generator).to(device)
        with torch.enable_grad():
            canonical = avatar.apply_offsets(leaves, control_offsets, active)
            posed = avatar.pose_gaussians(canonical, avatar.skinning_transforms(probe.pose), probe.pose)
            render = rasterize(posed, probe.cameras, background, backend)
            signs = torch.randint(0, 2, render.colors.shape, generator=generator).to(device) * 2.0 - 1
            (signs * render.colors).sum().backward()
        assert leaves.sh1 is not None
        for share, numbers, leaf, middle in (
            (change[0], of_properties, leaves.properties, mean and mean.properties),
            (change[1], of_sh1, leaves.sh1, mean and mean.sh1),
        ):
            assert leaf.grad is not None
            numbers += leaf.grad.flatten(1).square()
            if middle is not None:
                deviation = leaf.detach()[: len(middle)] - middle
                effect = leaf.grad[: len(middle)] * deviation
                share[: len(effect)] += effect.flatten(1).sum(1).square()
        covered += float(render.alphas.detach().sum()) * 3
    covered = max(covered, 1.0)
    return VisibleChange(*(change / covered)), Sensitivity(of_properties / covered, of_sh1 / covered)


def _leaf(offsets: Tensor | None, of_all: Tensor) -> Tensor:
    """The first Gaussians' offsets and zeros for the others, of which gradients are wanted."""
    leaf = of_all.clone()
    if offsets is not None:
        leaf[: len(offsets)] = offsets
    return leaf.requires_grad_(True)


def select(change: VisibleChange, keep: float | None = None, min_psnr: float = MIN_PSNR) -> Selection:
    """The Gaussians that keep bases: the share `keep` of them with the largest change; without it the fewest that
    leave `min_psnr`. Bases of degree-1 colour stay where they, alone, change as much as the least kept Gaussian."""
    of_sh1 = change.sh1.double()
    # Whoever keeps degree-1 bases keeps the others: they are one blend.
    rank = torch.maximum(change.properties.double(), of_sh1)
    values = torch.cat([rank, of_sh1])
    errors = COHERENCE * torch.cat([change.properties.double(), of_sh1])
    ascending = values.argsort()
    if keep is None:
        dropped = int((errors[ascending].cumsum(0) <= 10 ** (-min_psnr / 10)).sum())
        threshold = float(values[ascending[dropped - 1]]) if dropped else -1.0
        keeps = rank > threshold
    else:
        keeps = torch.zeros_like(rank, dtype=torch.bool)
        keeps[rank.argsort(descending=True)[: round(keep * len(rank))]] = True
        threshold = float(rank[~keeps].max()) if not keeps.all() else -1.0
    keeps_sh1 = keeps & (of_sh1 > threshold)
    error = float(errors[~torch.cat([keeps, keeps_sh1])].sum())
    order = (~keeps).int() + (~keeps_sh1).int()
    return Selection(
        order=order.argsort(stable=True),
        num_properties=int(keeps.sum()),
        num_sh1=int(keeps_sh1.sum()),
        psnr=-10 * math.log10(error) if error > 0 else math.inf,
    )


def along_curve(selection: Selection, avatar: Avatar) -> Selection:
    """The same, each kind of Gaussians in the order of a curve through space."""
    bounds = (0, selection.num_sh1, selection.num_properties, len(selection.order))
    parts = [selection.order[begin:end] for begin, end in pairwise(bounds)]
    order = torch.cat([part[curve_order(avatar.xyz[part])] for part in parts])
    return replace(selection, order=order)


def curve_order(xyz: Tensor) -> Tensor:
    """(N,) indices of points (N, 3) along a Morton curve: the bits of x, y and z in turn, from the highest."""
    if not len(xyz):
        return torch.zeros(0, dtype=torch.long, device=xyz.device)
    low, high = xyz.amin(0), xyz.amax(0)
    steps = ((xyz - low) / (high - low).max().clamp_min(1e-9) * (2**CURVE_BITS - 1)).long()
    code = torch.zeros(len(xyz), dtype=torch.long, device=xyz.device)
    for bit in range(CURVE_BITS):
        for axis in range(3):
            code |= ((steps[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(stable=True)


@torch.no_grad()
def in_curve_order(trained: TrainedAvatar) -> TrainedAvatar:
    """A copy whose control points follow a curve through space, by the mean place of the Gaussians that they move."""
    avatar = copy.deepcopy(trained.avatar).requires_grad_(False).eval()
    table, of_controls = avatar.gaussian_to_control, avatar.control_to_anchor
    order = curve_order(places_of(table, avatar.xyz, len(avatar.control_offsets)))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    table.index = rank[table.index]
    of_controls.index, of_controls.weight = of_controls.index[order], of_controls.weight[order]
    avatar.control_offsets.data = avatar.control_offsets[order]
    avatar.position_bases.data = avatar.position_bases[order]
    if len(avatar.control_neighbours):
        avatar.control_neighbours = rank[avatar.control_neighbours][order]
    return replace(trained, avatar=avatar)


@torch.no_grad()
def prune(trained: TrainedAvatar, selection: Selection) -> TrainedAvatar:
    """A copy with the Gaussians in the selection's order; those without bases take their mean offset for good."""
    mean = mean_offsets(trained)
    avatar = copy.deepcopy(trained.avatar).requires_grad_(False).eval()
    order, count, count_sh1 = selection.order, selection.num_properties, selection.num_sh1

    def set_parameter(name: str, value: Tensor) -> None:
        setattr(avatar, name, nn.Parameter(value, requires_grad=False))

    for name in PER_GAUSSIAN:
        set_parameter(name, getattr(avatar, name)[order])
    avatar.xyz, avatar.lbs_weights = avatar.xyz[order], avatar.lbs_weights[order]
    if avatar.light is not None:
        avatar.normals = avatar.normals[order]
    table, to_anchor = avatar.gaussian_to_control, avatar.gaussian_to_anchor
    table.index, table.weight = table.index[order], table.weight[order]
    to_anchor.index, to_anchor.weight = to_anchor.index[order[:count]], to_anchor.weight[order[:count]]
    set_parameter("property_bases", avatar.property_bases[order[:count]])
    set_parameter("sh1_bases", avatar.sh1_bases[order[:count_sh1]])
    if mean is not None:
        _fold(avatar, mean, order, count, count_sh1)
    return replace(trained, avatar=avatar)


def _fold(avatar: Avatar, mean: PropertyOffsets, order: Tensor, count: int, count_sh1: int) -> None:
    """Adds the mean offsets to the neutral properties of the Gaussians that have lost their bases."""
    rest = mean.properties[order[count:]]
    avatar.sh0[count:] += rest[:, COLOR]
    avatar.log_scales[count:] += rest[:, LOG_SCALE]
    avatar.quats[count:] += rest[:, QUAT]
    avatar.opacity_logits[count:] += rest[:, OPACITY][:, 0]
    if mean.sh1 is not None:
        avatar.sh1[count_sh1:] += mean.sh1[order[count_sh1:]]
