"""The avatar of one pose by the method's formulas, written out for one Gaussian at a time, in double precision.

Rotations, inverses and matrix products are numpy's and scipy's; the constants are spelled again. An avatar of random
numbers will do: no body, no capture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.avatar.avatar import ActiveParts, Avatar
from mmlphuman.avatar.trained import active_parts
from mmlphuman.config import default_config
from mmlphuman.types import Pose
from tests.builders import random_layout

GAUSSIANS, CONTROLS, ANCHORS = 12, 9, 4
# Whether an MLP has inputs of its own, widths between its layers, the light.
METHODS = {
    "published": (False, (512, 256, 256, 256), "none"),
    "local inputs": (True, (64, 64), "none"),
    "light of normals": (True, (64, 64), "normal"),
    "light of places": (True, (64, 64), "place"),
}


@pytest.fixture(scope="module", params=METHODS)
def avatar(request) -> Avatar:
    """Every number random, and of a size at which it counts."""
    generator = torch.Generator().manual_seed(0)
    local, hidden_widths, light = METHODS[request.param]
    layout = random_layout(generator, GAUSSIANS, CONTROLS, ANCHORS)
    if local:
        layout = replace(layout, mlp_inputs=torch.randint(0, 166, (ANCHORS, 7), generator=generator))
    avatar = Avatar(
        layout,
        ANCHORS,
        num_gsparam_bases=5,
        num_position_bases=4,
        hidden_widths=hidden_widths,
        light=light,
    )
    with torch.no_grad():
        for name, parameter in avatar.named_parameters():
            if name.startswith("light"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif not name.startswith("bank"):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
            elif "biases" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return avatar


@pytest.fixture(scope="module")
def pose() -> Pose:
    generator = torch.Generator().manual_seed(1)
    turn = Rotation.from_rotvec([0.4, -0.9, 0.3]).as_matrix()
    joints = 0.4 * torch.randn(165, generator=generator)
    return Pose(joints, torch.tensor([0.3, 1.2, -0.7]), torch.from_numpy(turn).float())


class Twin:
    """An avatar's numbers, from its state by their names, and what the method makes of them."""

    def __init__(self, avatar: Avatar):
        self.numbers = {name: value.double().numpy() for name, value in avatar.state_dict().items()}
        self.parents = self.numbers["parents"].astype(int)

    def coefficients(self, joints: np.ndarray) -> np.ndarray:
        """(A, 9): each anchor's MLP by itself; ReLU after every layer but the last."""
        rows, inputs = [], self.numbers["mlp_inputs"].astype(int)
        layers = sum(name.startswith("bank.weights") for name in self.numbers)
        for anchor in range(ANCHORS):
            own = range(3, 66) if inputs.ndim == 1 else inputs[anchor]
            x = np.array([0.0 if number == 165 else joints[number] for number in own])
            for layer in range(layers):
                weight, bias = (
                    self.numbers[f"bank.{part}.{layer}"][anchor] for part in ("weights", "biases")
                )
                x = weight @ x + bias
                x = np.maximum(x, 0) if layer < layers - 1 else x
            rows.append(x)
        return np.array(rows)

    def mean(self, table: str, row: int, values: np.ndarray) -> np.ndarray:
        index, weight = (self.numbers[f"{table}.{part}"][row] for part in ("index", "weight"))
        return sum(w * values[int(i)] for i, w in zip(index, weight, strict=True))

    def joint_transforms(self, joints: np.ndarray) -> np.ndarray:
        """(J, 4, 4) down the skeleton: turn about the joint's rest position, then as the parent moves."""
        transforms = []
        for joint, rest in enumerate(self.numbers["joints"]):
            own = np.eye(4)
            own[:3, :3] = Rotation.from_rotvec(joints[3 * joint : 3 * joint + 3]).as_matrix()
            own[:3, 3] = rest - own[:3, :3] @ rest
            parent = self.parents[joint]
            transforms.append(own if parent < 0 else transforms[parent] @ own)
        return np.array(transforms)

    def skinning(self, joints: np.ndarray) -> np.ndarray:
        apart = np.zeros(165)
        apart[5], apart[8] = np.deg2rad(25), np.deg2rad(-25)
        return self.joint_transforms(joints) @ np.linalg.inv(self.joint_transforms(apart))

    def control_offset(self, control: int, coefficients: np.ndarray) -> np.ndarray:
        own = self.mean("control_to_anchor", control, coefficients)
        bases = self.numbers["position_bases"][control]
        return self.numbers["control_offsets"][control] + sum(own[5 + k] * bases[k] for k in range(4))

    def shade(self, n: int, linear: np.ndarray, xyz: np.ndarray, translation: np.ndarray) -> np.ndarray:
        """(3,) of the light, 1 where there is none."""
        if "normals" not in self.numbers:
            return np.ones(3)
        x, y, z = (normal := linear @ self.numbers["normals"][n]) / np.linalg.norm(normal)
        functions = [x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
        lowest, highest = self.numbers["light.lowest"], self.numbers["light.highest"]
        nearest = np.minimum(np.maximum(translation, lowest), highest)
        for along in xyz - translation + nearest - (lowest + highest) / 2:
            functions += [along, along * x, along * y, along * z]
        coefficients = self.numbers["light.coefficients"]
        return np.maximum(1 + functions[: len(coefficients)] @ coefficients, 0.05)

    def gaussian(self, n: int, pose: Pose) -> dict[str, np.ndarray]:
        numbers, joints = self.numbers, pose.joints.double().numpy()
        coefficients = self.coefficients(joints)
        own = self.mean("gaussian_to_anchor", n, coefficients)
        sh0, log_scale = numbers["sh0"][n].copy(), numbers["log_scales"][n].copy()
        quaternion, logit = numbers["quats"][n].copy(), numbers["opacity_logits"][n]
        sh1 = numbers["sh1"][n].copy()
        for k in range(5):
            basis = numbers["property_bases"][n, k]  # degree-0 SH 3 | log-scale 3 | quaternion 4 | opacity 1
            sh0 += own[k] * basis[0:3]
            log_scale += own[k] * basis[3:6]
            quaternion += own[k] * basis[6:10]
            logit = logit + own[k] * basis[10]
            sh1 += own[k] * numbers["sh1_bases"][n, k].reshape(3, 3)  # a row a harmonic
        offsets = np.array([self.control_offset(control, coefficients) for control in range(CONTROLS)])
        rest = numbers["xyz"][n] + self.mean("gaussian_to_control", n, offsets)
        rest = rest + 0.008 * np.tanh(numbers["xyz_offsets"][n])

        blended = np.tensordot(numbers["lbs_weights"][n], self.skinning(joints), 1)
        turn, shift = pose.rotation.double().numpy(), pose.translation.double().numpy()
        linear = turn @ blended[:3, :3]
        rotation = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()  # scipy makes it unit
        size = np.diag(np.exp(log_scale))
        covariance = linear @ rotation @ size @ size.T @ rotation.T @ linear.T
        xyz = turn @ (blended @ np.append(rest, 1))[:3] + shift
        shade, grey = self.shade(n, linear, xyz, shift), 0.5 * 2 * np.sqrt(np.pi)  # in the unit of degree 0
        return {
            "xyz": xyz,
            "covariance": covariance,
            "opacity": 1 / (1 + np.exp(-logit)),
            "sh": np.vstack([(sh0 + grey) * shade - grey, sh1 * shade]),
            "linear": linear,
            "scale": np.exp(log_scale),
        }


def matrix_of(six: torch.Tensor) -> np.ndarray:
    xx, xy, xz, yy, yz, zz = six.tolist()
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def test_posed_gaussians_equal_the_formulas(avatar, pose):
    with torch.no_grad():
        output, twin = avatar(pose), Twin(avatar)
    coefficients = twin.coefficients(pose.joints.double().numpy())
    for control in range(CONTROLS):
        expected = twin.control_offset(control, coefficients)
        np.testing.assert_allclose(output.control_offsets[control].numpy(), expected, rtol=1e-4, atol=1e-5)
    posed = output.posed
    for n in range(GAUSSIANS):
        expected = twin.gaussian(n, pose)
        found = {
            "xyz": posed.xyz[n].numpy(),
            "covariance": matrix_of(posed.covariances[n]),
            "opacity": posed.opacities[n].numpy(),
            "sh": posed.sh[n].numpy(),
            "linear": posed.linear[n].numpy(),
            "scale": output.scales[n].numpy(),
        }
        for name, value in expected.items():
            about = f"{name} of Gaussian {n}"
            np.testing.assert_allclose(
                found[name], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=about
            )


def test_parts_that_are_off_add_nothing(avatar, pose):
    """Each of the three switches by itself."""
    with torch.no_grad():
        for bases_of_positions, bases_of_properties, degree_one in np.ndindex(2, 2, 2):
            active = ActiveParts(bool(bases_of_positions), bool(bases_of_properties), bool(degree_one))
            output = avatar(pose, active)
            neutral = torch.equal(output.control_offsets, avatar.control_offsets)
            assert neutral == (not bases_of_positions)
            assert torch.equal(output.scales, avatar.log_scales.exp()) == (not bases_of_properties)
            assert bool(output.posed.sh[:, 1:].any()) == bool(degree_one)
            if degree_one and avatar.light is None:
                assert torch.equal(output.posed.sh[:, 1:], avatar.sh1) == (not bases_of_properties)


def test_a_new_avatar_starts_as_the_method_says():
    layout = random_layout(torch.Generator().manual_seed(2), GAUSSIANS, CONTROLS, ANCHORS)
    avatar = Avatar(layout, ANCHORS, seed=3)
    torch.testing.assert_close(avatar.opacity_logits.detach(), torch.full((GAUSSIANS,), np.log(0.8 / 0.2)))
    torch.testing.assert_close(avatar.log_scales.detach(), layout.initial_log_scales[:, None].expand(-1, 3))
    assert avatar.quats.tolist() == [[1, 0, 0, 0]] * GAUSSIANS
    assert avatar.xyz_offset_range == 0.008
    assert not any(
        each.any() for each in (avatar.sh0, avatar.sh1, avatar.xyz_offsets, avatar.control_offsets)
    )
    for bases in (avatar.property_bases.detach(), avatar.position_bases.detach()):  # uniform in +-0.002
        assert 0.0019 < bases.max() <= 0.002 and -0.002 <= bases.min() < -0.0018
        assert bases.std().item() == pytest.approx(0.002 / 3**0.5, rel=0.15)
    for weights, biases in zip(avatar.bank.weights, avatar.bank.biases, strict=True):
        bound = weights.shape[2] ** -0.5
        for numbers in (weights.detach(), biases.detach()):
            assert 0.98 * bound < numbers.max() <= bound and -bound <= numbers.min() < -0.98 * bound
            assert numbers.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_parts_join_at_their_own_iterations():
    config = default_config(iteration_dxyz_basis=10, iteration_gsparam_basis=20, iteration_sh_degree=30)
    for iteration, expected in {
        9: (False, False, False), 10: (True, False, False), 19: (True, False, False),
        20: (True, True, False), 29: (True, True, False), 30: (True, True, True),
    }.items():  # fmt: skip
        assert active_parts(config, iteration) == ActiveParts(*expected), iteration
