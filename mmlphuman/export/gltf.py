"""The avatar's mesh as a skinned, animated glTF 2.0 binary (GLB), as Blender and game engines open it.

Data path: SkinnedMesh + skeleton + PoseSequence -> nodes, skin, animation -> one .glb file.
Shape letters: P vertices, T triangles, J joints (55), F frames.

Node 0 is the world's rotation and carries the joints; node 1 + j is joint j, its translation the bone from its
parent. A vertex's place by the standard, sum_j w_j global(node_j) inverse_bind_j x, is then our linear blend
skinning, with inverse_bind_j the inverse of the joint's place in the canonical pose.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh
from smplx.joint_names import JOINT_NAMES

from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.avatar import Avatar
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.export.mesh import SkinnedMesh
from mmlphuman.files import atomic_write
from mmlphuman.pose_layout import NUM_JOINTS

INFLUENCES = 4  # joints a vertex, glTF's first set; more sets are rarely read
FLOAT, USHORT, UINT, UBYTE = 5126, 5123, 5125, 5121  # glTF component types
COMPONENT_TYPES = {"float32": FLOAT, "uint16": USHORT, "uint32": UINT, "uint8": UBYTE}
SHAPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTEX_DATA, TRIANGLE_DATA = 34962, 34963  # glTF buffer view targets
LINEAR = 9729  # glTF's filter that mixes neighbouring texels
MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = b"glTF", 2, b"JSON", b"BIN\0"


@dataclass
class GlbBuffer:
    """Arrays gathered into the binary chunk, and the glTF entries that describe them."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict] = field(default_factory=list)
    accessors: list[dict] = field(default_factory=list)

    def add(self, array: np.ndarray, target: int | None = None, **more) -> int:
        """Appends an array whose rows are multiples of four bytes; returns its accessor's number."""
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += array.tobytes()
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "componentType": COMPONENT_TYPES[array.dtype.name],
                "count": len(array),
                "type": SHAPES[array.shape[1:]],
                **more,
            }
        )
        return len(self.accessors) - 1

    def add_bytes(self, content: bytes) -> int:
        """Appends a file; returns its buffer view's number."""
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)})
        self.data += content + bytes(-len(content) % 4)
        return len(self.views) - 1

    def add_bounded(self, array: np.ndarray, target: int | None = None) -> int:
        """`add` with the smallest and largest values, which glTF wants of positions and times."""
        low, high = (np.atleast_1d(values).tolist() for values in (array.min(0), array.max(0)))
        return self.add(array, target, min=low, max=high)


def write_glb(
    path: str | Path, mesh: SkinnedMesh, avatar: Avatar, sequence: PoseSequence | None = None
) -> None:
    """Writes the file, whole or not at all.

    The nodes stand as in the sequence's first frame (without a sequence, in the canonical pose); a sequence of
    several frames also becomes an animation, in the file's own time.
    """
    buffer = GlbBuffer()
    content = {
        "asset": {"version": "2.0", "generator": "mmlphuman"},
        "extensionsUsed": ["KHR_materials_unlit"],
        **skeleton(buffer, avatar, sequence),
        "meshes": [{"name": "avatar", "primitives": [_primitive(buffer, mesh)]}],
        # Light is in the colours already: unlit.
        "materials": [
            {"name": "skin and clothes", "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}
        ],
    }
    if mesh.picture is not None:
        # No smaller copies of the picture, which would mix triangles that are neighbours in it alone.
        content["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR}]
        content["images"] = [{"mimeType": "image/png", "bufferView": buffer.add_bytes(png(mesh.picture))}]
        content["textures"] = [{"sampler": 0, "source": 0}]
        content["materials"][0]["pbrMetallicRoughness"] = {
            "baseColorTexture": {"index": 0},
            "metallicFactor": 0,
        }
    write_content(path, content, buffer)


def skeleton(buffer: GlbBuffer, avatar: Avatar, sequence: PoseSequence | None) -> dict:
    """A file's scene of mesh 0 and its joints, the skin and, of several frames, the animation."""
    poses = canonical_pose()[None].numpy() if sequence is None else sequence.poses
    rotations = joint_quaternions(poses)  # (F, J, 4)
    bones = bone_offsets(avatar)
    pelvis = bones[:1] + (0 if sequence is None else sequence.translations)  # (F, 3)
    world = None if sequence is None else sequence.rotation
    content = {
        "scene": 0,
        "scenes": [{"nodes": [0, 1 + NUM_JOINTS]}],
        "nodes": _nodes(bones, pelvis[0], rotations[0], world, avatar),
        "skins": [_skin(buffer, avatar)],
    }
    if sequence is not None and len(poses) > 1:
        times = np.arange(len(poses)) / sequence.playback_fps
        content["animations"] = [_animation(buffer, times.astype(np.float32), rotations, pelvis)]
    return content


def write_content(path: str | Path, content: dict, buffer: GlbBuffer) -> None:
    """Whole or not at all."""
    of_buffer = {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    with atomic_write(path) as file:
        file.write(glb_bytes(content | of_buffer, bytes(buffer.data)))


def joint_quaternions(poses: np.ndarray) -> np.ndarray:
    """(F, 165) axis-angle -> (F, J, 4) float32 unit quaternions in glTF's order x, y, z, w.

    Of q and -q the one nearer to the frame before is taken, so that players interpolate the short way.
    """
    axis_angle = poses.reshape(len(poses), -1, 3).astype(np.float64)
    half = np.linalg.norm(axis_angle, axis=-1, keepdims=True) / 2
    quats = np.concatenate([0.5 * np.sinc(half / np.pi) * axis_angle, np.cos(half)], -1)
    with_previous = (quats[1:] * quats[:-1]).sum(-1, keepdims=True)
    quats[1:] *= np.cumprod(np.where(with_previous < 0, -1, 1), axis=0)
    return quats.astype(np.float32)


def bone_offsets(avatar: Avatar) -> np.ndarray:
    """(J, 3) each joint's place relative to its parent in the T-pose; the root's in the body's axes."""
    joints = avatar.joints.cpu().numpy()
    bones = joints.copy()
    bones[1:] -= joints[list(avatar.bone_parents[1:])]
    return bones


def inverse_bind_matrices(avatar: Avatar) -> np.ndarray:
    """(J, 4, 4) from the canonical pose's world into each joint's own axes."""
    to_joint = torch.eye(4).repeat(NUM_JOINTS, 1, 1)
    to_joint[:, :3, 3] = -avatar.joints.cpu()
    return (to_joint @ avatar.canonical_inverse.cpu()).numpy()


def strongest_weights(lbs_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, J) -> joints (P, 4) uint8 and weights (P, 4) float32 that sum to one; joint 0 where a weight is zero."""
    joints = np.argsort(-lbs_weights, axis=1, kind="stable")[:, :INFLUENCES]
    weights = np.take_along_axis(lbs_weights, joints, 1)
    weights = weights / weights.sum(1, keepdims=True)
    return np.where(weights > 0, joints, 0).astype(np.uint8), weights.astype(np.float32)


def byte_weights(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of `strongest_weights` -> both (P, 4) uint8: a row's weights sum to 255, as glTF wants of normalized ones."""
    steps = (weights * 255).round().astype(np.int64)
    steps[:, 0] += 255 - steps.sum(1)
    return np.where(steps > 0, joints, 0).astype(np.uint8), steps.astype(np.uint8)


def linear_colors(colors: np.ndarray) -> np.ndarray:
    """(P, 3) sRGB in [0, 1] -> (P, 4) uint16 linear RGB and opaque alpha: glTF's vertex colours are linear."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return (np.pad(linear, ((0, 0), (0, 1)), constant_values=1) * 65535).round().astype(np.uint16)


def png(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> a PNG file."""
    done, content = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise OSError("OpenCV could not write a PNG picture")
    return content.tobytes()


def _primitive(buffer: GlbBuffer, mesh: SkinnedMesh) -> dict:
    """With a texture each triangle has its corners for itself: in the picture nobody shares them."""
    vertices = mesh.vertices.cpu().numpy()
    normals = trimesh.Trimesh(vertices, mesh.faces, process=False).vertex_normals.astype(np.float32)
    joints, weights = strongest_weights(mesh.lbs_weights.cpu().numpy())
    faces = mesh.faces
    corners = slice(None) if mesh.uv is None else faces.reshape(-1)
    attributes = {
        "POSITION": buffer.add_bounded(vertices[corners], VERTEX_DATA),
        "NORMAL": buffer.add(normals[corners], VERTEX_DATA),
        "JOINTS_0": buffer.add(joints[corners], VERTEX_DATA),
        "WEIGHTS_0": buffer.add(weights[corners], VERTEX_DATA),
    }
    if mesh.uv is None:
        colors = linear_colors(mesh.colors.cpu().numpy())
        attributes["COLOR_0"] = buffer.add(colors, VERTEX_DATA, normalized=True)
    else:
        attributes["TEXCOORD_0"] = buffer.add(mesh.uv.reshape(-1, 2), VERTEX_DATA)
        faces = np.arange(faces.size)
    indices = buffer.add(faces.astype(np.uint32).reshape(-1), TRIANGLE_DATA)
    return {"attributes": attributes, "indices": indices, "material": 0}


def _skin(buffer: GlbBuffer, avatar: Avatar) -> dict:
    matrices = inverse_bind_matrices(avatar).astype(np.float32).transpose(0, 2, 1)  # glTF: column by column
    return {
        "inverseBindMatrices": buffer.add(matrices),
        "joints": list(range(1, 1 + NUM_JOINTS)),
        "skeleton": 0,
    }


def _nodes(
    bones: np.ndarray, pelvis: np.ndarray, rotations: np.ndarray, world: np.ndarray | None, avatar: Avatar
) -> list[dict]:
    """bones (J, 3), pelvis (3,), rotations (J, 4) of the pose in which the nodes stand, world (3, 3)."""
    root = {"name": "body", "children": [1]}
    if world is not None and not np.array_equal(world, np.eye(3)):
        matrix = np.eye(4)
        matrix[:3, :3] = world
        root["matrix"] = matrix.T.ravel().tolist()
    nodes = [root]
    for joint, (bone, rotation) in enumerate(zip([pelvis, *bones[1:]], rotations, strict=True)):
        children = [1 + child for child, parent in enumerate(avatar.bone_parents) if parent == joint]
        node = {"name": JOINT_NAMES[joint], "translation": bone.tolist(), "rotation": rotation.tolist()}
        nodes.append(node | ({"children": children} if children else {}))
    return [*nodes, {"name": "avatar", "mesh": 0, "skin": 0}]


def _animation(buffer: GlbBuffer, times: np.ndarray, rotations: np.ndarray, pelvis: np.ndarray) -> dict:
    """times (F,) seconds, rotations (F, J, 4), pelvis (F, 3). Joints that never move are left to their nodes."""
    clock = buffer.add_bounded(times)
    tracks = [(1, "translation", pelvis.astype(np.float32))]
    for joint in range(NUM_JOINTS):
        if np.ptp(rotations[:, joint], axis=0).any():
            tracks.append((1 + joint, "rotation", rotations[:, joint]))
    samplers = [{"input": clock, "output": buffer.add(values)} for _, _, values in tracks]
    channels = [
        {"sampler": number, "target": {"node": node, "path": kind}}
        for number, (node, kind, _) in enumerate(tracks)
    ]
    return {"name": "poses", "channels": channels, "samplers": samplers}


def glb_bytes(content: dict, data: bytes) -> bytes:
    """The GLB container: a header, the JSON chunk padded with spaces, the binary chunk padded with zeros."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    chunks = b""
    for kind, chunk, filler in ((JSON_CHUNK, text, b" "), (BINARY_CHUNK, data, b"\0")):
        chunk += filler * (-len(chunk) % 4)
        chunks += struct.pack("<I", len(chunk)) + kind + chunk
    return struct.pack("<4sII", MAGIC, VERSION, 12 + len(chunks)) + chunks
