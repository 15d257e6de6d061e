"""The avatar's per-Gaussian arithmetic as one GPU kernel forward and one backward (paper sec. 3).

Data path: coefficients at anchors + offsets of control points + skinning transforms -> PosedGaussians' arrays.
Plain twin: Avatar.canonical_gaussians followed by Avatar.pose_gaussians; tests compare values and gradients.
Transforms get a gradient where training corrects the pose: twelve numbers of each Gaussian, summed by its weights.

One lane is one Gaussian; everything between reading its bases and writing its posed properties stays in
registers. Bases are addressed by strides; they lie as (basis, channel, Gaussian), so that neighbouring lanes read
neighbouring numbers.

Shape letters: N Gaussians, the first P of them with property bases, the first Q of these with bases of degree-1
colour, K bases, A anchors, C control points, J joints, S joints that move a Gaussian at most.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.gpu.interpolation import WARPS, coefficient, three
from mmlphuman.gpu.tables import BLOCK, FusedTables

TRANSFORMS = 11  # place of the skinning transforms among PosingFunction's inputs


@triton.jit
def _rotation(w, x, y, z):
    """Rows of the rotation of a unit quaternion."""
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@triton.jit
def _product(a0, a1, a2, a3, a4, a5, a6, a7, a8, b0, b1, b2, b3, b4, b5, b6, b7, b8):
    """3 x 3 matrices, row by row."""
    return (
        a0 * b0 + a1 * b3 + a2 * b6, a0 * b1 + a1 * b4 + a2 * b7, a0 * b2 + a1 * b5 + a2 * b8,
        a3 * b0 + a4 * b3 + a5 * b6, a3 * b1 + a4 * b4 + a5 * b7, a3 * b2 + a4 * b5 + a5 * b8,
        a6 * b0 + a7 * b3 + a8 * b6, a6 * b1 + a7 * b4 + a8 * b7, a6 * b2 + a7 * b5 + a8 * b8,
    )  # fmt: skip


@triton.jit
def _number(at, mask):
    return tl.load(at, mask, 0.0).to(tl.float32)


@triton.jit
def _load3(at, step, mask):
    return _number(at, mask), _number(at + step, mask), _number(at + 2 * step, mask)


@triton.jit
def _load4(at, step, mask):
    return (
        _number(at, mask), _number(at + step, mask), _number(at + 2 * step, mask), _number(at + 3 * step, mask)
    )  # fmt: skip


@triton.jit
def _load9(at, step, mask):
    a, b, c = _load3(at, step, mask)
    d, e, f = _load3(at + 3 * step, step, mask)
    g, h, i = _load3(at + 6 * step, step, mask)
    return a, b, c, d, e, f, g, h, i


@triton.jit
def _store3(at, step, a, b, c, mask):
    tl.store(at, a, mask)
    tl.store(at + step, b, mask)
    tl.store(at + 2 * step, c, mask)


@triton.jit
def _store4(at, step, a, b, c, d, mask):
    _store3(at, step, a, b, c, mask)
    tl.store(at + 3 * step, d, mask)


@triton.jit
def _store9(at, step, a, b, c, d, e, f, g, h, i, mask):
    _store3(at, step, a, b, c, mask)
    _store3(at + 3 * step, step, d, e, f, mask)
    _store3(at + 6 * step, step, g, h, i, mask)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def pose_forward(
    coefficients, width,  # (A, width), the first K columns are used
    anchor_index, anchor_weight,  # (3, P)
    property_bases, sh1_bases,  # (P, K, 11), (Q, K, 9), in any order of the dimensions: strides below
    sh0, sh1, log_scales, quats, opacity_logits, xyz_offsets, rest,  # (N, 3) (N, 9) (N, 3) (N, 4) (N) (N, 3) (N, 3)
    control_offsets, control_index, control_weight,  # (C, 3), (3, N), (3, N)
    lbs_joints, lbs_weights, lbs_counts, transforms,  # (S, N), (S, N), per block the S in use, (J, 12)
    out_xyz, out_covariance, out_opacity, out_sh, out_linear, out_scales, out_quats, out_canonical,
    N, P, Q, basis_n, basis_k, basis_d, sh1_n, sh1_k, sh1_d, offset_range,
    K: tl.constexpr, WITH_BASES: tl.constexpr, WITH_SH1: tl.constexpr, WITH_POSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes xyz (N, 3), covariance (N, 6: xx xy xz yy yz zz), opacity (N), sh (N, 12), linear (N, 9), scales (N, 3),
    and quats (N, 4) before they are normalised, where the backward pass begins; WITH_POSE also the canonical position
    (N, 3)."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    c0, c1, c2 = _load3(sh0 + 3 * n, 1, mask)
    s0, s1, s2 = _load3(log_scales + 3 * n, 1, mask)
    qw, qx, qy, qz = _load4(quats + 4 * n, 1, mask)
    o = _number(opacity_logits + n, mask)
    zero = tl.zeros([BLOCK], tl.float32)
    h0, h1, h2, h3, h4, h5, h6, h7, h8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    if WITH_SH1:
        h0, h1, h2, h3, h4, h5, h6, h7, h8 = _load9(sh1 + 9 * n, 1, mask)
    if WITH_BASES and tl.program_id(0) * BLOCK < P:
        own, own1 = n < P, n < Q
        i0, i1, i2 = three(anchor_index + n, P, own)
        w0, w1, w2 = three(anchor_weight + n, P, own)
        i0, i1, i2 = i0 * width, i1 * width, i2 * width
        for k in range(K):
            a = coefficient(coefficients, i0, i1, i2, w0, w1, w2, k, own)
            basis = property_bases + n * basis_n + k * basis_k
            b0, b1, b2 = _load3(basis, basis_d, own)
            c0, c1, c2 = c0 + a * b0, c1 + a * b1, c2 + a * b2
            b0, b1, b2 = _load3(basis + 3 * basis_d, basis_d, own)
            s0, s1, s2 = s0 + a * b0, s1 + a * b1, s2 + a * b2
            b0, b1, b2, b3 = _load4(basis + 6 * basis_d, basis_d, own)
            qw, qx, qy, qz = qw + a * b0, qx + a * b1, qy + a * b2, qz + a * b3
            o += a * _number(basis + 10 * basis_d, own)
            if WITH_SH1:
                basis1 = sh1_bases + n * sh1_n + k * sh1_k
                b0, b1, b2 = _load3(basis1, sh1_d, own1)
                h0, h1, h2 = h0 + a * b0, h1 + a * b1, h2 + a * b2
                b0, b1, b2 = _load3(basis1 + 3 * sh1_d, sh1_d, own1)
                h3, h4, h5 = h3 + a * b0, h4 + a * b1, h5 + a * b2
                b0, b1, b2 = _load3(basis1 + 6 * sh1_d, sh1_d, own1)
                h6, h7, h8 = h6 + a * b0, h7 + a * b1, h8 + a * b2

    # Canonical position: rest, free offset, interpolated offset of three control points.
    x, y, z = _load3(rest + 3 * n, 1, mask)
    f0, f1, f2 = _load3(xyz_offsets + 3 * n, 1, mask)
    x, y, z = x + offset_range * _tanh(f0), y + offset_range * _tanh(f1), z + offset_range * _tanh(f2)
    i0, i1, i2 = three(control_index + n, N, mask)
    w0, w1, w2 = three(control_weight + n, N, mask)
    d0, d1, d2 = _load3(control_offsets + 3 * i0, 1, mask)
    x, y, z = x + w0 * d0, y + w0 * d1, z + w0 * d2
    d0, d1, d2 = _load3(control_offsets + 3 * i1, 1, mask)
    x, y, z = x + w1 * d0, y + w1 * d1, z + w1 * d2
    d0, d1, d2 = _load3(control_offsets + 3 * i2, 1, mask)
    x, y, z = x + w2 * d0, y + w2 * d1, z + w2 * d2
    if WITH_POSE:
        _store3(out_canonical + 3 * n, 1, x, y, z, mask)

    # Skinning: the blended 3 x 4 transform, over as many joints as any lane of this block needs.
    m0, m1, m2, m3, m4, m5, m6, m7, m8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    t0, t1, t2 = zero, zero, zero
    for s in range(tl.load(lbs_counts + tl.program_id(0))):
        w = _number(lbs_weights + s * N + n, mask)
        row = transforms + 12 * tl.load(lbs_joints + s * N + n, mask, 0).to(tl.int32)
        b0, b1, b2, b3 = _load4(row, 1, mask)
        m0, m1, m2, t0 = m0 + w * b0, m1 + w * b1, m2 + w * b2, t0 + w * b3
        b0, b1, b2, b3 = _load4(row + 4, 1, mask)
        m3, m4, m5, t1 = m3 + w * b0, m4 + w * b1, m5 + w * b2, t1 + w * b3
        b0, b1, b2, b3 = _load4(row + 8, 1, mask)
        m6, m7, m8, t2 = m6 + w * b0, m7 + w * b1, m8 + w * b2, t2 + w * b3
    v0 = m0 * x + m1 * y + m2 * z + t0
    v1 = m3 * x + m4 * y + m5 * z + t1
    v2 = m6 * x + m7 * y + m8 * z + t2
    _store3(out_xyz + 3 * n, 1, v0, v1, v2, mask)

    # Covariance F F^T with F = linear R S.
    norm = tl.maximum(tl.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)  # as torch's normalize
    r0, r1, r2, r3, r4, r5, r6, r7, r8 = _rotation(qw / norm, qx / norm, qy / norm, qz / norm)
    e0, e1, e2 = tl.exp(s0), tl.exp(s1), tl.exp(s2)
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = _product(
        m0, m1, m2, m3, m4, m5, m6, m7, m8,
        r0 * e0, r1 * e1, r2 * e2, r3 * e0, r4 * e1, r5 * e2, r6 * e0, r7 * e1, r8 * e2,
    )  # fmt: skip
    at = out_covariance + 6 * n
    _store3(
        at, 1, g0 * g0 + g1 * g1 + g2 * g2, g0 * g3 + g1 * g4 + g2 * g5, g0 * g6 + g1 * g7 + g2 * g8, mask
    )
    _store3(
        at + 3, 1, g3 * g3 + g4 * g4 + g5 * g5, g3 * g6 + g4 * g7 + g5 * g8, g6 * g6 + g7 * g7 + g8 * g8, mask
    )

    tl.store(out_opacity + n, tl.sigmoid(o), mask)
    _store3(out_sh + 12 * n, 1, c0, c1, c2, mask)
    _store9(out_sh + 12 * n + 3, 1, h0, h1, h2, h3, h4, h5, h6, h7, h8, mask)
    _store9(out_linear + 9 * n, 1, m0, m1, m2, m3, m4, m5, m6, m7, m8, mask)
    _store3(out_scales + 3 * n, 1, e0, e1, e2, mask)
    _store4(out_quats + 4 * n, 1, qw, qx, qy, qz, mask)


@triton.jit
def pose_backward(
    property_bases, sh1_bases, xyz_offsets,  # as pose_forward
    linear, scales, quats, opacities, canonical,  # written by pose_forward
    grad_xyz, grad_covariance, grad_opacity, grad_sh, grad_scales,  # (N, 3) (N, 6) (N) (N, 12) (N, 3)
    d_coefficients,  # (K, N) of each Gaussian
    d_sh0, d_sh1, d_log_scales, d_quats, d_opacity_logits, d_xyz_offsets,  # as the parameters
    d_position,  # (N, 3) of the canonical position: what the control points get their share of
    d_blended,  # (N, 12) of the blended transform, WITH_POSE alone
    N, basis_n, basis_k, basis_d, sh1_n, sh1_k, sh1_d, offset_range,
    K: tl.constexpr, WITH_BASES: tl.constexpr, WITH_SH1: tl.constexpr, WITH_POSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For an avatar in training: every Gaussian has bases (P = Q = N)."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    m0, m1, m2, m3, m4, m5, m6, m7, m8 = _load9(linear + 9 * n, 1, mask)

    # Position.
    v0, v1, v2 = _load3(grad_xyz + 3 * n, 1, mask)
    p0 = m0 * v0 + m3 * v1 + m6 * v2
    p1 = m1 * v0 + m4 * v1 + m7 * v2
    p2 = m2 * v0 + m5 * v1 + m8 * v2
    _store3(d_position + 3 * n, 1, p0, p1, p2, mask)
    f0, f1, f2 = _load3(xyz_offsets + 3 * n, 1, mask)
    f0, f1, f2 = _tanh(f0), _tanh(f1), _tanh(f2)
    p0, p1, p2 = p0 * (1 - f0 * f0), p1 * (1 - f1 * f1), p2 * (1 - f2 * f2)
    _store3(d_xyz_offsets + 3 * n, 1, offset_range * p0, offset_range * p1, offset_range * p2, mask)

    # Covariance -> F = linear R S -> scales and rotation.
    qw, qx, qy, qz = _load4(quats + 4 * n, 1, mask)
    norm = tl.maximum(tl.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)
    qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
    r0, r1, r2, r3, r4, r5, r6, r7, r8 = _rotation(qw, qx, qy, qz)
    e0, e1, e2 = _load3(scales + 3 * n, 1, mask)
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = _product(
        m0, m1, m2, m3, m4, m5, m6, m7, m8,
        r0 * e0, r1 * e1, r2 * e2, r3 * e0, r4 * e1, r5 * e2, r6 * e0, r7 * e1, r8 * e2,
    )  # fmt: skip
    u0, u1, u2 = _load3(grad_covariance + 6 * n, 1, mask)
    u4, u5, u8 = _load3(grad_covariance + 6 * n + 3, 1, mask)
    u0, u4, u8 = 2 * u0, 2 * u4, 2 * u8  # dL/dF = (D + D^T) F, where D holds each pair's gradient once
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = _product(
        u0, u1, u2, u1, u4, u5, u2, u5, u8, g0, g1, g2, g3, g4, g5, g6, g7, g8
    )
    if WITH_POSE:  # dL/dF (R S)^T, and the position's share
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = _product(
            g0, g1, g2, g3, g4, g5, g6, g7, g8,
            r0 * e0, r3 * e0, r6 * e0, r1 * e1, r4 * e1, r7 * e1, r2 * e2, r5 * e2, r8 * e2,
        )  # fmt: skip
        x, y, z = _load3(canonical + 3 * n, 1, mask)
        at = d_blended + 12 * n
        _store4(at, 1, a0 + v0 * x, a1 + v0 * y, a2 + v0 * z, v0, mask)
        _store4(at + 4, 1, a3 + v1 * x, a4 + v1 * y, a5 + v1 * z, v1, mask)
        _store4(at + 8, 1, a6 + v2 * x, a7 + v2 * y, a8 + v2 * z, v2, mask)
    # dL/d(R S)
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = _product(
        m0, m3, m6, m1, m4, m7, m2, m5, m8, g0, g1, g2, g3, g4, g5, g6, g7, g8
    )
    k0, k1, k2 = _load3(grad_scales + 3 * n, 1, mask)
    s0 = (r0 * g0 + r3 * g3 + r6 * g6 + k0) * e0
    s1 = (r1 * g1 + r4 * g4 + r7 * g7 + k1) * e1
    s2 = (r2 * g2 + r5 * g5 + r8 * g8 + k2) * e2
    g0, g3, g6 = g0 * e0, g3 * e0, g6 * e0  # dL/dR
    g1, g4, g7 = g1 * e1, g4 * e1, g7 * e1
    g2, g5, g8 = g2 * e2, g5 * e2, g8 * e2
    bw = 2 * (-g1 * qz + g2 * qy + g3 * qz - g5 * qx - g6 * qy + g7 * qx)
    bx = 2 * (g1 * qy + g2 * qz + g3 * qy - 2 * g4 * qx - g5 * qw + g6 * qz + g7 * qw - 2 * g8 * qx)
    by = 2 * (-2 * g0 * qy + g1 * qx + g2 * qw + g3 * qx + g5 * qz - g6 * qw + g7 * qz - 2 * g8 * qy)
    bz = 2 * (-2 * g0 * qz - g1 * qw + g2 * qx + g3 * qw - 2 * g4 * qz + g5 * qy + g6 * qx + g7 * qy)
    along = bw * qw + bx * qx + by * qy + bz * qz
    bw, bx, by, bz = bw - qw * along, bx - qx * along, by - qy * along, bz - qz * along
    bw, bx, by, bz = bw / norm, bx / norm, by / norm, bz / norm

    opacity = _number(opacities + n, mask)
    o = _number(grad_opacity + n, mask) * opacity * (1 - opacity)
    c0, c1, c2 = _load3(grad_sh + 12 * n, 1, mask)
    _store3(d_sh0 + 3 * n, 1, c0, c1, c2, mask)
    _store3(d_log_scales + 3 * n, 1, s0, s1, s2, mask)
    _store4(d_quats + 4 * n, 1, bw, bx, by, bz, mask)
    tl.store(d_opacity_logits + n, o, mask)
    zero = tl.zeros([BLOCK], tl.float32)
    h0, h1, h2, h3, h4, h5, h6, h7, h8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    if WITH_SH1:
        h0, h1, h2, h3, h4, h5, h6, h7, h8 = _load9(grad_sh + 12 * n + 3, 1, mask)
        _store9(d_sh1 + 9 * n, 1, h0, h1, h2, h3, h4, h5, h6, h7, h8, mask)

    if WITH_BASES:
        for k in range(K):
            basis = property_bases + n * basis_n + k * basis_k
            b0, b1, b2 = _load3(basis, basis_d, mask)
            d = c0 * b0 + c1 * b1 + c2 * b2
            b0, b1, b2 = _load3(basis + 3 * basis_d, basis_d, mask)
            d += s0 * b0 + s1 * b1 + s2 * b2
            b0, b1, b2, b3 = _load4(basis + 6 * basis_d, basis_d, mask)
            d += bw * b0 + bx * b1 + by * b2 + bz * b3 + o * _number(basis + 10 * basis_d, mask)
            if WITH_SH1:
                basis1 = sh1_bases + n * sh1_n + k * sh1_k
                b0, b1, b2 = _load3(basis1, sh1_d, mask)
                d += h0 * b0 + h1 * b1 + h2 * b2
                b0, b1, b2 = _load3(basis1 + 3 * sh1_d, sh1_d, mask)
                d += h3 * b0 + h4 * b1 + h5 * b2
                b0, b1, b2 = _load3(basis1 + 6 * sh1_d, sh1_d, mask)
                d += h6 * b0 + h7 * b1 + h8 * b2
            tl.store(d_coefficients + k * N + n, d, mask)


class PosingFunction(torch.autograd.Function):
    """Avatar.canonical_gaussians and Avatar.pose_gaussians; the bases get no gradient, the pose's
    transforms get one if they ask for it."""

    @staticmethod
    def forward(
        ctx, coefficients, control_offsets, bases, sh1_bases, sh0, sh1, log_scales, quats, opacity_logits, xyz_offsets,
        rest, transforms, lbs_weights, tables: FusedTables, offset_range: float, active: ActiveParts,
    ):  # fmt: skip
        """Shapes as `pose_forward` says; bases in any memory order and precision; no coefficients before any are used.

        lbs_weights: (N, J), for the transforms' gradient. Returns xyz (N, 3), covariances (N, 6), opacities (N,), sh
        (N, 4, 3), linear (N, 3, 3) and scales (N, 3).
        """
        count, with_pose = len(rest), ctx.needs_input_grad[TRANSFORMS]
        shapes = ((3,), (6,), (), (4, 3), (3, 3), (3,), (4,))
        out = [torch.empty(count, *shape, device=rest.device) for shape in shapes]
        canonical = torch.empty(count if with_pose else 0, 3, device=rest.device)
        pose_forward[(triton.cdiv(count, BLOCK),)](
            coefficients, coefficients.shape[1] if coefficients is not None else 0,
            tables.anchor_index, tables.anchor_weight, bases, sh1_bases,
            sh0, sh1, log_scales, quats, opacity_logits, xyz_offsets, rest,
            control_offsets, tables.control_index, tables.control_weight,
            tables.lbs_joints, tables.lbs_weights, tables.lbs_counts, transforms, *out, canonical,
            count, len(bases), len(sh1_bases), *bases.stride(), *sh1_bases.stride(), offset_range,
            K=bases.shape[1], WITH_BASES=active.property_bases, WITH_SH1=active.sh1, WITH_POSE=with_pose,
            BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        xyz, covariances, opacities, sh, linear, scales, raw_quats = out
        ctx.save_for_backward(
            coefficients, bases, sh1_bases, xyz_offsets, linear, scales, raw_quats, opacities, canonical, lbs_weights
        )  # fmt: skip
        ctx.tables, ctx.offset_range, ctx.active = tables, offset_range, active
        ctx.controls = len(control_offsets)
        ctx.mark_non_differentiable(linear)
        return xyz, covariances, opacities, sh, linear, scales

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        coefficients, bases, sh1_bases, xyz_offsets, linear, scales, *written, lbs_weights = ctx.saved_tensors
        quats, opacities, canonical = written
        tables, active, count, bases_each = ctx.tables, ctx.active, len(xyz_offsets), bases.shape[1]
        assert len(bases) == len(sh1_bases) == count, "a compact avatar is not trained"
        grad_xyz, grad_covariance, grad_opacity, grad_sh, _, grad_scales = (
            grad.contiguous() for grad in grads
        )

        def like(*shape: int) -> Tensor:
            return torch.empty(count, *shape, device=xyz_offsets.device)

        each = torch.empty(bases_each, count, device=bases.device) if active.property_bases else bases
        d_sh0, d_sh1, d_log_scales, d_quats = like(3), like(3, 3), like(3), like(4)
        d_opacity, d_xyz_offsets, d_position = like(), like(3), like(3)
        with_pose = ctx.needs_input_grad[TRANSFORMS]
        d_blended = like(12) if with_pose else bases
        pose_backward[(triton.cdiv(count, BLOCK),)](
            bases, sh1_bases, xyz_offsets, linear, scales, quats, opacities, canonical,
            grad_xyz, grad_covariance, grad_opacity, grad_sh, grad_scales,
            each, d_sh0, d_sh1, d_log_scales, d_quats, d_opacity, d_xyz_offsets, d_position, d_blended,
            count, *bases.stride(), *sh1_bases.stride(), ctx.offset_range,
            K=bases_each, WITH_BASES=active.property_bases, WITH_SH1=active.sh1, WITH_POSE=with_pose,
            BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        d_coefficients = None
        if active.property_bases:
            d_coefficients = torch.zeros_like(coefficients)
            tables.anchor_transpose.sum_back(each, 1, count, d_coefficients, 0, bases_each)
        d_controls = torch.empty(ctx.controls, 3, device=bases.device)
        tables.control_transpose.sum_back(d_position, 3, 1, d_controls, 0, 3)
        given = (
            d_coefficients, d_controls, None, None,
            d_sh0, d_sh1 if active.sh1 else None, d_log_scales, d_quats, d_opacity, d_xyz_offsets,
        )  # fmt: skip
        d_transforms = None
        if (
            with_pose
        ):  # In double precision: single products may be of ten bits (TF32), and the moments cancel later.
            d_transforms = (lbs_weights.double().T @ d_blended.double()).float()
        return *given, None, d_transforms, None, None, None, None
