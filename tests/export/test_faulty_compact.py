"""Compact files that are not as they should be: one line that says what is wrong."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from mmlphuman.animation.camera_file import read_model_cameras
from mmlphuman.export.compact import encode
from mmlphuman.export.compact_reader import load_carried, load_compact
from mmlphuman.export.packing import packed
from mmlphuman.export.pruning import prune
from tests.export.compact_files import contents, everything, some_carried, write, write_former


def test_numbers_that_no_steps_can_say_are_refused_when_written(trained):
    broken = prune(trained, everything(trained.avatar))
    for number, message in (
        (1e12, "sh0 is too large for this format"),
        (float("nan"), "sh0 holds numbers that are"),
    ):
        broken.avatar.sh0[5, 1] = number
        with pytest.raises(ValueError, match=message):
            encode(broken)


def assert_one_clear_line(load, path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def at(tensor, index, value):
    changed = tensor.clone()
    changed[index] = value
    return changed


FAULTS = {
    "missing": (lambda t: t.pop("quats"), "tensor quats is missing"),
    "unknown": (lambda t: t.update(extra=torch.ones(1)), "tensor extra is unknown"),
    "type": (lambda t: t.update(sh0=t["sh0"].double()), r"tensor sh0 is torch.float64 \(600, 3\), expected"),
    "shape": (lambda t: t.update(sh0=t["sh0"][:-1].clone()), r"sh0 is torch.float16 \(599, 3\), expected .*600"),
    "flat": (lambda t: t.update(control_offsets=torch.ones(()).half()), "tensor"),
    "rows": (
        lambda t: t.update({"property_bases.scale": t["property_bases.scale"][:9].clone()}),
        r"property_bases.scale is torch.float16 \(9, 1, 11\)",
    ),
    "anchor": (
        lambda t: t.update({"gaussian_to_anchor.index": at(t["gaussian_to_anchor.index"], (3, 1), 10)}),
        r"gaussian_to_anchor.index points outside 0..9",
    ),
    "joint": (
        lambda t: t.update({"lbs_weights.index": at(t["lbs_weights.index"], (0, 0), 200)}),
        "lbs_weights.index points outside 0..54",
    ),
    "weights": (
        lambda t: t.update({"lbs_weights.weight": t["lbs_weights.weight"] * 0}),
        "weights that do not sum to one",
    ),
    "inputs": (
        lambda t: t.update(mlp_inputs=at(t["mlp_inputs"], (2, 3), 200)), "mlp_inputs points outside 0..175"
    ),
    "fewer inputs": (
        lambda t: t.update(mlp_inputs=t["mlp_inputs"][:, 3:].clone()), "tensor bank.weights.0 is .*expected"
    ),
    "inputs of all": (
        lambda t: t.update(mlp_inputs=t["mlp_inputs"][0].clone()), "tensor mlp_inputs is .*expected"
    ),
    "no normals": (lambda t: t.pop("normals"), "tensor normals is missing"),
    "no light": (lambda t: t.pop("light.coefficients"), "tensor light.coefficients is missing"),
    "no place": (lambda t: t.pop("light.lowest"), "tensor light.lowest is missing"),
    "another light": (
        lambda t: t.update({"light.coefficients": t["light.coefficients"][:8].clone()}),
        r"tensor light.coefficients is torch.float32 \(8, 3\), expected .*20",
    ),
    "infinite light": (
        lambda t: t.update({"light.coefficients": t["light.coefficients"] / 0}),
        "tensor light.coefficients holds numbers that are not finite",
    ),
    "skeleton": (lambda t: t.update(parents=at(t["parents"], 5, 9)), "no skeleton"),
    "nan": (lambda t: t.update(xyz=at(t["xyz"], (0, 0), float("nan"))), "tensor xyz holds numbers that are not finite"),
    "scale": (
        lambda t: t.update({"bank.weights.1.scale": at(t["bank.weights.1.scale"], (0, 0, 0), float("inf"))}),
        "bank.weights.1 holds numbers that are not finite",
    ),
}  # fmt: skip
METADATA = {
    "other": ({"format": "a cat"}, "a safetensors file of something else"),
    "version": ({"format_version": "7"}, "format version 7, this program reads 1"),
    "config": ({"config": None}, "its metadata lack config"),
    "json": ({"config": "{"}, "its settings do not fit this program"),
    "key": ({"config": json.dumps({"colour": 1})}, "its settings do not fit this program: .*colour"),
    "value": ({"config": json.dumps({"num_verts": 0})}, "num_verts: 0 is not allowed"),
    "old settings": ({"config": json.dumps({"num_verts": 120})}, "tensor bank.biases.3 is missing"),
    "iteration": ({"iteration": "-4"}, "iteration -4 is negative"),
}
SETTINGS = {
    "huge": ({"num_features": 10**6}, "mlp_inputs is .*expected .*1000000"),
    "too huge": ({"num_features": 10**9}, "num_features: 1000000000 is not allowed"),
    "wider": ({"hidden_widths": [64, 65]}, r"bank.weights.1 is torch.int8 \(10, 64, 64\), expected .*65"),
    "deeper": ({"hidden_widths": [64] * 3}, "tensor bank.biases.3 is missing"),
    "no layers": ({"hidden_widths": []}, "hidden_widths"),
    "inputs as published": ({"pose_inputs": "body"}, "tensor mlp_inputs is .*expected"),
    "dark": ({"light": "none"}, "tensor light.coefficients is unknown"),
    "another lamp": ({"light": "lamp"}, "light: lamp is not allowed"),
}


@pytest.mark.parametrize("fault", [*FAULTS, *METADATA, *SETTINGS])
def test_a_faulty_file_is_one_clear_line(fault, trained, tmp_path):
    path = write_former(tmp_path / "a.safetensors", trained)
    tensors, metadata = contents(path)
    if fault in FAULTS:
        change_it, message = FAULTS[fault]
        change_it(tensors)
    elif fault in METADATA:
        changes, message = METADATA[fault]
        metadata = {key: value for key, value in (metadata | changes).items() if value is not None}
    else:
        changes, message = SETTINGS[fault]
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | changes)
    safetensors.torch.save_file(tensors, path, metadata)
    assert_one_clear_line(load_compact, path, message)


CARRIED_FAULTS = {
    "half a frame": (lambda t: t.pop("frames.translations"), "tensor frames.translations is missing"),
    "half a template": (lambda t: t.pop("template.vertices"), "tensor template.vertices is missing"),
    "one frame less": (
        lambda t: t.update({"frames.numbers": t["frames.numbers"][1:].clone()}),
        r"tensor frames.numbers is torch.int32 \(29,\), expected .*30",
    ),
    "below 0": (
        lambda t: t.update({"frames.numbers": at(t["frames.numbers"], 3, -1)}), "frames.numbers points outside"
    ),
    "nowhere": (
        lambda t: t.update({"frames.translations": at(t["frames.translations"], (0, 1), float("nan"))}),
        "frames.translations holds numbers that are not finite",
    ),
    "far away": (
        lambda t: t.update({"frames.translations": at(t["frames.translations"], (0, 1), 1e6)}),
        "frames.translations holds places more than 1000 m from the origin",
    ),
    "flat": (
        lambda t: t.update({"frames.translations": t["frames.translations"][:, :2].clone()}),
        "tensor frames.translations is .*expected",
    ),
    "doubles": (
        lambda t: t.update({"template.vertices": t["template.vertices"].double()}),
        "tensor template.vertices is torch.float64",
    ),
    "corner": (
        lambda t: t.update({"template.faces": at(t["template.faces"], (2, 1), 8)}), "template.faces points outside 0..7"
    ),
    "no triangle": (
        lambda t: t.update({"template.faces": t["template.faces"][:0].clone()}), "a template without triangles"
    ),
    "no vertex": (
        lambda t: t.update({"template.vertices": t["template.vertices"][:0].clone()}), "template.faces points outside"
    ),
    "huge": (
        lambda t: t.update({"template.vertices": 1e9 * t["template.vertices"]}), "template.vertices holds places more"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CARRIED_FAULTS)
def test_what_is_carried_is_held_to_its_shape(fault, trained, tmp_path):
    path = write_former(tmp_path / "a.safetensors", trained, some_carried(trained))
    tensors, metadata = contents(path)
    change_it, message = CARRIED_FAULTS[fault]
    change_it(tensors)
    safetensors.torch.save_file(tensors, path, metadata)
    for load in (load_compact, load_carried):
        assert_one_clear_line(load, path, message)


@pytest.mark.parametrize("cameras", ["[", "7", "[7]", "[" * 100_000, '[{"id": NaN}]', " " * 2_000_000 + "[]"])
def test_cameras_of_a_faulty_file_are_one_clear_line(cameras, trained, tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"any": torch.ones(1)}, path, {"cameras": cameras})
    assert_one_clear_line(read_model_cameras, path, "cameras|list|w2c")


@pytest.mark.parametrize("length", [0, 5, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_one_clear_line(length, trained, tmp_path):
    path = write(tmp_path / "a.safetensors", trained)
    content = path.read_bytes()
    path.write_bytes(content[: length if length >= 1 else int(len(content) * length)])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_compact(path)


def with_entry(metadata: dict[str, str], name: str, **changes) -> None:
    entries = json.loads(metadata["tensors"])
    entries[name] |= changes
    metadata["tensors"] = json.dumps(entries)


def exchange(tensors, metadata, name: str, array: np.ndarray) -> None:
    """Another array in place of the one that is there."""
    new = packed(array)
    tensors[name] = torch.frombuffer(bytearray(new.data), dtype=torch.uint8)
    entries = json.loads(metadata["tensors"])
    metadata["tensors"] = json.dumps(entries | {name: new.entry() | {"shifted": entries[name]["shifted"]}})


NEW_FAULTS = {
    "missing": (lambda t, m: t.pop("quats"), "tensor quats is missing"),
    "no scale": (lambda t, m: t.pop("quats.scale"), "tensor quats.scale is missing"),
    "unknown": (lambda t, m: t.update(extra=t["quats"].clone()), "tensor extra is unknown"),
    "plain": (lambda t, m: t.update(sh0=torch.ones(600, 3)), "tensor sh0 is .*expected a stream"),
    "damaged": (lambda t, m: t.update(sh0=at(t["sh0"], slice(5, 50), 7)), "tensor sh0: its stream is"),
    "cut": (lambda t, m: t.update(sh0=t["sh0"][:-9].clone()), "tensor sh0: its stream is"),
    "longer": (lambda t, m: t.update(sh0=torch.cat([t["sh0"], t["sh0"]])), "tensor sh0: its stream is"),
    "no entries": (lambda t, m: m.pop("tensors"), "`tensors` are no JSON"),
    "a list": (lambda t, m: m.update(tensors="[1]"), "`tensors` are no JSON object"),
    "deep": (lambda t, m: m.update(tensors="[" * 100_000), "`tensors` are no JSON"),
    "entry": (lambda t, m: m.update(tensors="{}"), "tensor shift: it is described by no entry"),
    "type": (lambda t, m: with_entry(m, "sh0", type="u64"), "tensor sh0: it is described by no entry"),
    "type's type": (lambda t, m: with_entry(m, "sh0", type=[]), "tensor sh0: it is described by no entry"),
    "another type": (lambda t, m: with_entry(m, "joints", type="i32"), "tensor joints is of type i32"),
    "shape": (lambda t, m: with_entry(m, "sh0", shape=[599, 3]), "tensor sh0: its stream is not of"),
    "huge": (lambda t, m: with_entry(m, "sh0", shape=[2**30, 2**30]), "tensor sh0: .*larger than any"),
    "negative": (lambda t, m: with_entry(m, "sh0", shape=[-600, -3]), "tensor sh0: .*no list of sizes"),
    "delta": (lambda t, m: with_entry(m, "sh0", delta=1), "tensor sh0: .*must be true or false"),
    "unshifted": (lambda t, m: with_entry(m, "sh0", shifted=False), "tensor sh0: .*shifted must be true"),
    "scale": (lambda t, m: exchange(t, m, "sh0.scale", np.ones((2, 3), np.float32)), "sh0.scale is .* does not fit"),
    "infinite": (
        lambda t, m: exchange(t, m, "sh0.scale", np.full((1, 3), np.inf, np.float32)), "sh0 holds numbers that are not"
    ),
    "whole scale": (lambda t, m: exchange(t, m, "sh0.scale", np.ones((1, 3), int)), "sh0.scale is of type u8"),
    "shift": (lambda t, m: exchange(t, m, "shift", np.full(600, 9)), "shift points outside 0..4"),
    "shifts": (lambda t, m: exchange(t, m, "shift", np.zeros(599, int)), "sh1?0?.* more Gaussians than there are"),
    "joint": (
        lambda t, m: exchange(t, m, "lbs_weights.index", np.full((600, 4), 55)), "index points outside 0..54"
    ),
    "joints": (
        lambda t, m: exchange(t, m, "lbs_weights.index", np.zeros((600, 3), int)), "must have a column less"
    ),
    "weights": (
        lambda t, m: exchange(t, m, "lbs_weights.weight", np.full((600, 3), 255)), "lbs_weights.weight holds negative"
    ),
    "skeleton": (lambda t, m: exchange(t, m, "parents", np.arange(55)), "no skeleton"),
    "frames": (lambda t, m: exchange(t, m, "frames.numbers", np.arange(29)), "frames.numbers is .*expected .*30"),
    "corner": (
        lambda t, m: exchange(t, m, "template.faces", np.full((12, 3), 8)), "template.faces points outside 0..7"
    ),
    "large": (
        lambda t, m: exchange(t, m, "log_scales.offset", np.full((1, 3), 8e37, np.float32)), "of more than 1000 m"
    ),
    "far away": (
        lambda t, m: exchange(t, m, "frames.translations.scale", np.full((1, 1), 1e6, np.float32)), "more than 1000 m"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", NEW_FAULTS)
def test_a_faulty_file_of_streams_is_one_clear_line(fault, trained, tmp_path):
    path = write(tmp_path / "a.safetensors", trained, some_carried(trained))
    tensors, metadata = contents(path)
    change_it, message = NEW_FAULTS[fault]
    change_it(tensors, metadata)
    safetensors.torch.save_file(tensors, path, metadata)
    loads = [load_compact]
    if fault in ("frames", "corner", "far away", "no entries", "deep"):
        loads.append(load_carried)
    for load in loads:
        assert_one_clear_line(load, path, message)
