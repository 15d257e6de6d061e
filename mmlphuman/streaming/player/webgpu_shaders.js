/* The WebGPU renderer's programs, a stage each: posing.js, sorting.js and the WebGL2 shaders in WGSL.

Sizes of the avatar are constants in them. Shape letters as in avatar_file.js. */

import { COVARIANCE, LINEAR, OPACITY, SH0, SH1, STRIDE } from "./posing.js";

export const GROUP = 64; // threads of a workgroup, but for the sort's
/* Neutral properties of a Gaussian in one row: where each begins; behind them 3 weights of control points, S of joints. */
export const NEUTRAL = { xyz: 0, sh0: 3, sh1: 6, log_scales: 15, quats: 18, opacity_logits: 22, normals: 23, weights: 26 };
export const SPLAT = 12; // floats of a projected Gaussian
export const SORT_THREADS = 128, SORT_EACH = 8, SORT_BLOCK = SORT_THREADS * SORT_EACH;
export const DIGIT_BITS = 4, DIGITS = 16, PASSES = 6; // of 24 bits of a depth

/* Number `at` behind the first word of an array of words that hold numbers of 1 or 2 bytes with a sign, or floats. */
function stepOf(array, bytes, word, at) {
  if (bytes === 4) return `bitcast<f32>(${array}[${word} + ${at}])`;
  const inWord = 4 / bytes, bits = 8 * bytes;
  return `f32(extractBits(bitcast<i32>(${array}[${word} + (${at}) / ${inWord}u]), (${at}) % ${inWord}u * ${bits}u, ${bits}u))`;
}

/* One layer of all MLPs: a thread for each output. Rows of weights, of so many bytes each, are padded to whole words. */
export function layerShader(anchors, fanIn, fanOut, bytes, last) {
  return `
@group(0) @binding(0) var<storage, read> weights: array<u32>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read> biases: array<f32>;
@group(0) @binding(3) var<storage, read> hidden: array<f32>;
@group(0) @binding(4) var<storage, read_write> outputs: array<f32>;

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.x + id.y * groups.x * ${GROUP}u;
  if (row >= ${anchors * fanOut}u) { return; }
  let begin = row / ${fanOut}u * ${fanIn}u;
  let words = row * ${Math.ceil(fanIn * bytes / 4)}u;
  var sum = 0.0;
  for (var i = 0u; i < ${fanIn}u; i += 1u) {
    sum += ${stepOf("weights", bytes, "words", "i")} * hidden[begin + i];
  }
  sum = biases[row] + scales[row] * sum;
  outputs[row] = ${last ? "sum" : "max(sum, 0.0)"};
}`;
}

/* Displacements of control points. */
export function controlShader({ C, K, L, O }, active) {
  return `
@group(0) @binding(0) var<storage, read> neutral: array<f32>;
@group(0) @binding(1) var<storage, read> bases: array<f32>;
@group(0) @binding(2) var<storage, read> anchors: array<u32>; // 3 indices, 3 weights
@group(0) @binding(3) var<storage, read> coefficients: array<f32>;
@group(0) @binding(4) var<storage, read_write> offsets: array<f32>;

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let c = id.x + id.y * groups.x * ${GROUP}u;
  if (c >= ${C}u) { return; }
  var offset = vec3f(neutral[3u * c], neutral[3u * c + 1u], neutral[3u * c + 2u]);
  for (var l = 0u; l < ${active.positions ? L : 0}u; l += 1u) {
    var z = 0.0;
    for (var i = 0u; i < 3u; i += 1u) {
      z += bitcast<f32>(anchors[6u * c + 3u + i]) * coefficients[anchors[6u * c + i] * ${O}u + ${K}u + l];
    }
    let at = (c * ${L}u + l) * 3u;
    offset += z * vec3f(bases[at], bases[at + 1u], bases[at + 2u]);
  }
  for (var axis = 0u; axis < 3u; axis += 1u) { offsets[3u * c + axis] = offset[axis]; }
}`;
}

/* Posed Gaussians, as posing.js writes them. stepBytes: of a number of the bases. */
export function gaussianShader({ N, P, Q, S, K, O, J }, active, lightFunctions, stepBytes) {
  const row = NEUTRAL.weights + 3 + S;
  const rowWords = Math.ceil(11 * K * stepBytes / 4), sh1Words = Math.ceil(9 * K * stepBytes / 4);
  const sh1Scales = 11 * P, offsets = sh1Scales + 9 * Q, sh1Offsets = offsets + 11 * K;
  return `
struct Pose { transforms: array<vec4f, ${3 * J}>, shift: vec4f, light: array<vec4f, 20> }
@group(0) @binding(0) var<uniform> pose: Pose;
@group(0) @binding(1) var<storage, read> neutral: array<f32>;
@group(0) @binding(2) var<storage, read> tables: array<u32>; // 3 control points, S joints
@group(0) @binding(3) var<storage, read> anchors: array<u32>; // 3 indices, 3 weights
@group(0) @binding(4) var<storage, read> bases: array<u32>; // steps: of properties, then of degree-1 colours
@group(0) @binding(5) var<storage, read> scales: array<f32>; // of both, then both offsets
@group(0) @binding(6) var<storage, read> coefficients: array<f32>;
@group(0) @binding(7) var<storage, read> offsets: array<f32>;
@group(0) @binding(8) var<storage, read_write> posed: array<f32>;

fn step(word: u32, at: u32) -> f32 { return ${stepOf("bases", stepBytes, "word", "at")}; }

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let n = id.x + id.y * groups.x * ${GROUP}u;
  if (n >= ${N}u) { return; }
  let own = n * ${row}u;
  var properties: array<f32, 11>;
  var delta1: array<f32, 9>;
  if (n < ${active.properties ? P : 0}u) {
    for (var k = 0u; k < ${K}u; k += 1u) {
      var z = 0.0;
      for (var i = 0u; i < 3u; i += 1u) {
        z += bitcast<f32>(anchors[6u * n + 3u + i]) * coefficients[anchors[6u * n + i] * ${O}u + k];
      }
      for (var d = 0u; d < 11u; d += 1u) {
        let at = k * 11u + d;
        properties[d] += z * (scales[11u * n + d] * step(n * ${rowWords}u, at) + scales[${offsets}u + at]);
      }
      if (n < ${active.sh1 ? Q : 0}u) {
        for (var d = 0u; d < 9u; d += 1u) {
          let at = k * 9u + d;
          delta1[d] += z * (scales[${sh1Scales}u + 9u * n + d] * step(${P * rowWords}u + n * ${sh1Words}u, at) + scales[${sh1Offsets}u + at]);
        }
      }
    }
  }

  var x = vec3f(neutral[own], neutral[own + 1u], neutral[own + 2u]);
  for (var i = 0u; i < 3u; i += 1u) {
    let c = 3u * tables[n * ${3 + S}u + i];
    x += neutral[own + ${NEUTRAL.weights}u + i] * vec3f(offsets[c], offsets[c + 1u], offsets[c + 2u]);
  }
  var rows = array<vec4f, 3>();
  for (var i = 0u; i < ${S}u; i += 1u) {
    let weight = neutral[own + ${NEUTRAL.weights + 3}u + i];
    let joint = 3u * tables[n * ${3 + S}u + 3u + i];
    for (var r = 0u; r < 3u; r += 1u) { rows[r] += weight * pose.transforms[joint + r]; }
  }
  let at = n * ${STRIDE}u;
  let xyz = vec3f(dot(rows[0], vec4f(x, 1.0)), dot(rows[1], vec4f(x, 1.0)), dot(rows[2], vec4f(x, 1.0)));
  for (var r = 0u; r < 3u; r += 1u) {
    posed[at + r] = xyz[r];
    for (var c = 0u; c < 3u; c += 1u) { posed[at + ${LINEAR}u + 3u * r + c] = rows[r][c]; }
  }
  posed[at + ${OPACITY}u] = 1.0 / (1.0 + exp(-(neutral[own + ${NEUTRAL.opacity_logits}u] + properties[10])));

  var q = vec4f(properties[6], properties[7], properties[8], properties[9]);
  for (var i = 0u; i < 4u; i += 1u) { q[i] += neutral[own + ${NEUTRAL.quats}u + i]; }
  q /= max(length(q), 1e-12);
  let w = q[0]; let a = q[1]; let b = q[2]; let c = q[3];
  let turn = transpose(mat3x3f(
    1.0 - 2.0 * (b * b + c * c), 2.0 * (a * b - w * c), 2.0 * (a * c + w * b),
    2.0 * (a * b + w * c), 1.0 - 2.0 * (a * a + c * c), 2.0 * (b * c - w * a),
    2.0 * (a * c - w * b), 2.0 * (b * c + w * a), 1.0 - 2.0 * (a * a + b * b)));
  let s = vec3f(neutral[own + ${NEUTRAL.log_scales}u] + properties[3], neutral[own + ${NEUTRAL.log_scales + 1}u] + properties[4],
    neutral[own + ${NEUTRAL.log_scales + 2}u] + properties[5]);
  let linear = transpose(mat3x3f(rows[0].xyz, rows[1].xyz, rows[2].xyz));
  let scaled = exp(s);
  let factors = linear * mat3x3f(turn[0] * scaled.x, turn[1] * scaled.y, turn[2] * scaled.z);
  let covariance = factors * transpose(factors);
  let upper = array<f32, 6>(covariance[0][0], covariance[1][0], covariance[2][0], covariance[1][1], covariance[2][1], covariance[2][2]);
  for (var i = 0u; i < 6u; i += 1u) { posed[at + ${COVARIANCE}u + i] = upper[i]; }

  ${lightFunctions ? `
  let turned = linear * vec3f(neutral[own + ${NEUTRAL.normals}u], neutral[own + ${NEUTRAL.normals + 1}u], neutral[own + ${NEUTRAL.normals + 2}u]);
  let m = turned / max(length(turned), 1e-12);
  var shade = vec3f(1.0) + m.x * pose.light[0].xyz + m.y * pose.light[1].xyz + m.z * pose.light[2].xyz
    + m.x * m.y * pose.light[3].xyz + m.y * m.z * pose.light[4].xyz + m.z * m.x * pose.light[5].xyz
    + (m.x * m.x - m.y * m.y) * pose.light[6].xyz + (3.0 * m.z * m.z - 1.0) * pose.light[7].xyz;
  for (var axis = 0u; axis < ${lightFunctions > 8 ? 3 : 0}u; axis += 1u) {
    let k = 8u + 4u * axis;
    shade += (xyz[axis] + pose.shift[axis]) * (pose.light[k].xyz + m.x * pose.light[k + 1u].xyz
      + m.y * pose.light[k + 2u].xyz + m.z * pose.light[k + 3u].xyz);
  }
  shade = max(shade, vec3f(0.05));` : "let shade = vec3f(1.0);"}
  for (var i = 0u; i < 3u; i += 1u) {
    posed[at + ${SH0}u + i] = (neutral[own + ${NEUTRAL.sh0}u + i] + properties[i]) * shade[i] + ${0.5 / 0.28209479177387814} * (shade[i] - 1.0);
  }
  for (var i = 0u; i < 9u; i += 1u) {
    posed[at + ${SH1}u + i] = ${active.sh1 ? `(neutral[own + ${NEUTRAL.sh1}u + i] + delta1[i]) * shade[i % 3u]` : "0.0"};
  }
}`;
}

const VIEW = `
struct View { rows: array<vec4f, 3>, eye: vec4f, lens: vec4f, size: vec4f, background: vec4f }`;

/* Gaussians on the picture, and the keys of their order: far ones first, those that are not seen last. */
export function projectShader({ N }) {
  return `${VIEW}
@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> posed: array<f32>;
@group(0) @binding(2) var<storage, read_write> splats: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> indices: array<u32>;

const NEAR_PLANE = 0.1;
const BLUR = 0.3;
const MAX_EXTENT = 3.33;
const FRUSTUM_MARGIN = 0.3;
const SH_DEGREE_0 = 0.28209479177387814;
const SH_DEGREE_1 = 0.4886025119029199;
const LOWEST = 0x3d800000u; // bits of a depth below the near plane's
const HIDDEN = 0xffffffu;

fn triple(at: u32) -> vec3f { return vec3f(posed[at], posed[at + 1u], posed[at + 2u]); }

@compute @workgroup_size(${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let n = id.x + id.y * groups.x * ${GROUP}u;
  if (n >= ${N}u) { return; }
  let at = n * ${STRIDE}u;
  let xyz = triple(at);
  let opacity = posed[at + ${OPACITY}u];
  let seen = vec3f(dot(view.rows[0], vec4f(xyz, 1.0)), dot(view.rows[1], vec4f(xyz, 1.0)), dot(view.rows[2], vec4f(xyz, 1.0)));
  let upper = array<f32, 6>(posed[at + 4u], posed[at + 5u], posed[at + 6u], posed[at + 7u], posed[at + 8u], posed[at + 9u]);
  let covariance = mat3x3f(upper[0], upper[1], upper[2], upper[1], upper[3], upper[4], upper[2], upper[4], upper[5]);
  let margin = FRUSTUM_MARGIN * 0.5 * view.size.xy / view.lens.xy;
  let slope = clamp(seen.xy / seen.z, -view.lens.zw / view.lens.xy - margin, (view.size.xy - view.lens.zw) / view.lens.xy + margin);
  let across = (view.lens.x / seen.z) * (view.rows[0].xyz - slope.x * view.rows[2].xyz);
  let down = (view.lens.y / seen.z) * (view.rows[1].xyz - slope.y * view.rows[2].xyz);
  let xx = dot(across, covariance * across) + BLUR;
  let xy = dot(across, covariance * down);
  let yy = dot(down, covariance * down) + BLUR;
  let determinant = xx * yy - xy * xy;
  indices[n] = n;
  if (!(seen.z > NEAR_PLANE && determinant > 0.0 && opacity >= 1.0 / 255.0)) {
    keys[n] = HIDDEN;
    splats[3u * n + 1u] = vec4f(0.0);
    return;
  }
  keys[n] = HIDDEN - 1u - min((bitcast<u32>(seen.z) - LOWEST) >> 3u, HIDDEN - 1u);
  let root = sqrt(xx);
  splats[3u * n] = vec4f(view.lens.xy * seen.xy / seen.z + view.lens.zw, root, xy / root);
  let reach = min(sqrt(2.0 * log(max(opacity * 255.0, 1.0))), MAX_EXTENT);
  splats[3u * n + 1u] = vec4f(sqrt(determinant / xx), reach, opacity, 1.0);
  let l = at + ${LINEAR}u;
  let away = view.eye.xyz - xyz;
  var d = away.x * triple(l) + away.y * triple(l + 3u) + away.z * triple(l + 6u);
  d /= max(length(d), 1e-12);
  let c = at + ${SH1}u;
  let sum = SH_DEGREE_0 * triple(at + ${SH0}u) + SH_DEGREE_1 * (d.z * triple(c + 3u) - d.y * triple(c) - d.x * triple(c + 6u));
  splats[3u * n + 2u] = vec4f(max(sum + 0.5, vec3f(0.0)), 0.0);
}`;
}

/* A radix sort, ${DIGIT_BITS} bits at a time: how often each digit occurs in each block of keys, ... */
const SORT = `
struct Pass { shift: u32 }
@group(0) @binding(0) var<uniform> pass_: Pass;
@group(0) @binding(1) var<storage, read> keys: array<u32>;`;

const digit = `fn digit(i: u32) -> u32 { return extractBits(keys[i], pass_.shift, ${DIGIT_BITS}u); }`;

export function countShader(count) {
  return `${SORT}
@group(0) @binding(2) var<storage, read_write> counts: array<u32>; // (digits, blocks)
var<workgroup> found: array<atomic<u32>, ${DIGITS}>;
${digit}

@compute @workgroup_size(${SORT_THREADS})
fn main(@builtin(local_invocation_id) id: vec3u, @builtin(workgroup_id) block: vec3u, @builtin(num_workgroups) blocks: vec3u) {
  let begin = block.x * ${SORT_BLOCK}u + id.x * ${SORT_EACH}u;
  for (var i = begin; i < min(begin + ${SORT_EACH}u, ${count}u); i += 1u) { atomicAdd(&found[digit(i)], 1u); }
  workgroupBarrier();
  if (id.x < ${DIGITS}u) { counts[id.x * blocks.x + block.x] = atomicLoad(&found[id.x]); }
}`;
}

/* ... where each block's keys of each digit go (the counts' running sum), ... */
export function sumShader(total) {
  const threads = 256, each = Math.ceil(total / threads);
  return `
@group(0) @binding(0) var<storage, read_write> counts: array<u32>;
var<workgroup> sums: array<u32, ${threads}>;

@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_id) id: vec3u) {
  let begin = id.x * ${each}u;
  let end = min(begin + ${each}u, ${total}u);
  var sum = 0u;
  for (var i = begin; i < end; i += 1u) { sum += counts[i]; }
  sums[id.x] = sum;
  for (var reach = 1u; reach < ${threads}u; reach *= 2u) {
    workgroupBarrier();
    var before = 0u;
    if (id.x >= reach) { before = sums[id.x - reach]; }
    workgroupBarrier();
    sums[id.x] += before;
  }
  var running = sums[id.x] - sum;
  for (var i = begin; i < end; i += 1u) {
    let here = counts[i];
    counts[i] = running;
    running += here;
  }
}`;
}

/* ... and there they go, in the order in which they stood. */
export function scatterShader(count) {
  return `${SORT}
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> sortedKeys: array<u32>;
@group(0) @binding(5) var<storage, read_write> sortedIndices: array<u32>;
var<workgroup> places: array<u32, ${DIGITS * SORT_THREADS}>; // (digits, threads)
${digit}

@compute @workgroup_size(${SORT_THREADS})
fn main(@builtin(local_invocation_id) id: vec3u, @builtin(workgroup_id) block: vec3u, @builtin(num_workgroups) blocks: vec3u) {
  let begin = block.x * ${SORT_BLOCK}u + id.x * ${SORT_EACH}u;
  let end = min(begin + ${SORT_EACH}u, ${count}u);
  for (var i = begin; i < end; i += 1u) { places[digit(i) * ${SORT_THREADS}u + id.x] += 1u; }
  workgroupBarrier();
  if (id.x < ${DIGITS}u) {
    var running = counts[id.x * blocks.x + block.x];
    for (var i = id.x * ${SORT_THREADS}u; i < (id.x + 1u) * ${SORT_THREADS}u; i += 1u) {
      let here = places[i];
      places[i] = running;
      running += here;
    }
  }
  workgroupBarrier();
  for (var i = begin; i < end; i += 1u) {
    let slot = digit(i) * ${SORT_THREADS}u + id.x;
    let place = places[slot];
    places[slot] = place + 1u;
    sortedKeys[place] = keys[i];
    sortedIndices[place] = indices[i];
  }
}`;
}

/* Squares over the Gaussians' ellipses; the parallelogram is webgl_renderer.js's. */
export const SPLAT_SHADER = `${VIEW}
@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> splats: array<vec4f>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
struct Corner { @builtin(position) position: vec4f, @location(0) place: vec2f, @location(1) @interpolate(flat) color: vec4f }

@vertex fn corner(@builtin(vertex_index) vertex: u32) -> Corner {
  let at = 3u * order[vertex / 4u];
  let first = splats[at];
  let second = splats[at + 1u];
  let place = (vec2f(f32(vertex & 1u), f32((vertex >> 1u) & 1u)) * 2.0 - 1.0) * second.y;
  let pixel = first.xy + vec2f(first.z * place.x, first.w * place.x + second.x * place.y);
  let clip = vec2f(pixel.x / view.size.x * 2.0 - 1.0, 1.0 - pixel.y / view.size.y * 2.0);
  var out: Corner;
  out.position = select(vec4f(2.0, 2.0, 2.0, 1.0), vec4f(clip, 0.0, 1.0), second.w > 0.0);
  out.place = place;
  out.color = vec4f(splats[at + 2u].rgb, second.z);
  return out;
}

@fragment fn blend(in: Corner) -> @location(0) vec4f {
  let alpha = in.color.a * exp(-0.5 * dot(in.place, in.place));
  if (alpha < 1.0 / 255.0) { discard; }
  let covered = min(alpha, 0.999);
  return vec4f(in.color.rgb * covered, covered);
}`;

export const COVER_SHADER = `${VIEW}
@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var picture: texture_2d<f32>;

@vertex fn corner(@builtin(vertex_index) vertex: u32) -> @builtin(position) vec4f {
  return vec4f(vec2f(f32(vertex & 1u), f32(vertex >> 1u)) * 4.0 - 1.0, 0.0, 1.0);
}

@fragment fn lay(@builtin(position) position: vec4f) -> @location(0) vec4f {
  let drawn = textureLoad(picture, vec2i(position.xy), 0);
  return vec4f(drawn.rgb + (1.0 - drawn.a) * view.background.rgb, 1.0);
}`;
