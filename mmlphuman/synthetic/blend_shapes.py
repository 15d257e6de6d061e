"""Shape, expression and pose blend shapes of the synthetic body.

Fifth stage: vertices (B, 3) + weights (B, 55) -> shapedirs (B, 3, 400) and posedirs (B, 3, 486).
The first ten shape directions are named changes of build; the others are smooth random fields that get
weaker and finer, as principal components do. Pose blend shapes are small swellings at the joints.
"""

from __future__ import annotations

import numpy as np

from mmlphuman.synthetic import skeleton as sk

NUM_SHAPES, NUM_EXPRESSIONS, NUM_POSE_FEATURES = 300, 100, 54 * 9
QUANTUM = 2.0**-18  # metres; directions are rounded to it so that the file compresses


def _bump(values: np.ndarray, center: float, width: float) -> np.ndarray:
    return np.exp(-(((values - center) / width) ** 2))


def _rise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def named_shapes(vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(B, 3, 10): one standard deviation of stature, girth, legs, arms, shoulders, hips, belly, chest,
    head and hands/feet, as displacements in metres."""
    x, y, z = vertices.T
    height = y + sk.CHEST_HEIGHT
    side = np.sign(x)
    reach = np.abs(x)
    trunk = _rise(height, 0.80, 0.95) * (1 - _rise(height, 1.36, 1.46)) * (1 - _rise(reach, 0.14, 0.22))
    soft = 1 - _rise(height, 1.42, 1.47) * 0.8
    soft = soft * (1 - _rise(reach, 0.62, 0.68)) * _rise(height, 0.05, 0.12)
    zero = np.zeros_like(x)
    along = [
        0.035 * vertices + np.stack([zero, 0.01 * _rise(height, 0, 1.7), zero], 1),
        0.009 * soft[:, None] * normals,
        np.stack([zero, -0.022 * (1 - np.clip(height / 0.92, 0, 1)), zero], 1),
        np.stack([side * 0.020 * np.clip((reach - 0.19) / 0.5, 0, 1), zero, zero], 1),
        np.stack([side * 0.012 * _rise(reach, 0.05, 0.18) * _rise(height, 1.1, 1.35), zero, zero], 1),
        np.stack([side * 0.012 * _bump(height, 0.90, 0.13) * _rise(reach, 0.0, 0.15), zero, zero], 1),
        0.016 * (trunk * _bump(height, 1.04, 0.10) * _rise(z, -0.03, 0.08))[:, None] * normals,
        0.010 * (trunk * _bump(height, 1.28, 0.09) * _rise(z, -0.03, 0.06))[:, None] * normals,
        0.03 * _rise(height, 1.46, 1.54)[:, None] * (vertices - [0, 1.5 - sk.CHEST_HEIGHT, 0]),
        np.stack(
            [side * 0.008 * _rise(reach, 0.69, 0.87), zero, 0.008 * _rise(z, 0.02, 0.18) * (height < 0.1)], 1
        ),
    ]
    return np.stack(along, -1)


def _random_fields(
    vertices: np.ndarray, rng: np.random.Generator, count: int, wavelength: float, waves: int = 3
) -> np.ndarray:
    """(B, 3, count) smooth random vector fields of about unit size: sums of a few plane waves."""
    fields = np.zeros((len(vertices), 3, count), np.float32)
    for index in range(count):
        frequency = rng.normal(size=(3, waves)) * (2 * np.pi / wavelength) / np.sqrt(3) * (1 + index / count)
        phase = rng.uniform(0, 2 * np.pi, waves)
        direction = rng.normal(size=(waves, 3)) / np.sqrt(waves)
        fields[:, :, index] = np.sin(vertices @ frequency + phase) @ direction
    return fields


def shape_directions(vertices: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B, 3, 400) float32: 300 shape, then 100 expression directions, metres per unit coefficient."""
    directions = np.zeros((len(vertices), 3, NUM_SHAPES + NUM_EXPRESSIONS), np.float32)
    directions[:, :, :10] = named_shapes(vertices, normals)
    strength = 0.0025 / (1 + np.arange(NUM_SHAPES - 10) / 6)
    directions[:, :, 10:NUM_SHAPES] = _random_fields(vertices, rng, NUM_SHAPES - 10, 0.9) * strength
    height = vertices[:, 1] + sk.CHEST_HEIGHT
    face = _rise(height, 1.47, 1.50) * (1 - _rise(height, 1.60, 1.64)) * _rise(vertices[:, 2], 0.01, 0.06)
    moving = face > 0
    strength = 0.0030 / (1 + np.arange(NUM_EXPRESSIONS) / 5)
    fields = _random_fields(vertices[moving], rng, NUM_EXPRESSIONS, 0.12) * strength
    directions[moving, :, NUM_SHAPES:] = fields * face[moving, None, None]
    return np.round(directions / QUANTUM) * np.float32(QUANTUM)


def pose_directions(
    vertices: np.ndarray, normals: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(B, 3, 486) float32: metres per unit of (rotation matrix - identity), joints 1-54, nine entries each."""
    directions = np.zeros((len(vertices), 3, NUM_POSE_FEATURES), np.float32)
    for joint in range(1, sk.NUM_JOINTS):
        seam = 4 * weights[:, joint] * (1 - weights[:, joint])
        near = seam > 0.05
        size = 0.0006 if joint >= sk.FIRST_LEFT_FINGER else 0.003
        pattern = normals[near, :, None] * rng.normal(size=(1, 1, 9)) + 0.3 * rng.normal(size=(1, 3, 9))
        directions[near, :, 9 * (joint - 1) : 9 * joint] = size * seam[near, None, None] * pattern
    return np.round(directions / QUANTUM) * np.float32(QUANTUM)
