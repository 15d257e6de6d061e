"""Colour of the clothed subject: prints, patterns, face and hair over anatomical coordinates, and light.

Data path: hit points (anatomical coordinates, layer, normal, view direction) -> RGB in [0, 1]. Colours are
display-referred. Shape letter: R ray hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mmlphuman.synthetic.garments import (
    HAIR,
    SHIRT,
    SHIRT_HEM,
    SHOES,
    SKIN,
    SLEEVE_END,
    TROUSERS,
    hairline,
    neckline,
    smoothstep,
)

PRINT_PIXELS_PER_METRE = 2400
CHEST_PRINT = (-0.118, 0.118, 1.165, 1.300)  # left, right, bottom, top; metres, x and height
BACK_PRINT = (-0.115, 0.115, 1.120, 1.330)
FACE_PIXELS_PER_METRE = 5000
FACE_WINDOW = (-0.085, 0.085, 1.465, 1.700)

SKIN_COLOR = (0.86, 0.66, 0.54)
SHIRT_COLOR, RIB_COLOR, STRIPE_COLOR = (0.20, 0.47, 0.56), (0.12, 0.20, 0.33), (0.93, 0.90, 0.80)
TROUSER_COLOR, CHECK_DARK, CHECK_LIGHT = (0.62, 0.56, 0.47), (0.30, 0.25, 0.23), (0.85, 0.80, 0.69)
HAIR_COLOR, SHOE_COLOR, SOLE_COLOR = (0.23, 0.15, 0.10), (0.68, 0.20, 0.17), (0.93, 0.93, 0.91)


@dataclass(frozen=True)
class Prints:
    """Rasterised decals, float32: coverage or colour with coverage."""

    chest: np.ndarray  # (h, w)
    back: np.ndarray  # (h, w)
    face: np.ndarray  # (h, w, 4) RGB times coverage, and coverage


def _text_print(text: str, window: tuple, thickness: int) -> np.ndarray:
    """Coverage of `text` filling `window`, (h, w) float32 in 0..1."""
    width = round((window[1] - window[0]) * PRINT_PIXELS_PER_METRE)
    height = round((window[3] - window[2]) * PRINT_PIXELS_PER_METRE)
    font = cv2.FONT_HERSHEY_SIMPLEX
    canvas = np.zeros((600, 1600), np.uint8)
    cv2.putText(canvas, text, (60, 460), font, 13, 255, thickness, cv2.LINE_AA)
    rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    glyphs = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cv2.resize(glyphs, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _face_print() -> np.ndarray:
    """Brows, eyes, lips, nostrils and beard shadow painted flat over FACE_WINDOW."""
    scale, (left, right, bottom, top) = FACE_PIXELS_PER_METRE, FACE_WINDOW
    paint = np.zeros((round((top - bottom) * scale), round((right - left) * scale), 4), np.float32)

    def at(x: float, height: float) -> tuple[int, int]:
        return round((x - left) * scale), round((top - height) * scale)

    def blend(color: tuple, draw, blur: float = 0.0, opacity: float = 1.0) -> None:
        mask = np.zeros(paint.shape[:2], np.float32)
        draw(mask)
        if blur:
            mask = cv2.GaussianBlur(mask, (0, 0), blur * scale)
        mask = (mask * opacity)[..., None]
        paint[:] = paint * (1 - mask) + np.array([*color, 1.0]) * mask  # premultiplied by coverage

    def ellipse(
        x: float, height: float, rx: float, ry: float, angle: float = 0, start: float = 0, end: float = 360
    ):
        axes = (round(rx * scale), round(ry * scale))
        return lambda mask: cv2.ellipse(mask, at(x, height), axes, angle, start, end, 1.0, -1, cv2.LINE_AA)

    def stroke(points: list, width: float):
        line = np.array([at(*point) for point in points], np.int32)
        return lambda mask: cv2.polylines(mask, [line], False, 1.0, round(width * scale), cv2.LINE_AA)

    blend((0.45, 0.33, 0.27), ellipse(0, 1.492, 0.046, 0.024), 0.009, 0.20)  # beard shadow
    blend((0.84, 0.46, 0.40), ellipse(0, 1.556, 0.013, 0.010), 0.006, 0.12)
    for side in (-1, 1):
        x = side * 0.031
        blend((0.86, 0.47, 0.40), ellipse(side * 0.042, 1.553, 0.014, 0.012), 0.008, 0.20)
        blend((0.50, 0.33, 0.27), ellipse(x, 1.583, 0.019, 0.012), 0.004, 0.38)  # socket
        blend((0.93, 0.92, 0.90), ellipse(x, 1.581, 0.0145, 0.0068))
        blend((0.22, 0.36, 0.40), ellipse(x, 1.5815, 0.0064, 0.0064))
        blend((0.03, 0.03, 0.03), ellipse(x, 1.5815, 0.0030, 0.0030))
        blend((1.0, 1.0, 1.0), ellipse(x + 0.002, 1.5838, 0.0013, 0.0013))
        lid = [(x - 0.016, 1.580), (x - 0.008, 1.5872), (x, 1.5888), (x + 0.008, 1.5872), (x + 0.016, 1.580)]
        blend((0.16, 0.10, 0.08), stroke(lid, 0.0026))
        blend((0.60, 0.40, 0.33), stroke([(p[0], 2 * 1.581 - p[1]) for p in lid], 0.0012))
        brow = [(side * 0.013, 1.5985), (side * 0.028, 1.6035), (side * 0.042, 1.602), (side * 0.050, 1.597)]
        blend(HAIR_COLOR, stroke(brow, 0.0056), 0.0010, 0.95)
        blend((0.35, 0.18, 0.14), ellipse(side * 0.0075, 1.5455, 0.0038, 0.0022), 0.0006, 0.9)
    blend((0.71, 0.36, 0.34), ellipse(0, 1.5275, 0.0215, 0.0050), 0.0008)
    blend((0.77, 0.42, 0.39), ellipse(0, 1.5195, 0.0180, 0.0062), 0.0010)
    blend(
        (0.34, 0.14, 0.13),
        stroke([(-0.024, 1.5257), (-0.010, 1.5237), (0.010, 1.5237), (0.024, 1.5257)], 0.0020),
        0.0004,
    )
    return paint


def make_prints() -> Prints:
    return Prints(_text_print("MLP", CHEST_PRINT, 78), _text_print("25", BACK_PRINT, 84), _face_print())


def _sample(decal: np.ndarray, window: tuple, x: np.ndarray, height: np.ndarray, scale: float) -> np.ndarray:
    """Bilinear look-up of a decal at (R,) x and height; 0 outside."""
    columns = ((x - window[0]) * scale - 0.5).astype(np.float32)
    rows = ((window[3] - height) * scale - 0.5).astype(np.float32)
    # remap takes images of at most 32767 rows: lay the hits out as a rectangle.
    width = 1024
    padded = -(-len(columns) // width) * width
    grid = np.full((2, padded), -10, np.float32)
    grid[0, : len(columns)], grid[1, : len(rows)] = columns, rows
    maps = grid.reshape(2, -1, width)
    out = cv2.remap(decal, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return out.reshape(padded, *decal.shape[2:])[: len(columns)]


def _mix(base: np.ndarray, color: tuple, share: np.ndarray) -> np.ndarray:
    return base + (np.array(color, np.float32) - base) * share[:, None]


def _band(values: np.ndarray, low: float, high: float, soft: float = 0.0012) -> np.ndarray:
    """1 between low and high with edges `soft` metres wide."""
    return smoothstep(values, low - soft, low + soft) * (1 - smoothstep(values, high - soft, high + soft))


def _stripes(values: np.ndarray, period: float, share: float) -> np.ndarray:
    return _band(np.mod(values, period), 0.002, 0.002 + share * period)


def _skin(anatomy: np.ndarray, prints: Prints) -> np.ndarray:
    x, height, z = anatomy.T
    color = np.tile(np.array(SKIN_COLOR, np.float32), (len(anatomy), 1))
    mottle = 0.5 + 0.5 * np.sin(60 * x + 3 * np.sin(45 * height)) * np.sin(52 * z + 37 * height)
    color *= (0.97 + 0.05 * mottle)[:, None]
    hand = smoothstep(np.abs(x), 0.70, 0.80)
    color = _mix(color, (0.88, 0.60, 0.50), 0.5 * hand)
    scale = FACE_PIXELS_PER_METRE
    face = _sample(prints.face, FACE_WINDOW, x, height, scale)
    in_front = smoothstep(z, 0.020, 0.045)[:, None]
    color = color * (1 - in_front * face[:, 3:]) + in_front * face[:, :3]
    stubble = smoothstep(hairline(anatomy), -0.010, 0.0) * (height > 1.5)
    return _mix(color, HAIR_COLOR, 0.8 * stubble)


def _hair(anatomy: np.ndarray) -> np.ndarray:
    x, height, z = anatomy.T
    streaks = np.sin(330 * x + 25 * np.sin(20 * z + 8 * height)) + 0.6 * np.sin(610 * x + 90 * z)
    return np.array(HAIR_COLOR, np.float32) * (1.05 + 0.28 * streaks)[:, None]


def _shirt(anatomy: np.ndarray, prints: Prints) -> np.ndarray:
    x, height, z = anatomy.T
    reach = np.abs(x)
    color = np.tile(np.array(SHIRT_COLOR, np.float32), (len(anatomy), 1))
    sleeve = smoothstep(reach, 0.213, 0.216)
    color = _mix(color, STRIPE_COLOR, sleeve * _stripes(reach, 0.036, 0.45))
    yoke = (1 - sleeve) * _band(height, 1.075, 1.093) + (1 - sleeve) * _band(height, 1.045, 1.063)
    color = _mix(color, STRIPE_COLOR, yoke)
    rib = np.maximum.reduce(
        [
            1 - smoothstep(neckline(anatomy), 0.017, 0.020),
            _band(height, 0.0, SHIRT_HEM + 0.022),
            _band(reach, SLEEVE_END - 0.03, 1),
        ]
    )
    color = _mix(color, RIB_COLOR, rib)
    front, back = (z > 0.0), (z <= 0.0)
    scale = PRINT_PIXELS_PER_METRE
    letters = _sample(prints.chest, CHEST_PRINT, x, height, scale) * front
    number = _sample(prints.back, BACK_PRINT, -x, height, scale) * back
    return _mix(color, (0.97, 0.95, 0.90), np.maximum(letters, number))


def _trousers(anatomy: np.ndarray) -> np.ndarray:
    x, height, z = anatomy.T
    around = 0.075 * np.arctan2(np.abs(x) - 0.098, z + 0.004)
    color = np.tile(np.array(TROUSER_COLOR, np.float32), (len(anatomy), 1))
    for values in (around, height):
        color = _mix(color, CHECK_DARK, 0.55 * _stripes(values, 0.052, 0.42))
        color = _mix(color, CHECK_LIGHT, 0.9 * _stripes(values + 0.011, 0.052, 0.10))
    return color


def _shoes(anatomy: np.ndarray) -> np.ndarray:
    x, height, z = anatomy.T
    color = np.tile(np.array(SHOE_COLOR, np.float32), (len(anatomy), 1))
    laces = _stripes(z, 0.018, 0.40) * _band(np.abs(np.abs(x) - 0.100), -1, 0.016) * _band(z, 0.005, 0.085)
    color = _mix(color, SOLE_COLOR, laces * smoothstep(height, 0.034, 0.042))
    toe = smoothstep(z, 0.125, 0.130)
    return _mix(color, SOLE_COLOR, np.maximum(1 - smoothstep(height, 0.014, 0.016), toe))


# Layer -> share of specular light, its exponent.
GLOSS = {
    SKIN: (0.10, 14.0),
    HAIR: (0.16, 24.0),
    SHIRT: (0.05, 8.0),
    TROUSERS: (0.04, 8.0),
    SHOES: (0.16, 30.0),
}


@dataclass(frozen=True)
class Light:
    """What lights the person, in the world."""

    lamps: tuple[tuple[tuple[float, float, float], float], ...]  # direction towards the lamp, strength
    ambient: float
    sky: float  # more of it from above, less from below
    wrap: float  # how far round the body the lamps reach: 0 Lambert, 1 everywhere
    fall_off: tuple[float, float, float] = (0.0, 0.0, 0.0)  # lamps at x: times exp(fall_off . x), x in metres


# Key from the front left, fills from behind and right.
STUDIO_LIGHT = Light(
    lamps=(((0.35, 0.75, 0.56), 0.34), ((-0.70, 0.45, 0.20), 0.14), ((0.10, 0.40, -0.90), 0.16)),
    ambient=0.56,
    sky=0.16,
    wrap=0.25,
)


def albedo(anatomy: np.ndarray, layer: np.ndarray, prints: Prints) -> np.ndarray:
    """(R, 3) colours at anatomical coordinates (R, 3) on layers (R,)."""
    color = np.zeros((len(anatomy), 3), np.float32)
    painters = {
        SKIN: lambda a: _skin(a, prints),
        HAIR: _hair,
        SHIRT: lambda a: _shirt(a, prints),
        TROUSERS: _trousers,
        SHOES: _shoes,
    }
    for number, painter in painters.items():
        chosen = np.flatnonzero(layer == number)
        if len(chosen):
            color[chosen] = painter(anatomy[chosen])
    return color


def shade(
    color: np.ndarray,
    places: np.ndarray,
    normals: np.ndarray,
    to_eye: np.ndarray,
    layer: np.ndarray,
    valleys: np.ndarray,
    light: Light,
) -> np.ndarray:
    """(R, 3) shaded RGB in [0, 1]. places: (R, 3) world; normals, to_eye: unit (R, 3); valleys: (R,) share of the
    light that is left there."""
    diffuse = light.ambient + light.sky * normals[:, 1]
    specular = np.zeros(len(color), np.float32)
    strength = np.array([GLOSS[k][0] for k in sorted(GLOSS)], np.float32)[layer]
    exponent = np.array([GLOSS[k][1] for k in sorted(GLOSS)], np.float32)[layer]
    nearness = np.exp(places @ np.array(light.fall_off, np.float32))
    for direction, power in light.lamps:
        direction = np.array(direction, np.float32) / np.float32(np.linalg.norm(direction))
        power = np.float32(power) * nearness
        cosine = normals @ direction
        diffuse = diffuse + power * (light.wrap + (1 - light.wrap) * cosine).clip(0)
        half = to_eye + direction
        half /= np.sqrt((half * half).sum(1, keepdims=True)) + np.float32(1e-6)
        specular += power * (normals * half).sum(1).clip(0) ** exponent
    return (color * (diffuse * valleys)[:, None] + (strength * specular * valleys)[:, None] * 2).clip(0, 1)
