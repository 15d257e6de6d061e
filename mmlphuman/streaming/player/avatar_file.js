/* The compact avatar file (mmlphuman/export/compact.py) in JavaScript: a safetensors file, that is the length of a JSON
header (8 bytes), the header, and the tensors' bytes.

ArrayBuffer -> readAvatar -> {config, iteration, cameras, sizes, arrays}. The arrays carry the file's names, row by row:
floats as Float32Array, indices as Uint8Array, Uint16Array or Int32Array, and what is stored in few bits as Quantised.
Every encoding has one function below. What does not fit is an Error of one line, to be shown as it is.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, A anchors, K and L bases
of properties and positions, O = K + L, I inputs of an MLP, J joints, S strongest joints, F training poses, M components. */

const FORMAT = "mmlphuman compact avatar";
export const FORMAT_VERSION = 4;
const NUM_JOINTS = 55, POSE_DIM = 165, EXPRESSION_DIM = 10, BODY_START = 3, BODY_DIM = 63;
export const NOTHING = POSE_DIM; // index of a zero behind a pose's numbers; the expression's follow
const PROPERTIES = 11; // of a Gaussian that bases change: degree-0 SH 3, log-scale 3, quaternion 4, opacity logit 1
const MAX_HEADER = 2 ** 24; // bytes
const MAX_WEIGHT_ERROR = 0.02; // weights sum to one but for half precision
const FUNCTIONS = { none: 0, normal: 8, place: 20 }; // of the scene's light: avatar/light.py
const SCALE = ".scale";
const BYTES = { F32: 4, F16: 2, I8: 1, U8: 1, I16: 2, U16: 2, I32: 4 };

/* Steps times scales. MLPs (A, O, I): a scale a row (A, O, 1). Bases (P, K, 11): a scale a property (P, 1, 11). */
export class Quantised {
  constructor(values, scales) {
    this.values = values; // Int8Array
    this.scales = scales; // Float32Array
  }
}

/* Tensor -> [shape, kind, of an index the letter of what it points at, of int8 the dimension whose numbers share a scale]. */
function fieldsOf(config, version) {
  const widths = ["I", ...config.hidden_widths.map(String), "O"];
  const fields = {};
  for (let layer = 0; layer + 1 < widths.length; layer += 1) {
    fields[`bank.weights.${layer}`] = [`A ${widths[layer + 1]} ${widths[layer]}`, "int8", 2];
    fields[`bank.biases.${layer}`] = [`A ${widths[layer + 1]}`, "half"];
  }
  Object.assign(fields, {
    "xyz": ["N 3", "full"],
    "sh0": ["N 3", "half"],
    "sh1": ["N 3 3", "half"],
    "log_scales": ["N 3", "half"],
    "quats": ["N 4", "half"],
    "opacity_logits": ["N", "half"],
    "lbs_weights.index": ["N S", "index", "J"],
    "lbs_weights.weight": ["N S", "weight"],
    "control_offsets": ["C 3", "half"],
    "gaussian_to_anchor.index": ["P 3", "index", "A"],
    "gaussian_to_anchor.weight": ["P 3", "weight"],
    "gaussian_to_control.index": ["N 3", "index", "C"],
    "gaussian_to_control.weight": ["N 3", "weight"],
    "control_to_anchor.index": ["C 3", "index", "A"],
    "control_to_anchor.weight": ["C 3", "weight"],
    "property_bases": [`P K ${PROPERTIES}`, "int8", 1],
    "sh1_bases": ["Q K 9", "int8", 1],
    "position_bases": ["C L 3", "half"],
    "joints": ["J 3", "full"],
    "canonical_inverse": ["J 4 4", "full"],
    "parents": ["J", "parents"],
    "pose_space.mean": [`${BODY_DIM}`, "full"],
    "pose_space.components": [`M ${BODY_DIM}`, "full"],
    "pose_space.sigmas": ["M", "full"],
    "pose_space.training_poses": ["F W", "full"],
  });
  if (version > 1) fields.mlp_inputs = [config.pose_inputs === "local" ? "A I" : "I", "index", "U"];
  if (config.light !== "none") {
    fields.normals = ["N 3", "half"];
    fields["light.coefficients"] = [`${FUNCTIONS[config.light]} 3`, "full"];
    fields["light.lowest"] = ["3", "full"];
    fields["light.highest"] = ["3", "full"];
  }
  return fields;
}

/* Of training, where the file has them. */
const FRAMES = { "frames.numbers": ["F", "count"], "frames.translations": ["F 3", "full"] };

export function readAvatar(buffer) {
  const { header, start } = readHeader(buffer);
  const { config, iteration, version, cameras } = readMetadata(header.__metadata__ ?? {});
  const fields = fieldsOf(config, version);
  if ("frames.numbers" in header) Object.assign(fields, FRAMES);
  const sizes = {
    A: config.num_features, J: NUM_JOINTS, K: config.num_gsparam_bases, L: config.num_position_bases,
    O: config.num_gsparam_bases + config.num_position_bases, U: NOTHING + 1 + EXPRESSION_DIM,
  };
  const tensors = new Tensors(header, start, buffer), arrays = {};
  for (const [name, [shape, kind, extra]] of Object.entries(fields)) {
    arrays[name] = DECODERS[kind](tensors, name, shape, sizes, extra);
  }
  const { N, P, Q, C, F, S } = sizes;
  if (!(Q <= P && P <= N && N && C && F && S)) throw new Error(`holds ${Q} and ${P} bases for ${N} Gaussians, ${C} control points`);
  arrays.mlp_inputs ??= Uint8Array.from({ length: BODY_DIM }, (_, i) => BODY_START + i);
  if (arrays["bank.weights.0"].values.length !== sizes.A * widthOf(config, sizes, 0) * sizes.I) {
    throw new Error("its MLPs do not have as many inputs as mlp_inputs says");
  }
  arrays["pose_space.training_poses"] = widened(arrays["pose_space.training_poses"], sizes);
  const range = rangeOf(arrays["pose_space.training_poses"]);
  return { config, iteration, cameras, sizes, arrays, range, active: activeParts(config, iteration) };
}

/* What the schedule has switched on: avatar/trained.py. */
function activeParts(config, iteration) {
  return {
    positions: iteration >= config.iteration_dxyz_basis,
    properties: iteration >= config.iteration_gsparam_basis,
    sh1: iteration >= config.iteration_sh_degree,
  };
}

/* Numbers that a layer of the MLPs gives. */
export function widthOf(config, sizes, layer) {
  return config.hidden_widths[layer] ?? sizes.O;
}

// --- header ------------------------------------------------------------------------------------------------

function readHeader(buffer) {
  const cut = () => new Error("is cut short, or is no safetensors file");
  if (buffer.byteLength < 8) throw cut();
  const view = new DataView(buffer);
  const length = view.getUint32(0, true) + 2 ** 32 * view.getUint32(4, true);
  if (length > MAX_HEADER || 8 + length > buffer.byteLength) throw cut();
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw cut();
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) throw cut();
  const start = 8 + length;
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = entry ?? {};
    const whole = (values) => Array.isArray(values) && values.every((value) => Number.isSafeInteger(value) && value >= 0);
    if (!whole(shape) || !whole(offsets) || offsets.length !== 2) throw new Error(`describes tensor ${name} in no known way`);
    if (start + offsets[1] > buffer.byteLength) {
      throw new Error(`is cut short: tensor ${name} ends at byte ${start + offsets[1]} of ${buffer.byteLength}`);
    }
    if (dtype in BYTES && offsets[1] - offsets[0] !== product(shape) * BYTES[dtype]) {
      throw new Error(`holds another number of bytes of tensor ${name} than its shape says`);
    }
  }
  return { header, start };
}

function readMetadata(metadata) {
  if (metadata.format !== FORMAT) throw new Error("is a safetensors file of something else, not a compact avatar");
  const version = Number(metadata.format_version);
  if (!(Number.isInteger(version) && version >= 1 && version <= FORMAT_VERSION)) {
    throw new Error(`has format version ${metadata.format_version}, this page reads 1 to ${FORMAT_VERSION}; export both anew`);
  }
  const read = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      throw new Error("has settings that cannot be read");
    }
  };
  const settings = read(metadata.config);
  const config = { pose_inputs: "body", light: "none", novel_poses: "pca", ...settings };
  const counts = [config.num_features, config.num_gsparam_bases, config.num_position_bases, ...(config.hidden_widths ?? [NaN])];
  if (!counts.every((value) => Number.isInteger(value) && value > 0) || !(config.light in FUNCTIONS)) {
    throw new Error("has settings that this page does not know; export both anew");
  }
  const cameras = metadata.cameras === undefined ? [] : read(metadata.cameras);
  return { config, iteration: Number(metadata.iteration), version, cameras: Array.isArray(cameras) ? cameras : [] };
}

// --- tensors -----------------------------------------------------------------------------------------------

class Tensors {
  constructor(header, start, buffer) {
    Object.assign(this, { header, start, buffer });
  }

  /* The bytes as an array of this kind. */
  view(name, dtypes, sizes, shape) {
    const entry = this.header[name];
    if (entry === undefined) throw new Error(`lacks tensor ${name}; it is damaged, or of another version`);
    const letters = shape.split(" ");
    if (letters.length === entry.shape.length) {
      letters.forEach((letter, i) => { if (!/^\d/.test(letter)) sizes[letter] ??= entry.shape[i]; });
    }
    const wanted = letters.map((letter) => (/^\d/.test(letter) ? Number(letter) : sizes[letter]));
    if (entry.shape.join() !== wanted.join() || !(entry.dtype in dtypes)) {
      throw new Error(`has tensor ${name} as ${entry.dtype} (${entry.shape}), not ${Object.keys(dtypes).join(" or ")} (${wanted})`);
    }
    const Kind = dtypes[entry.dtype];
    const from = this.start + entry.data_offsets[0], count = product(wanted);
    if (from % Kind.BYTES_PER_ELEMENT === 0) return new Kind(this.buffer, from, count);
    return new Kind(this.buffer.slice(from, from + count * Kind.BYTES_PER_ELEMENT));
  }
}

/* Kind of field -> its decoder; `extra` is the field's third entry. */
const DECODERS = {
  full: (tensors, name, shape, sizes) => finite(name, tensors.view(name, { F32: Float32Array }, sizes, shape)),
  half: (tensors, name, shape, sizes) => finite(name, halves(tensors.view(name, { F16: Uint16Array }, sizes, shape))),
  weight: (tensors, name, shape, sizes) => {
    const weights = halves(tensors.view(name, { F16: Uint16Array }, sizes, shape));
    return normalised(name, weights, sizes[shape.split(" ")[1]] ?? Number(shape.split(" ")[1]));
  },
  int8: (tensors, name, shape, sizes, row) => {
    const values = tensors.view(name, { I8: Int8Array }, sizes, shape);
    const ofScales = shape.split(" ").with(row, "1").join(" ");
    const scales = halves(tensors.view(name + SCALE, { F16: Uint16Array }, sizes, ofScales));
    return new Quantised(values, finite(name + SCALE, scales));
  },
  index: (tensors, name, shape, sizes, letter) => {
    const values = tensors.view(name, { U8: Uint8Array, U16: Uint16Array, I32: Int32Array }, sizes, shape);
    const bound = sizes[letter];
    if (!values.every((value) => value >= 0 && value < bound)) throw new Error(`has tensor ${name} point outside 0..${bound - 1}`);
    return values;
  },
  parents: (tensors, name, shape, sizes) => {
    const values = tensors.view(name, { I16: Int16Array }, sizes, shape);
    const sound = values.every((parent, joint) => (joint === 0 ? parent === -1 : parent >= 0 && parent < joint));
    if (!sound) throw new Error(`has tensor ${name} that is no skeleton`);
    return values;
  },
  count: (tensors, name, shape, sizes) => tensors.view(name, { I32: Int32Array }, sizes, shape),
};

let halfValues = null; // of all 65536 half-precision numbers

/* Half precision -> single. */
function halves(bits) {
  halfValues ??= Float32Array.from({ length: 65536 }, (_, half) => {
    const exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : Infinity)
        : (1024 + fraction) * 2 ** (exponent - 25);
    return half & 0x8000 ? -size : size;
  });
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) values[i] = halfValues[bits[i]];
  return values;
}

/* Rows of `width` weights that sum to one exactly again. */
function normalised(name, weights, width) {
  for (let start = 0; start < weights.length; start += width) {
    let sum = 0;
    for (let i = start; i < start + width; i += 1) sum += weights[i];
    if (!(Math.abs(sum - 1) <= MAX_WEIGHT_ERROR)) throw new Error(`has tensor ${name} hold weights that do not sum to one`);
    for (let i = start; i < start + width; i += 1) weights[i] /= sum;
  }
  return weights;
}

function finite(name, values) {
  for (let i = 0; i < values.length; i += 1) {
    if (!Number.isFinite(values[i])) throw new Error(`has tensor ${name} hold numbers that are not finite`);
  }
  return values;
}

/* (F, 175) training poses of what former versions kept: 63 numbers of the body, or 165 of all joints. */
function widened(poses, { F, W }) {
  const width = POSE_DIM + EXPRESSION_DIM;
  if (W === width) return poses;
  if (W !== POSE_DIM && W !== BODY_DIM) throw new Error(`has training poses of ${W} numbers, not ${width}`);
  const wide = new Float32Array(F * width);
  for (let i = 0; i < F; i += 1) wide.set(poses.subarray(i * W, (i + 1) * W), i * width + (W === BODY_DIM ? BODY_START : 0));
  return wide;
}

/* Of each of a training pose's 175 numbers the lowest and the highest. */
function rangeOf(poses) {
  const width = POSE_DIM + EXPRESSION_DIM;
  const lowest = new Float32Array(width).fill(Infinity), highest = new Float32Array(width).fill(-Infinity);
  for (let i = 0; i < poses.length; i += 1) {
    lowest[i % width] = Math.min(lowest[i % width], poses[i]);
    highest[i % width] = Math.max(highest[i % width], poses[i]);
  }
  return { lowest, highest };
}

function product(shape) {
  return shape.reduce((a, b) => a * b, 1);
}
