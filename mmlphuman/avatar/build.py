"""Building a new avatar on a body: where Gaussians, control points and anchors sit (paper sec. 3); and one that was
saved.

Data path: Body + template (+ WeightVolume) -> AvatarLayout -> Avatar; file -> state -> Avatar.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import trimesh

from mmlphuman.avatar.avatar import Avatar, AvatarLayout
from mmlphuman.avatar.neighbours import Interpolation, interpolation, nearest
from mmlphuman.avatar.pose_inputs import body_inputs, local_inputs
from mmlphuman.avatar.sampling import MeshSamples, poisson_disk_samples
from mmlphuman.body.kinematics import canonical_pose, forward_kinematics, rigid_inverse
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.config import Config
from mmlphuman.text import one_line

CONTROL_NEIGHBOURS = 7  # of the smoothness penalty, the control point itself included
SCALE_NEIGHBOURS = 3  # a Gaussian's first size is the distance to these
TEMPLATE_SIZE = 2.0  # times the body's, at most: skirts and hats
UNITS = {"centimetres": 100, "millimetres": 1000, "inches": 39.4}
MIN_SCALE = 1e-4  # metres, for Gaussians that coincide


def load_template(path: Path | None, body: Body) -> trimesh.Trimesh:
    """The capture's own template mesh in the canonical pose if there is one, else the body's mesh."""
    if path is None or not os.path.lexists(path):
        return trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)
    remedy = "; mend it, or remove it to train on the body's own mesh"
    if not path.is_file():
        raise ValueError(f"{path}: no file but a link that leads nowhere, a folder, pipe or device{remedy}")
    mesh = read_template_mesh(path, remedy)
    if problem := misfit(mesh.bounds, body):
        raise ValueError(f"{path}: not a template of this body in the canonical pose: {problem}{remedy}")
    return mesh


def misfit(bounds: np.ndarray, body: Body) -> str:
    """Why a mesh in this box (2, 3) cannot be the clothed body, in metres and in the canonical pose; "" if it can."""
    low, high = body.canonical_vertices.aminmax(dim=0)
    extent, height = (high - low).numpy(), float((high - low).max())
    ratio = float((bounds[1] - bounds[0]).max() / height)
    for unit, factor in UNITS.items():
        if factor / TEMPLATE_SIZE < ratio < factor * TEMPLATE_SIZE:
            return f"its size is {ratio:.4g} times the body's, as if it were in {unit} instead of metres"
    if not 1 / TEMPLATE_SIZE < ratio < TEMPLATE_SIZE:
        return f"its size is {ratio:.4g} times the body's"
    if (apart := np.abs(bounds.mean(0) - (low + high).numpy() / 2).max()) > height / 2:
        return f"its middle lies {apart:.2f} m from the body's"
    if (bounds[1] - bounds[0])[1] < extent[1] / TEMPLATE_SIZE:
        return "it is not upright: its y axis must point up"
    return ""


def read_template_mesh(path: Path, remedy: str = "") -> trimesh.Trimesh:
    """Raises ValueError, one line that ends with `remedy`, for a file that holds no usable mesh."""
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
        if not (isinstance(mesh, trimesh.Trimesh) and len(mesh.faces) and np.isfinite(mesh.vertices).all()):
            raise ValueError("it has no faces, or vertices that are not finite")
        if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
            raise ValueError(f"a face points at a vertex outside 0..{len(mesh.vertices) - 1}")
    except Exception as error:  # trimesh passes any parser's exception through
        raise ValueError(f"{path}: not a usable template mesh: {one_line(error)}{remedy}") from error
    return mesh


def build_layout(
    config: Config,
    body: Body,
    template: trimesh.Trimesh,
    volume: WeightVolume | None,
    translations: torch.Tensor | None = None,
    expression: bool = False,
) -> AvatarLayout:
    """volume: None if `template` is the body's own mesh, whose vertices' skinning weights are interpolated then.
    translations: (F, 3) of the training poses, for the light's range; None: the origin. expression: whether it
    moves in training; local inputs take it in then."""

    def sample(count: int, stream: int) -> MeshSamples:
        return poisson_disk_samples(template, count, seed=config.seed * 3 + stream)

    gaussians = sample(config.init_num_gs, 0)
    xyz = torch.from_numpy(gaussians.points).float()
    controls = torch.from_numpy(sample(config.num_verts, 1).points).float()
    anchors = torch.from_numpy(sample(config.num_features, 2).points).float()
    to_others, _ = nearest(xyz, xyz, SCALE_NEIGHBOURS + 1)
    spacing = to_others[:, 1:].square().mean(1).sqrt().clamp_min(MIN_SCALE)
    if volume is None:
        lbs_weights = torch.from_numpy(gaussians.interpolate(body.lbs_weights.numpy())).float()
        lbs_weights = lbs_weights / lbs_weights.sum(1, keepdim=True)
    else:
        lbs_weights = volume.query(xyz)
    to_anchor = interpolation(xyz, anchors)
    places = torch.zeros(1, 3) if translations is None else translations.float()
    normals = torch.from_numpy(gaussians.interpolate(np.asarray(template.vertex_normals))).float()
    inputs = body_inputs()
    if config.pose_inputs == "local":
        inputs = local_inputs(lbs_weights, to_anchor, len(anchors), list(body.parents), expression)
    return AvatarLayout(
        xyz=xyz,
        lbs_weights=lbs_weights,
        gaussian_to_anchor=to_anchor,
        gaussian_to_control=interpolation(xyz, controls),
        control_to_anchor=interpolation(controls, anchors),
        control_neighbours=nearest(controls, controls, CONTROL_NEIGHBOURS)[1],
        joints=body.joints,
        parents=torch.tensor(body.parents),
        canonical_transforms=forward_kinematics(canonical_pose(), body.joints, body.parents),
        initial_log_scales=spacing.log(),
        mlp_inputs=inputs,
        normals=torch.nn.functional.normalize(normals, dim=1),
        places=torch.stack([places.amin(0), places.amax(0)]),
    )


def build_avatar(config: Config, layout: AvatarLayout) -> Avatar:
    return Avatar(
        layout,
        num_anchors=config.num_features,
        num_gsparam_bases=config.num_gsparam_bases,
        num_position_bases=config.num_position_bases,
        xyz_offset_range=config.xyz_offset_range,
        hidden_widths=config.hidden_widths,
        light=config.light,
        seed=config.seed,
    )


def avatar_from_state(config: Config, state: dict[str, torch.Tensor]) -> Avatar:
    """The avatar whose `state_dict` this is, compact ones included. Raises KeyError or RuntimeError if it is none."""

    def table(name: str) -> Interpolation:
        return Interpolation(state[f"{name}.index"], state[f"{name}.weight"])

    lit = config.light != "none"
    layout = AvatarLayout(
        xyz=state["xyz"],
        lbs_weights=state["lbs_weights"],
        gaussian_to_anchor=table("gaussian_to_anchor"),
        gaussian_to_control=table("gaussian_to_control"),
        control_to_anchor=table("control_to_anchor"),
        control_neighbours=state["control_neighbours"],
        joints=state["joints"],
        parents=state["parents"],
        canonical_transforms=rigid_inverse(state["canonical_inverse"]),
        initial_log_scales=state["log_scales"][:, 0],
        mlp_inputs=state.get("mlp_inputs", body_inputs()),  # former versions' saw all of the body
        normals=state["normals"] if lit else None,
        places=torch.stack([state["light.lowest"], state["light.highest"]]) if lit else None,
    )
    assert layout.mlp_inputs is not None
    state = {"mlp_inputs": layout.mlp_inputs, **state}
    avatar = build_avatar(config, layout)
    avatar.sh1_bases = torch.nn.Parameter(avatar.sh1_bases[: len(state["sh1_bases"])])  # compact: fewer
    avatar.load_state_dict(state, strict=True)
    return avatar
