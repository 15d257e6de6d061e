"""The avatar: from a pose to posed Gaussians (paper sec. 3).

Data path: pose -> MLP bank -> coefficients at Gaussians and control points -> offset bases -> canonical
Gaussians -> skinning -> PosedGaussians. Cameras come later, in render.

Shape letters: N Gaussians, C control points, A anchors, J joints, K bases of properties, L of positions.
Only the first P Gaussians have property bases, and the first Q of these bases of degree-1 colour. In training all
have them (P = Q = N); a compact avatar (export/) has put the Gaussians that vary first and pruned the others' bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmlphuman.avatar.light import FUNCTIONS, SceneLight
from mmlphuman.avatar.mlp_bank import MLPBank
from mmlphuman.avatar.neighbours import Interpolation, InterpolationTable
from mmlphuman.avatar.offset_bases import add_to_first, blend_bases, covariance_factors
from mmlphuman.avatar.pose_inputs import body_inputs, inputs_of
from mmlphuman.avatar.state import PROPERTIES
from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics, rigid_inverse
from mmlphuman.types import CanonicalGaussians, Pose, PosedGaussians, upper_triangles

COLOR, LOG_SCALE, QUAT, OPACITY = slice(0, 3), slice(3, 6), slice(6, 10), slice(10, 11)


@dataclass(frozen=True)
class ActiveParts:
    """What the schedule has switched on so far; a finished avatar uses everything."""

    position_bases: bool = True
    property_bases: bool = True
    sh1: bool = True


@dataclass(frozen=True)
class AvatarLayout:
    """Everything about an avatar that training does not change. All positions in the canonical pose, metres."""

    xyz: Tensor  # (N, 3) rest positions
    lbs_weights: Tensor  # (N, J)
    gaussian_to_anchor: Interpolation  # (P, 3) of the Gaussians that have bases
    gaussian_to_control: Interpolation  # (N, 3)
    control_to_anchor: Interpolation  # (C, 3)
    control_neighbours: Tensor  # (C, 7) indices, itself first
    joints: Tensor  # (J, 3) in the T-pose
    parents: Tensor  # (J,)
    canonical_transforms: Tensor  # (J, 4, 4) T-pose to canonical pose
    initial_log_scales: Tensor  # (N,)
    mlp_inputs: Tensor | None = None  # (I,) or (A, I) see pose_inputs; None: all of the body's
    normals: Tensor | None = None  # (N, 3) unit, only where there is a light
    places: Tensor | None = None  # (2, 3) lowest and highest translation in training, likewise


@dataclass(frozen=True)
class PropertyOffsets:
    """What a pose adds to the first Gaussians' neutral properties, before the activations."""

    properties: Tensor  # (P, 11) see COLOR, LOG_SCALE, QUAT, OPACITY
    sh1: Tensor | None  # (Q, 3, 3); None before degree 1 is switched on


@dataclass(frozen=True)
class AvatarOutput:
    posed: PosedGaussians
    scales: Tensor  # (N, 3) metres, for the scale penalty
    control_offsets: Tensor  # (C, 3) for the smoothness penalty
    # Only where GPU kernels pose the avatar: what went into each layer of the MLP bank, and the coefficients (A, K + L)
    # that came out. The optimiser forms the large parameters' gradients from them (gpu.pose_rows).
    activations: tuple[Tensor, ...] = ()


class Avatar(nn.Module):
    """A clothed person as 3D Gaussians that a pose moves and changes (paper sec. 3).

    `forward` is the method, a stage a line: the MLP bank maps the pose to coefficients at A anchors
    (`coefficients`); interpolated by position they blend position bases of the control points
    (`offset_control_points`) and property bases of the Gaussians (`canonical_gaussians`); linear blend
    skinning takes the result from the canonical pose to the world (`skinning_transforms`,
    `pose_gaussians`). Each stage's docstring gives its formula. Whoever needs a part of it (export, the
    speed test) calls the stages; gpu.fused_avatar does the same by GPU kernels.

    Parameters are the neutral properties, all bases and the MLPs; buffers hold the AvatarLayout, so that a
    state_dict is all that drawing needs.
    """

    xyz: Tensor
    lbs_weights: Tensor
    control_neighbours: Tensor
    joints: Tensor
    parents: Tensor
    canonical_inverse: Tensor
    mlp_inputs: Tensor
    normals: Tensor

    def __init__(
        self,
        layout: AvatarLayout,
        num_anchors: int,
        num_gsparam_bases: int = 15,
        num_position_bases: int = 15,
        xyz_offset_range: float = 0.008,
        hidden_widths: Sequence[int] = (512, 256, 256, 256),
        light: str = "none",
        seed: int = 0,
    ):
        """light: a name in light.FUNCTIONS."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.xyz_offset_range = xyz_offset_range
        self.num_gsparam_bases = num_gsparam_bases
        for name in ("xyz", "lbs_weights", "control_neighbours", "joints", "parents"):
            self.register_buffer(name, getattr(layout, name))
        self.register_buffer("canonical_inverse", rigid_inverse(layout.canonical_transforms))
        self.gaussian_to_anchor = InterpolationTable(layout.gaussian_to_anchor)
        self.gaussian_to_control = InterpolationTable(layout.gaussian_to_control)
        self.control_to_anchor = InterpolationTable(layout.control_to_anchor)
        self.bone_parents = tuple(layout.parents.tolist())

        points, controls = len(layout.xyz), len(layout.control_to_anchor.index)
        varying = len(layout.gaussian_to_anchor.index)
        self.sh0 = nn.Parameter(torch.zeros(points, 3))  # 0.5 grey
        self.sh1 = nn.Parameter(torch.zeros(points, 3, 3))
        self.log_scales = nn.Parameter(layout.initial_log_scales[:, None].repeat(1, 3))
        self.quats = nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(points, 1))
        self.opacity_logits = nn.Parameter(torch.full((points,), INITIAL_OPACITY).logit())
        self.xyz_offsets = nn.Parameter(torch.zeros(points, 3))
        self.control_offsets = nn.Parameter(torch.zeros(controls, 3))

        def shared_vector(bases: int, size: int) -> Tensor:
            return torch.empty(1, bases, size).uniform_(-INITIAL_BASIS, INITIAL_BASIS, generator=generator)

        self.property_bases = nn.Parameter(shared_vector(num_gsparam_bases, PROPERTIES).repeat(varying, 1, 1))
        self.sh1_bases = nn.Parameter(torch.zeros(varying, num_gsparam_bases, 9))
        self.position_bases = nn.Parameter(shared_vector(num_position_bases, 3).repeat(controls, 1, 1))
        inputs = body_inputs() if layout.mlp_inputs is None else layout.mlp_inputs
        self.register_buffer("mlp_inputs", inputs)
        outputs = num_gsparam_bases + num_position_bases
        self.bank = MLPBank(num_anchors, inputs.shape[-1], hidden_widths, outputs, generator)
        self.light: SceneLight | None = None
        if functions := FUNCTIONS[light]:
            assert layout.normals is not None and layout.places is not None, (
                "a light needs normals and places"
            )
            self.register_buffer("normals", layout.normals)
            self.light = SceneLight(functions, *layout.places)

    @property
    def is_compact(self) -> bool:
        """Whether what only training needs has been left out; such an avatar can be drawn, not trained."""
        return len(self.control_neighbours) == 0

    def forward(
        self, pose: Pose, active: ActiveParts = ActiveParts(), features: Tensor | None = None
    ) -> AvatarOutput:
        """Poses the avatar once, for any number of cameras.

        features: (175,) what the MLPs see instead of the pose's own numbers (novel poses brought into the
        training poses' range); skinning always follows `pose`. A gradient to the pose comes by skinning alone.
        """
        coefficients = self.coefficients(pose.features.detach() if features is None else features, active)
        control_offsets = self.offset_control_points(coefficients, active)
        canonical = self.canonical_gaussians(coefficients, control_offsets, active)
        posed = self.pose_gaussians(canonical, self.skinning_transforms(pose), pose)
        return AvatarOutput(posed, canonical.scales, control_offsets)

    def coefficients(self, features: Tensor, active: ActiveParts) -> Tensor | None:
        """(A, K + L) outputs of every anchor's MLP, z_a = MLP_a(what it sees of the features (175,)), or None before
        anything uses them.

        The first K columns are coefficients of the property bases, the other L of the position bases.
        """
        if not (active.position_bases or active.property_bases):
            return None
        return self.bank(inputs_of(features, self.mlp_inputs))

    def offset_control_points(self, coefficients: Tensor | None, active: ActiveParts) -> Tensor:
        """(C, 3) displacement of every control point in the canonical pose: d_c + sum_l z_cl B_cl.

        d_c is its neutral offset, B_cl (3,) its position bases, and z_c the mean of the 3 nearest anchors'
        coefficients, weighted by 1 / distance.
        """
        if not active.position_bases:
            return self.control_offsets
        assert coefficients is not None, "there are some as soon as any bases are switched on"
        at_controls = self.control_to_anchor(coefficients[:, self.num_gsparam_bases :])
        return self.control_offsets + blend_bases(at_controls, self.position_bases)

    def canonical_gaussians(
        self, coefficients: Tensor | None, control_offsets: Tensor, active: ActiveParts
    ) -> CanonicalGaussians:
        """Neutral properties plus blended offset bases, then the activations."""
        return self.apply_offsets(self.property_offsets(coefficients, active), control_offsets, active)

    def property_offsets(self, coefficients: Tensor | None, active: ActiveParts) -> PropertyOffsets | None:
        """The blended offset bases sum_k z_nk B_nk, linear in the coefficients (A, K + L); None before they are
        switched on.

        B_nk (11 + 9,) are the Gaussian's bases, and z_n the mean of the 3 nearest anchors' coefficients,
        weighted by 1 / distance.
        """
        if not active.property_bases:
            return None
        assert coefficients is not None, "there are some as soon as any bases are switched on"
        at_gaussians = self.gaussian_to_anchor(coefficients[:, : self.num_gsparam_bases])
        properties = blend_bases(at_gaussians, self.property_bases)
        if not active.sh1:
            return PropertyOffsets(properties, None)
        sh1 = blend_bases(at_gaussians[: len(self.sh1_bases)], self.sh1_bases)
        return PropertyOffsets(properties, sh1.unflatten(1, (3, 3)))

    def apply_offsets(
        self, offsets: PropertyOffsets | None, control_offsets: Tensor, active: ActiveParts
    ) -> CanonicalGaussians:
        """exp, normalise and sigmoid of neutral + offset; the centre is x_n + v_n + r tanh(o_n).

        v_n is the mean of the 3 nearest control points' offsets, weighted by 1 / distance; the free offset o_n
        keeps a Gaussian within r = xyz_offset_range of the surface that control points move.
        """
        xyz = self.xyz + self.gaussian_to_control(control_offsets)
        xyz = xyz + self.xyz_offset_range * torch.tanh(self.xyz_offsets)
        sh0, log_scales, quats, opacity_logits = self.sh0, self.log_scales, self.quats, self.opacity_logits
        sh1 = self.sh1 if active.sh1 else torch.zeros_like(self.sh1)
        if offsets is not None:
            delta = offsets.properties
            sh0 = add_to_first(sh0, delta[:, COLOR])
            log_scales = add_to_first(log_scales, delta[:, LOG_SCALE])
            quats = add_to_first(quats, delta[:, QUAT])
            opacity_logits = add_to_first(opacity_logits, delta[:, OPACITY][:, 0])
            if offsets.sh1 is not None:
                sh1 = add_to_first(sh1, offsets.sh1)
        return CanonicalGaussians(
            xyz=xyz,
            scales=log_scales.exp(),
            quats=nn.functional.normalize(quats, dim=-1),
            opacities=opacity_logits.sigmoid(),
            sh=torch.cat([sh0[:, None], sh1], 1),
        )

    def skinning_transforms(self, pose: Pose) -> Tensor:
        """(J, 4, 4) G_j = A_j(pose) A_j(canonical)^-1, with A_j the joints' transforms by forward kinematics."""
        return forward_kinematics(pose.joints, self.joints, self.bone_parents) @ self.canonical_inverse

    def pose_gaussians(self, canonical: CanonicalGaussians, skinning: Tensor, pose: Pose) -> PosedGaussians:
        """Linear blend skinning with T_n = sum_j w_nj G_j; its 3x3 part is no rotation, and is used as it is.

        Centres Rh T_n [x; 1] + Th, covariances (Rh T_n) R S S^T R^T (Rh T_n)^T, of the canonical rotation R
        and scales S and the pose's Rh and Th. Then the scene's light, if the avatar has one.
        """
        blended = blend_transforms(self.lbs_weights, skinning)  # (N, 4, 4)
        xyz = apply_transforms(blended, canonical.xyz) @ pose.rotation.T + pose.translation
        linear = pose.rotation @ blended[:, :3, :3]
        factors = linear @ covariance_factors(canonical.quats, canonical.scales)
        covariances = upper_triangles(factors @ factors.transpose(1, 2))
        # View directions turn with the body, and do not turn it.
        posed = PosedGaussians(xyz, covariances, canonical.opacities, canonical.sh, linear.detach())
        return posed if self.light is None else self.light(posed, self.normals, pose.translation)


INITIAL_OPACITY = 0.8
INITIAL_BASIS = 0.002
