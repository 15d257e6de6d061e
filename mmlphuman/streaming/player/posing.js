/* Poses an avatar: mmlphuman/avatar/ in JavaScript, on typed arrays, for a browser's worker and as the GPU's twin.

Pose -> features -> what each MLP sees -> coefficients at anchors -> control points' offsets -> Gaussians in the world.
A pose is {joints (165), expression (10), translation (3), rotation (9, optional)}; shape letters as in avatar_file.js.
The stages' formulas stand in avatar/avatar.py; here they follow its order and names. */

import { NOTHING, widthOf } from "./avatar_file.js";

const BODY_START = 3, BODY_DIM = 63, POSE_DIM = 165, FEATURES = 176; // 165 of joints, a zero, 10 of expression
const MIN_SIGMA = 1e-6;
const DARKEST = 0.05, GREY = 0.5 / 0.28209479177387814; // light.py
const HIP_ANGLE = 25 * Math.PI / 180;
export const IDENTITY = [1, 0, 0, 0, 1, 0, 0, 0, 1];

/* One posed Gaussian, as all renderers take it: 32 floats, the first of each at these places. */
export const STRIDE = 32, OPACITY = 3, COVARIANCE = 4, SH0 = 10, LINEAR = 13, SH1 = 22;

/* No joint turned but the hips: the "big" pose, in which an avatar is built. */
export function canonicalPose() {
  const joints = Array(POSE_DIM).fill(0);
  joints[5] = HIP_ANGLE;
  joints[8] = -HIP_ANGLE;
  return joints;
}

// --- what the MLPs see -------------------------------------------------------------------------------------

/* (176,) the pose's numbers; project: brought into training's range, as --test does. */
export function featuresOf(avatar, pose, project) {
  const features = new Float32Array(FEATURES);
  features.set(pose.joints);
  features.set(pose.expression, NOTHING + 1);
  if (project && avatar.config.novel_poses === "pca") projectBody(avatar, features);
  else if (project) clampToTraining(avatar, features);
  return features;
}

function clampToTraining({ range: { lowest, highest } }, features) {
  for (let i = 0; i < lowest.length; i += 1) {
    const place = i < NOTHING ? i : i + 1;
    features[place] = Math.min(Math.max(features[place], lowest[i]), highest[i]);
  }
}

function projectBody({ arrays, sizes, config }, features) {
  const mean = arrays["pose_space.mean"], components = arrays["pose_space.components"];
  const body = Float64Array.from(mean);
  for (let m = 0; m < sizes.M; m += 1) {
    const row = components.subarray(m * BODY_DIM, (m + 1) * BODY_DIM);
    const bound = config.pca_sigmas * Math.max(arrays["pose_space.sigmas"][m], MIN_SIGMA);
    let coefficient = 0;
    for (let i = 0; i < BODY_DIM; i += 1) coefficient += row[i] * (features[BODY_START + i] - mean[i]);
    coefficient = Math.min(Math.max(coefficient, -bound), bound);
    for (let i = 0; i < BODY_DIM; i += 1) body[i] += coefficient * row[i];
  }
  features.set(body, BODY_START);
}

/* (A, I) what each MLP gets. */
export function inputsOf({ arrays, sizes }, features) {
  const { A, I } = sizes, index = arrays.mlp_inputs, own = index.length > I;
  const inputs = new Float32Array(A * I);
  for (let i = 0; i < inputs.length; i += 1) inputs[i] = features[index[own ? i : i % I]];
  return inputs;
}

// --- skeleton ----------------------------------------------------------------------------------------------

/* (J, 3, 4) Rh G_j and its translation, Th included: skinning weights sum to one, so the world's turn and place go with
every joint. */
export function skinningTransforms({ arrays, sizes }, pose) {
  const { joints, parents, canonical_inverse: canonical } = arrays;
  const world = new Float64Array(12 * sizes.J), skinning = new Float32Array(12 * sizes.J);
  const root = [...(pose.rotation ?? IDENTITY)];
  const placed = [0, 1, 2].map((row) => [...root.slice(3 * row, 3 * row + 3), pose.translation[row]]).flat();
  for (let joint = 0; joint < sizes.J; joint += 1) {
    const parent = parents[joint];
    const bone = [0, 1, 2].map((axis) => joints[3 * joint + axis] - (parent < 0 ? 0 : joints[3 * parent + axis]));
    const turn = rotationMatrix(pose.joints, 3 * joint);
    const local = [0, 1, 2].map((row) => [turn[3 * row], turn[3 * row + 1], turn[3 * row + 2], bone[row]]).flat();
    const above = parent < 0 ? placed : world.subarray(12 * parent, 12 * parent + 12);
    multiply(above, local, world, 12 * joint);
  }
  for (let joint = 0; joint < sizes.J; joint += 1) {
    const at = world.slice(12 * joint, 12 * joint + 12);
    for (let row = 0; row < 3; row += 1) { // about the joint's rest position
      for (let axis = 0; axis < 3; axis += 1) at[4 * row + 3] -= at[4 * row + axis] * joints[3 * joint + axis];
    }
    multiply(at, canonical.subarray(16 * joint, 16 * joint + 12), skinning, 12 * joint);
  }
  return skinning;
}

/* (3, 3) of an axis-angle vector at a place of an array. */
function rotationMatrix(vectors, at) {
  const x = vectors[at], y = vectors[at + 1], z = vectors[at + 2];
  const squared = x * x + y * y + z * z, angle = Math.sqrt(squared), small = squared < 1e-8;
  const sine = small ? 1 - squared / 6 : Math.sin(angle) / angle;
  const versine = small ? 0.5 - squared / 24 : (1 - Math.cos(angle)) / squared;
  return [
    1 - versine * (y * y + z * z), versine * x * y - sine * z, versine * x * z + sine * y,
    versine * x * y + sine * z, 1 - versine * (x * x + z * z), versine * y * z - sine * x,
    versine * x * z - sine * y, versine * y * z + sine * x, 1 - versine * (x * x + y * y),
  ];
}

/* (3, 4) affine a times b into `out` at a place. */
function multiply(a, b, out, at) {
  for (let row = 0; row < 3; row += 1) {
    for (let column = 0; column < 4; column += 1) {
      let sum = column === 3 ? a[4 * row + 3] : 0;
      for (let k = 0; k < 3; k += 1) sum += a[4 * row + k] * b[4 * k + column];
      out[at + 4 * row + column] = sum;
    }
  }
}

// --- MLPs and control points -------------------------------------------------------------------------------

/* (A, I) -> (A, O) coefficients. */
export function runBank({ arrays, sizes, config }, inputs) {
  let hidden = inputs, fanIn = sizes.I;
  const last = config.hidden_widths.length;
  for (let layer = 0; layer <= last; layer += 1) {
    const { values, scales } = arrays[`bank.weights.${layer}`], biases = arrays[`bank.biases.${layer}`];
    const fanOut = widthOf(config, sizes, layer);
    const next = new Float32Array(sizes.A * fanOut);
    for (let row = 0; row < next.length; row += 1) {
      const from = Math.floor(row / fanOut) * fanIn, weights = row * fanIn;
      let sum = 0;
      for (let i = 0; i < fanIn; i += 1) sum += values[weights + i] * hidden[from + i];
      sum = biases[row] + scales[row] * sum;
      next[row] = layer < last ? Math.max(sum, 0) : sum;
    }
    hidden = next;
    fanIn = fanOut;
  }
  return hidden;
}

/* (C, 3) displacement of every control point in the canonical pose. */
export function controlOffsets({ arrays, sizes, active }, coefficients) {
  const offsets = arrays.control_offsets.slice();
  if (!active.positions) return offsets;
  const { C, K, L, O } = sizes, bases = arrays.position_bases;
  const index = arrays["control_to_anchor.index"], weight = arrays["control_to_anchor.weight"];
  for (let c = 0; c < C; c += 1) {
    for (let l = 0; l < L; l += 1) {
      let z = 0;
      for (let i = 3 * c; i < 3 * c + 3; i += 1) z += weight[i] * coefficients[index[i] * O + K + l];
      const basis = (c * L + l) * 3;
      for (let axis = 0; axis < 3; axis += 1) offsets[3 * c + axis] += z * bases[basis + axis];
    }
  }
  return offsets;
}

// --- Gaussians ---------------------------------------------------------------------------------------------

/* Everything at once: (N, STRIDE) posed Gaussians, those of `out` if it is given. */
export function poseAvatar(avatar, pose, project, out) {
  const coefficients = runBank(avatar, inputsOf(avatar, featuresOf(avatar, pose, project)));
  const offsets = controlOffsets(avatar, coefficients);
  return poseGaussians(avatar, coefficients, offsets, skinningTransforms(avatar, pose), placeShift(avatar, pose), out);
}

/* (3,) what takes a Gaussian's place to the light's: in the room as training saw it, about its middle. */
export function placeShift({ arrays, config }, pose) {
  if (config.light !== "place") return [0, 0, 0];
  const lowest = arrays["light.lowest"], highest = arrays["light.highest"];
  return [...pose.translation].map((value, axis) => {
    const inside = Math.min(Math.max(value, lowest[axis]), highest[axis]);
    return inside - value - (lowest[axis] + highest[axis]) / 2;
  });
}

export function poseGaussians(avatar, coefficients, offsets, transforms, shift, out) {
  const { arrays, sizes, active } = avatar;
  const { N, P, Q, S, K, O } = sizes;
  const posed = out ?? new Float32Array(N * STRIDE);
  const { xyz, sh0, sh1, log_scales: logScales, quats, opacity_logits: logits } = arrays;
  const properties = arrays.property_bases, sh1Bases = arrays.sh1_bases;
  const anchors = arrays["gaussian_to_anchor.index"], anchorWeights = arrays["gaussian_to_anchor.weight"];
  const controls = arrays["gaussian_to_control.index"], controlWeights = arrays["gaussian_to_control.weight"];
  const joints = arrays["lbs_weights.index"], jointWeights = arrays["lbs_weights.weight"];
  const z = new Float64Array(K), delta = new Float64Array(11), delta1 = new Float64Array(9);
  const T = new Float64Array(12), M = new Float64Array(9), sh = new Float64Array(12), shade = new Float64Array(3);

  for (let n = 0; n < N; n += 1) {
    delta.fill(0);
    delta1.fill(0);
    if (n < P && active.properties) {
      for (let k = 0; k < K; k += 1) {
        z[k] = 0;
        for (let i = 3 * n; i < 3 * n + 3; i += 1) z[k] += anchorWeights[i] * coefficients[anchors[i] * O + k];
      }
      blendQuantised(properties, n, z, delta);
      if (n < Q && active.sh1) blendQuantised(sh1Bases, n, z, delta1);
    }

    // Rest position, moved by the control points.
    let x = xyz[3 * n], y = xyz[3 * n + 1], w = xyz[3 * n + 2];
    for (let i = 3 * n; i < 3 * n + 3; i += 1) {
      const c = 3 * controls[i];
      x += controlWeights[i] * offsets[c];
      y += controlWeights[i] * offsets[c + 1];
      w += controlWeights[i] * offsets[c + 2];
    }

    // Skinning.
    T.fill(0);
    for (let i = n * S; i < (n + 1) * S; i += 1) {
      const weight = jointWeights[i], from = 12 * joints[i];
      if (weight !== 0) for (let k = 0; k < 12; k += 1) T[k] += weight * transforms[from + k];
    }
    const at = n * STRIDE;
    for (let row = 0; row < 3; row += 1) {
      const t = 4 * row;
      posed[at + row] = T[t] * x + T[t + 1] * y + T[t + 2] * w + T[t + 3];
      for (let column = 0; column < 3; column += 1) posed[at + LINEAR + 3 * row + column] = T[t + column];
    }
    posed[at + OPACITY] = 1 / (1 + Math.exp(-(logits[n] + delta[10])));

    // Covariance (T R S)(T R S)^T.
    let qw = quats[4 * n] + delta[6], qx = quats[4 * n + 1] + delta[7], qy = quats[4 * n + 2] + delta[8], qz = quats[4 * n + 3] + delta[9];
    const norm = 1 / Math.max(Math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12);
    qw *= norm; qx *= norm; qy *= norm; qz *= norm;
    const sx = Math.exp(logScales[3 * n] + delta[3]), sy = Math.exp(logScales[3 * n + 1] + delta[4]), sz = Math.exp(logScales[3 * n + 2] + delta[5]);
    const R = [
      1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qw * qz), 2 * (qx * qz + qw * qy),
      2 * (qx * qy + qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qw * qx),
      2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx * qx + qy * qy),
    ];
    for (let row = 0; row < 3; row += 1) {
      const t = 4 * row;
      M[3 * row] = sx * (T[t] * R[0] + T[t + 1] * R[3] + T[t + 2] * R[6]);
      M[3 * row + 1] = sy * (T[t] * R[1] + T[t + 1] * R[4] + T[t + 2] * R[7]);
      M[3 * row + 2] = sz * (T[t] * R[2] + T[t + 1] * R[5] + T[t + 2] * R[8]);
    }
    let place = at + COVARIANCE;
    for (let i = 0; i < 3; i += 1) {
      for (let j = i; j < 3; j += 1) {
        posed[place] = M[3 * i] * M[3 * j] + M[3 * i + 1] * M[3 * j + 1] + M[3 * i + 2] * M[3 * j + 2];
        place += 1;
      }
    }

    // Colour, in the scene's light.
    for (let c = 0; c < 3; c += 1) sh[c] = sh0[3 * n + c] + delta[c];
    for (let i = 0; i < 9; i += 1) sh[3 + i] = active.sh1 ? sh1[9 * n + i] + delta1[i] : 0;
    if (arrays.normals) {
      shadeOf(avatar, n, posed, at, shift, shade);
      for (let i = 0; i < 12; i += 1) sh[i] *= shade[i % 3];
      for (let c = 0; c < 3; c += 1) sh[c] += GREY * (shade[c] - 1);
    }
    for (let c = 0; c < 3; c += 1) posed[at + SH0 + c] = sh[c];
    for (let i = 0; i < 9; i += 1) posed[at + SH1 + i] = sh[3 + i];
  }
  return posed;
}

/* (D,) sum_k z_k B_nk into `out`, which holds zeros, of (rows, K, D) steps with scales (rows, D) and offsets (K, D). */
function blendQuantised({ values, scales, offsets }, n, z, out) {
  const width = out.length;
  let from = n * z.length * width;
  for (let k = 0; k < z.length; k += 1) {
    for (let d = 0; d < width; d += 1) out[d] += z[k] * values[from + d];
    from += width;
  }
  for (let d = 0; d < width; d += 1) out[d] *= scales[n * width + d];
  for (let k = 0, at = 0; k < z.length; k += 1) {
    for (let d = 0; d < width; d += 1, at += 1) out[d] += z[k] * offsets[at];
  }
}

/* (3,) the factor on a Gaussian's colour: avatar/light.py. */
function shadeOf({ arrays }, n, posed, at, shift, shade) {
  const { normals } = arrays, coefficients = arrays["light.coefficients"];
  const nx = normals[3 * n], ny = normals[3 * n + 1], nz = normals[3 * n + 2], l = at + LINEAR;
  let x = posed[l] * nx + posed[l + 1] * ny + posed[l + 2] * nz;
  let y = posed[l + 3] * nx + posed[l + 4] * ny + posed[l + 5] * nz;
  let z = posed[l + 6] * nx + posed[l + 7] * ny + posed[l + 8] * nz;
  const norm = 1 / Math.max(Math.sqrt(x * x + y * y + z * z), 1e-12);
  x *= norm; y *= norm; z *= norm;
  for (let c = 0; c < 3; c += 1) {
    const of = (k) => coefficients[3 * k + c];
    let sum = 1 + of(0) * x + of(1) * y + of(2) * z + of(3) * x * y + of(4) * y * z + of(5) * z * x
      + of(6) * (x * x - y * y) + of(7) * (3 * z * z - 1);
    if (coefficients.length > 24) {
      for (let axis = 0; axis < 3; axis += 1) {
        const k = 8 + 4 * axis, along = posed[at + axis] + shift[axis];
        sum += along * (of(k) + of(k + 1) * x + of(k + 2) * y + of(k + 3) * z);
      }
    }
    shade[c] = Math.max(sum, DARKEST);
  }
}
