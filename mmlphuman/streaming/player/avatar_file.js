/* The compact avatar file (mmlphuman/export/compact.py) in JavaScript: a safetensors file, that is the length of a JSON
header (8 bytes), the header, and the tensors' bytes.

ArrayBuffer -> readAvatar -> {config, iteration, cameras, view, sizes, arrays}. The arrays carry the file's names, row by
row: floats as Float32Array, indices as arrays of integers, and large ones that are stored in few bits as Quantised.
docs/compact_file.md describes version 5, whose tensors are zlib streams (Streams below); those of versions 1 to 4 are plain
(Tensors). What does not fit is an Error of one line, to be shown as it is.

Shape letters: N Gaussians, P of them with property bases, Q with degree-1 bases, C control points, A anchors, K and L bases
of properties and positions, O = K + L, I inputs of an MLP, J joints, S strongest joints, F training poses, M components. */

const FORMAT = "mmlphuman compact avatar";
export const FORMAT_VERSION = 5;
const NUM_JOINTS = 55, POSE_DIM = 165, EXPRESSION_DIM = 10, BODY_START = 3, BODY_DIM = 63;
export const NOTHING = POSE_DIM; // index of a zero behind a pose's numbers; the expression's follow
const PROPERTIES = 11; // of a Gaussian that bases change: degree-0 SH 3, log-scale 3, quaternion 4, opacity logit 1
const MAX_HEADER = 2 ** 24; // bytes
const MAX_WEIGHT_ERROR = 0.02; // weights sum to one but for half precision
const FUNCTIONS = { none: 0, normal: 8, place: 20 }; // of the scene's light: avatar/light.py
const SCALE = ".scale", OFFSET = ".offset"; // names of what steps are multiplied by, and of what is added
const FIRST_STREAMS = 5; // version whose tensors are streams
const TYPES = { u8: Uint8Array, i8: Int8Array, u16: Uint16Array, i16: Int16Array, i32: Int32Array, f32: Float32Array };
const FLOATS = ["f32"], WHOLE = ["u8", "i8", "u16", "i16", "i32"];
const MAX_SHIFT = 4, MAX_DIMENSIONS = 4;
const MAX_BYTES = 2 ** 30; // of an array
const ROWS_AT_ONCE = 64;
const BYTES = { F32: 4, F16: 2, I8: 1, U8: 1, I16: 2, U16: 2, I32: 4 };

/* Steps times scales. MLPs (A, O, I): a scale a row (A, O). Bases (P, K, 11): a scale a property (P, 11), and offsets that all
Gaussians share (K, 11). */
export class Quantised {
  constructor(values, scales, offsets = null) {
    this.values = values; // Int8Array, Int16Array or Float32Array
    this.scales = scales; // Float32Array
    this.offsets = offsets; // Float32Array
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

export async function readAvatar(buffer) {
  const { header, start } = readHeader(buffer);
  const { config, iteration, version, cameras, view, entries } = readMetadata(header.__metadata__ ?? {});
  const fields = fieldsOf(config, version);
  if ("frames.numbers" in header) Object.assign(fields, FRAMES);
  const sizes = {
    A: config.num_features, J: NUM_JOINTS, K: config.num_gsparam_bases, L: config.num_position_bases,
    O: config.num_gsparam_bases + config.num_position_bases, U: NOTHING + 1 + EXPRESSION_DIM,
  };
  const tensors = new (version < FIRST_STREAMS ? Tensors : Streams)(header, start, buffer, sizes, entries), arrays = {};
  for (const [name, [shape, kind, extra]] of Object.entries(fields)) {
    arrays[name] = await tensors[kind](name, shape, extra);
    CHECKS[kind]?.(name, arrays[name], sizes[extra]);
  }
  const { N, P, Q, C, F, S } = sizes;
  if (!(Q <= P && P <= N && N && C && F && S)) throw new Error(`holds ${Q} and ${P} bases for ${N} Gaussians, ${C} control points`);
  arrays.mlp_inputs ??= Uint8Array.from({ length: BODY_DIM }, (_, i) => BODY_START + i);
  if (arrays["bank.weights.0"].values.length !== sizes.A * widthOf(config, sizes, 0) * sizes.I) {
    throw new Error("its MLPs do not have as many inputs as mlp_inputs says");
  }
  arrays["pose_space.training_poses"] = widened(arrays["pose_space.training_poses"], sizes);
  const range = rangeOf(arrays["pose_space.training_poses"]);
  return { config, iteration, cameras, view, sizes, arrays, range, active: activeParts(config, iteration) };
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
  const optional = (text) => (text === undefined ? null : read(text));
  const cameras = optional(metadata.cameras), view = optional(metadata.view);
  const entries = version < FIRST_STREAMS ? null : read(metadata.tensors) ?? {};
  return { config, iteration: Number(metadata.iteration), version, cameras: Array.isArray(cameras) ? cameras : [], view, entries };
}

// --- tensors -----------------------------------------------------------------------------------------------

/* A pattern's sizes, once it is seen that the shape is this; letters of which nothing is known yet get theirs here. */
function fitted(name, shape, pattern, sizes) {
  const letters = pattern.split(" ");
  if (letters.length === shape.length) {
    letters.forEach((letter, i) => { if (!/^\d/.test(letter)) sizes[letter] ??= shape[i]; });
  }
  const wanted = letters.map((letter) => (/^\d/.test(letter) ? Number(letter) : sizes[letter]));
  if (shape.join() !== wanted.join()) throw new Error(`has tensor ${name} of shape (${shape}), not (${wanted})`);
  return wanted;
}

function entryOf(header, name) {
  if (!Object.hasOwn(header, name)) throw new Error(`lacks tensor ${name}; it is damaged, or of another version`);
  return header[name];
}

/* Version 5. A method for each kind of field. */
class Streams {
  constructor(header, start, buffer, sizes, entries) {
    Object.assign(this, { header, start, buffer, sizes, entries });
  }

  /* {values, shape, shifted} of a stream. */
  async array(name, types, pattern) {
    const { dtype, data_offsets: [from, to] } = entryOf(this.header, name);
    const entry = Object.hasOwn(this.entries, name) ? this.entries[name] ?? {} : {}, { type, shape, delta, shifted } = entry;
    const sound = dtype === "U8" && types.includes(type) && typeof delta === "boolean" && typeof shifted === "boolean"
      && Array.isArray(shape) && shape.length > 0 && shape.length <= MAX_DIMENSIONS && shape.every((size) => Number.isInteger(size) && size >= 0);
    if (!sound || !(product(shape) * TYPES[type].BYTES_PER_ELEMENT <= MAX_BYTES)) {
      throw new Error(`describes tensor ${name} in no known way; it is damaged, or of another version`);
    }
    if (pattern) fitted(name, shape, pattern, this.sizes);
    const bytes = new Uint8Array(this.buffer, this.start + from, to - from);
    const planes = await inflated(name, bytes, product(shape) * TYPES[type].BYTES_PER_ELEMENT);
    return { values: fromPlanes(planes, TYPES[type], shape, delta), shape, shifted };
  }

  async index(name, pattern) {
    return (await this.array(name, WHOLE, pattern)).values;
  }

  parents(name, pattern) {
    return this.index(name, pattern);
  }

  count(name, pattern) {
    return this.index(name, pattern);
  }

  /* Whole steps where there is a scale. */
  async full(name, pattern) {
    if (!Object.hasOwn(this.header, name + SCALE)) return (await this.array(name, FLOATS, pattern)).values;
    return numbersOf(await this.steps(name, pattern));
  }

  half(name, pattern) {
    return this.full(name, pattern);
  }

  /* {values, shape, scale, offset, shift}: the numbers are offset + scale * values * 2^shift. */
  async steps(name, pattern) {
    const { values, shape, shifted } = await this.array(name, WHOLE, pattern);
    const scale = await this.factor(name + SCALE, shape);
    const offset = Object.hasOwn(this.header, name + OFFSET) ? await this.factor(name + OFFSET, shape) : null;
    const shift = shifted ? await this.shift() : null;
    if (shift && shape[0] > shift.length) throw new Error(`has tensor ${name} for more Gaussians than there are`);
    return { values, shape, scale, offset, shift };
  }

  /* {values, stride}: where each dimension's next number lies, 0 where all share one; of three dimensions. */
  async factor(name, whole) {
    const { values, shape } = await this.array(name, FLOATS);
    if (shape.length !== whole.length || shape.some((size, i) => size !== 1 && size !== whole[i])) {
      throw new Error(`has tensor ${name} of shape (${shape}), which does not fit (${whole})`);
    }
    const [rows, middle, last] = threefold(shape);
    return { values: finite(name, values), stride: [rows > 1 ? middle * last : 0, middle > 1 ? last : 0, last > 1 ? 1 : 0] };
  }

  /* (N,) */
  async shift() {
    this.shifts ??= (await this.array("shift", WHOLE, "N")).values;
    if (!this.shifts.every((value) => value >= 0 && value <= MAX_SHIFT)) throw new Error(`has tensor shift point outside 0..${MAX_SHIFT}`);
    return this.shifts;
  }

  /* Rows of weights, of which the first is what the others leave of one. */
  async weight(name, pattern) {
    const [letter, columns] = pattern.split(" "), width = this.sizes[columns] ?? Number(columns);
    const others = numbersOf(await this.steps(name, `${letter} ${width - 1}`));
    const weights = new Float32Array(this.sizes[letter] * width);
    for (let from = 0, to = 0; to < weights.length; from += width - 1, to += width) {
      let sum = 0;
      for (let i = 0; i < width - 1; i += 1) {
        weights[to + 1 + i] = others[from + i];
        sum = Math.fround(sum + others[from + i]);
      }
      weights[to] = 1 - sum;
    }
    return normalised(name, weights, width);
  }

  /* `shared`: the dimension whose numbers share a scale. Where they do not, the numbers themselves are the steps. */
  async int8(name, pattern, shared) {
    const steps = await this.steps(name, pattern), { scale, offset, shift } = steps;
    const [rows, middle, last] = threefold(steps.shape), one = [[middle, last], [rows, last], [rows, middle]][shared];
    if (scale.stride[shared] || offset?.stride[0] || (offset && shared !== 1)) {
      return new Quantised(numbersOf(steps), new Float32Array(one[0] * one[1]).fill(1), new Float32Array(middle * last));
    }
    const scales = new Float32Array(one[0] * one[1]), offsets = new Float32Array(middle * last), along = 3 - shared;
    for (let i = 0; i < scales.length; i += 1) {
      const row = Math.floor(i / one[1]), column = i % one[1];
      scales[i] = scale.values[row * scale.stride[0] + column * scale.stride[along]] * 2 ** (shift?.[row] ?? 0);
    }
    for (let i = 0; offset && i < offsets.length; i += 1) {
      offsets[i] = offset.values[Math.floor(i / last) * offset.stride[1] + i % last * offset.stride[2]];
    }
    return new Quantised(narrow(steps.values), finite(name, scales), offsets);
  }
}

function threefold(shape) {
  return [...shape, 1, 1].slice(0, 3);
}

/* Of at most 16 bits with a sign, or in single precision: what the renderers take. */
function narrow(values) {
  if (values instanceof Int8Array || values instanceof Int16Array) return values;
  return values instanceof Uint8Array ? Int16Array.from(values) : Float32Array.from(values);
}

/* In single precision, rounded as the package rounds. */
function numbersOf({ values, shape, scale, offset, shift }) {
  const [rows, middle, last] = threefold(shape), { fround } = Math, numbers = new Float32Array(values); // of one type, for the loop's sake
  let i = 0;
  for (let r = 0; r < rows; r += 1) {
    const longer = 2 ** (shift?.[r] ?? 0);
    for (let m = 0; m < middle; m += 1) {
      for (let d = 0; d < last; d += 1) {
        const at = ({ stride }) => r * stride[0] + m * stride[1] + d * stride[2];
        const number = fround(numbers[i] * scale.values[at(scale)]) * longer;
        numbers[i] = offset ? fround(number) + offset.values[at(offset)] : number;
        i += 1;
      }
    }
  }
  return numbers;
}

/* A zlib stream of so many bytes; it checks itself. */
async function inflated(name, bytes, count) {
  let size = 0;
  try {
    const found = new Uint8Array(count);
    const stream = new DecompressionStream("deflate"), reader = stream.readable.getReader(), writer = stream.writable.getWriter();
    for (const done of [writer.write(bytes), writer.close()]) done.catch(() => {}); // which the reader is told, too
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      found.set(part.value, size); // a RangeError where there are more
      size += part.value.length;
    }
    if (size === count) return found;
  } catch { /* told below */ }
  throw new Error(`has tensor ${name} whose stream is damaged or cut short; export both anew`);
}

/* Bytes of all numbers lie in planes, the lowest byte's first, each column by column; row by row comes out. Some rows at a time:
what is written stays in the processor's cache. As bytes: engines are slow where one line writes arrays of many types. */
function fromPlanes(planes, Kind, shape, delta) {
  const count = product(shape), size = Kind.BYTES_PER_ELEMENT, bytes = new Uint8Array(size * count);
  const rows = shape[0], columns = rows ? count / rows : 0, before = new Int32Array(columns);
  for (let first = 0; first < rows; first += ROWS_AT_ONCE) {
    const beyond = Math.min(first + ROWS_AT_ONCE, rows);
    for (let column = 0; column < columns; column += 1) {
      let to = first * columns + column, sum = before[column];
      for (let at = column * rows + first, end = column * rows + beyond; at < end; at += 1, to += columns) {
        let word = planes[at];
        for (let byte = 1; byte < size; byte += 1) word |= planes[byte * count + at] << (8 * byte);
        if (delta) word = sum = (sum + word) | 0;
        for (let byte = 0; byte < size; byte += 1) bytes[size * to + byte] = word >> (8 * byte);
      }
      before[column] = sum;
    }
  }
  return new Kind(bytes.buffer);
}

/* Versions 1 to 4. A method for each kind of field. */
class Tensors {
  constructor(header, start, buffer, sizes) {
    Object.assign(this, { header, start, buffer, sizes });
  }

  /* The bytes as an array of this kind. */
  view(name, dtypes, pattern) {
    const entry = entryOf(this.header, name), wanted = fitted(name, entry.shape, pattern, this.sizes);
    if (!Object.hasOwn(dtypes, entry.dtype)) throw new Error(`has tensor ${name} as ${entry.dtype}, not ${Object.keys(dtypes).join(" or ")}`);
    const Kind = dtypes[entry.dtype];
    const from = this.start + entry.data_offsets[0], count = product(wanted);
    if (from % Kind.BYTES_PER_ELEMENT === 0) return new Kind(this.buffer, from, count);
    return new Kind(this.buffer.slice(from, from + count * Kind.BYTES_PER_ELEMENT));
  }

  full(name, pattern) {
    return this.view(name, { F32: Float32Array }, pattern);
  }

  half(name, pattern) {
    return halves(this.view(name, { F16: Uint16Array }, pattern));
  }

  weight(name, pattern) {
    const columns = pattern.split(" ")[1];
    return normalised(name, this.half(name, pattern), this.sizes[columns] ?? Number(columns));
  }

  int8(name, pattern, shared) {
    const values = this.view(name, { I8: Int8Array }, pattern);
    const scales = this.half(name + SCALE, pattern.split(" ").with(shared, "1").join(" "));
    const [middle, last] = this.header[name].shape.slice(1);
    return new Quantised(values, finite(name + SCALE, scales), new Float32Array(middle * last));
  }

  index(name, pattern) {
    return this.view(name, { U8: Uint8Array, U16: Uint16Array, I32: Int32Array }, pattern);
  }

  parents(name, pattern) {
    return this.view(name, { I16: Int16Array }, pattern);
  }

  count(name, pattern) {
    return this.view(name, { I32: Int32Array }, pattern);
  }
}

/* Kind of field -> what its numbers must be. */
const CHECKS = {
  full: finite,
  half: finite,
  index: (name, values, bound) => {
    if (!values.every((value) => value >= 0 && value < bound)) throw new Error(`has tensor ${name} point outside 0..${bound - 1}`);
  },
  parents: (name, values) => {
    const sound = values.every((parent, joint) => (joint === 0 ? parent === -1 : parent >= 0 && parent < joint));
    if (!sound) throw new Error(`has tensor ${name} that is no skeleton`);
  },
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
