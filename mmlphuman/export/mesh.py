"""A mesh of the avatar for tools without Gaussians: the canonical template, coloured and skinned by the Gaussians.

Data path: template mesh + TrainedAvatar -> AttachedMesh -> (what the MLPs see) SkinnedMesh -> (pose) PLY; with a
texture (texture.bake) -> gltf. A preview: it has the avatar's coarse shape and matt colours, not its hair-thin detail.
Shape letters: P vertices, T triangles, N Gaussians, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor
from trimesh.exchange.ply import export_ply

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.build import read_template_mesh
from mmlphuman.avatar.neighbours import Interpolation, interpolation
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import apply_transforms, blend_transforms
from mmlphuman.export.texture import bake, make_atlas
from mmlphuman.files import atomic_write
from mmlphuman.model_folder import TEMPLATE_NAME, folder_of, is_compact
from mmlphuman.types import SH_DEGREE_0, Pose

TRIANGLES_WANTED = 1.0  # a Gaussian: a mesh coarser than that would lose the pattern of clothes
TRIANGLES_OF_TEXTURE = 0.1  # a Gaussian: texture.NEAR are looked at for a triangle, of which it holds ten
NEIGHBOURS = 4  # Gaussians that give a vertex its colour and skinning weights
MIN_OPACITY = 1e-4  # keeps the colour of a vertex among transparent Gaussians a mean, not 0 / 0


@dataclass(frozen=True)
class AttachedMesh:
    """A canonical template mesh and the Gaussians next to its vertices; the same in all poses."""

    vertices: Tensor  # (P, 3) canonical pose
    faces: np.ndarray  # (T, 3) int64
    near: Interpolation  # (P, NEIGHBOURS) of N
    lbs_weights: Tensor  # (P, J)


@dataclass(frozen=True)
class SkinnedMesh:
    """The mesh as it looks in one pose, still standing in the canonical pose. With a texture, triangles have its places
    `uv` (T, 3, 2), a corner's in each, and `picture` (S, S, 3) has their colours."""

    vertices: Tensor  # (P, 3)
    faces: np.ndarray  # (T, 3)
    colors: Tensor  # (P, 3) RGB in [0, 1]
    lbs_weights: Tensor  # (P, J) rows sum to one
    uv: np.ndarray | None = None
    picture: np.ndarray | None = None


def template_of(model: Path) -> trimesh.Trimesh:
    """The canonical mesh that a model was trained on: in its folder, or carried by a compact file or lying beside it.

    Raises FileNotFoundError or ValueError, one line each, if there is none to be had.
    """
    if is_compact(model):
        from mmlphuman.export.compact_reader import load_carried

        carried = load_carried(model).template
        return read_template(model.parent / TEMPLATE_NAME) if carried is None else carried
    return read_template(folder_of(model) / TEMPLATE_NAME)


def read_template(path: Path) -> trimesh.Trimesh:
    """Raises FileNotFoundError or ValueError, one line each, if there is no mesh to be had."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no template mesh, which mesh_ply and glb need; give the canonical mesh that the avatar was "
            "trained on with --template, or export --format ply (Gaussians)"
        )
    return read_template_mesh(path)


def attach_mesh(template: trimesh.Trimesh, avatar: Avatar, textured: bool = False) -> AttachedMesh:
    """Binds a canonical mesh to the Gaussians, its triangles split in four until they can carry the colours; with a
    texture fewer can."""
    wanted = TRIANGLES_OF_TEXTURE if textured else TRIANGLES_WANTED
    while len(template.faces) < wanted * len(avatar.xyz):
        template = template.subdivide()
    vertices = torch.as_tensor(np.asarray(template.vertices), dtype=torch.float32).to(avatar.xyz.device)
    near = interpolation(vertices, avatar.xyz, NEIGHBOURS)
    weights = near(avatar.lbs_weights)
    return AttachedMesh(vertices, np.asarray(template.faces), near, weights / weights.sum(1, keepdim=True))


def dress_mesh(
    attached: AttachedMesh, trained: TrainedAvatar, features: Tensor, textured: bool = False
) -> SkinnedMesh:
    """The mesh as the MLPs shape and colour it where they see `features` (175,).

    Vertices follow the control points; colours are the degree-0 colours of the Gaussians near by, weighted by
    inverse distance and opacity.
    """
    avatar, active, near = trained.avatar, trained.active, attached.near
    coefficients = avatar.coefficients(features, active)
    control_offsets = avatar.offset_control_points(coefficients, active)
    gaussians = avatar.canonical_gaussians(coefficients, control_offsets, active)
    vertices = attached.vertices + near(avatar.gaussian_to_control(control_offsets))
    # Colours are taken where the Gaussians are now, a little off the places that give the weights.
    beside = interpolation(vertices, gaussians.xyz, NEIGHBOURS)
    visible = beside.weight * gaussians.opacities.clamp_min(MIN_OPACITY)[beside.index]
    blend = Interpolation(beside.index, visible / visible.sum(1, keepdim=True))
    uv, picture = None, None
    if textured:
        atlas = make_atlas(len(attached.faces), len(avatar.xyz))
        faces = torch.from_numpy(np.array(attached.faces)).to(vertices.device)
        uv, picture = atlas.uv, bake(vertices[faces], gaussians, atlas)
    return SkinnedMesh(
        vertices=vertices,
        faces=attached.faces,
        colors=(SH_DEGREE_0 * blend(gaussians.sh[:, 0]) + 0.5).clamp(0, 1),
        lbs_weights=attached.lbs_weights,
        uv=uv,
        picture=picture,
    )


def pose_vertices(mesh: SkinnedMesh, avatar: Avatar, pose: Pose) -> Tensor:
    """(P, 3) vertices in the world, by linear blend skinning."""
    transforms = blend_transforms(mesh.lbs_weights, avatar.skinning_transforms(pose))
    return apply_transforms(transforms, mesh.vertices) @ pose.rotation.T + pose.translation


def write_mesh_ply(path: str | Path, vertices: Tensor, mesh: SkinnedMesh) -> None:
    """Writes `vertices` (P, 3) with the mesh's triangles and colours, whole or not at all."""
    if not vertices.isfinite().all():
        raise ValueError(f"{path}: the posed mesh has vertices that are not finite; is the pose?")
    colors = (mesh.colors * 255).round().to(torch.uint8).cpu().numpy()
    posed = trimesh.Trimesh(vertices.cpu().numpy(), mesh.faces, vertex_colors=colors, process=False)
    with atomic_write(path) as file:
        file.write(export_ply(posed))
