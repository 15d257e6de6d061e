/* Pose files opened in the browser: what most people have of the forms that mmlphuman/poses/motion_file.py reads.

File (.npz: a zip of arrays) -> {count, fps, frames, joints(i), translation(i), expression(i)}.
Read are, as axis-angle, (frames, 3 joints) or (frames, joints, 3): smpl_params.npz of a capture or a video estimator, with or
without hands, of SMPL-X or SMPL; AMASS, in one array or in parts; poses.npz of a model folder. */

/* The file's axis that points up -> the rotation, row by row, that turns it to +y. */
export const UP_ROTATIONS = {
  "x": [0, -1, 0, 1, 0, 0, 0, 0, 1],
  "-x": [0, 1, 0, -1, 0, 0, 0, 0, 1],
  "y": [1, 0, 0, 0, 1, 0, 0, 0, 1],
  "-y": [1, 0, 0, 0, -1, 0, 0, 0, -1],
  "z": [1, 0, 0, 0, 0, 1, 0, -1, 0],
  "-z": [1, 0, 0, 0, 0, -1, 0, 1, 0],
};
const POSE_DIM = 165, JAW_START = 66, EYES_START = 69, HANDS_START = 75, HANDS = 90, EXPRESSION_DIM = 10;
const BODY_ONLY = [66, 72]; // numbers a frame without hands; SMPL's two hand joints have no place in SMPL-X
/* Names, first of the 165 numbers, how many there may be, how many are taken, needed. */
const PARTS = [
  [["global_orient", "root_orient"], 0, [3], 3, true],
  [["body_pose", "pose_body"], 3, [63, 69], 63, true],
  [["left_hand_pose"], 75, [45], 45, false],
  [["right_hand_pose"], 120, [45], 45, false],
  [["pose_hand"], 75, [90], 90, false],
  [["jaw_pose", "pose_jaw"], 66, [3], 3, false],
];
const ELSEWHERE = "test.py and the desktop viewer read more forms";
const TYPES = { "<f4": Float32Array, "<f8": Float64Array, "<i4": Int32Array, "<i8": BigInt64Array };
const FAR = 20; // of a first frame from the origin, metres: animation/pose_file.py
const MAX_BYTES = 2 ** 29; // of one array
const ZIP_END = 0x06054b50, ZIP_ENTRY = 0x02014b50, STORED = 0, DEFLATED = 8;

export async function readPoseFile(file) {
  const entries = zipEntries(await file.arrayBuffer());
  const names = [...entries.keys()];
  const read = async (name, widths) => {
    if (!entries.has(name)) throw new Error(`${name} is missing; the file holds ${names.join(", ")}`);
    const array = parseArray(name, await unpack(name, entries.get(name)));
    const [, joints, three] = array.shape;
    const width = array.shape.length === 3 && three === 3 ? 3 * joints : array.shape.length === 2 ? joints : 0;
    if (widths && !widths.includes(width)) {
      throw new Error(`${name} has shape (${array.shape}); (frames, ${widths.join(" or ")}) is needed; ${ELSEWHERE}`);
    }
    if (widths && !array.data.every(Number.isFinite)) throw new Error(`${name} holds values that are no numbers`);
    return { ...array, row: (i) => array.data.subarray(i * width, (i + 1) * width) };
  };
  if (names.includes("Rh")) throw new Error(`is of EasyMocap; ${ELSEWHERE}`);
  const expressions = names.includes("expression") ? await read("expression") : null;
  if (expressions && !(expressions.shape[1] >= EXPRESSION_DIM && expressions.data.every(Number.isFinite))) {
    throw new Error(`expression has shape (${expressions.shape}), or values that are no numbers; (frames, ${EXPRESSION_DIM}) is needed`);
  }
  const rate = names.find((name) => name === "mocap_framerate" || name === "mocap_frame_rate");
  const fps = rate && Number((await read(rate)).data[0]);
  if (names.includes("poses")) {
    const poses = await read("poses", [POSE_DIM, 156, ...BODY_ONLY]);
    const translations = await read(names.includes("translations") ? "translations" : "trans", [3]);
    return sequence(translations, expressions, [poses], (i) => {
      const row = poses.row(i);
      if (BODY_ONLY.includes(row.length)) return [...row.slice(0, JAW_START), ...Array(POSE_DIM - JAW_START).fill(0)];
      const withJaw = row.length === POSE_DIM ? EYES_START : JAW_START; // SMPL+H has none
      return [...row.slice(0, withJaw), ...Array(HANDS_START - withJaw).fill(0), ...row.slice(-HANDS)];
    }, fps, names.includes("frames") && (await read("frames")).data);
  }
  const parts = [];
  for (const [aliases, start, widths, taken, needed] of PARTS) {
    const name = aliases.find((alias) => names.includes(alias)) ?? aliases[0];
    if (needed || names.includes(name)) parts.push({ ...(await read(name, widths)), start, taken });
  }
  return sequence(await read(names.includes("transl") ? "transl" : "trans", [3]), expressions, parts, (i) => {
    const joints = Array(POSE_DIM).fill(0);
    for (const { start, taken, row } of parts) joints.splice(start, taken, ...row(i).slice(0, taken));
    return joints;
  }, fps);
}

function sequence(translations, expressions, parts, joints, fps, frames) {
  const count = translations.shape[0];
  if (count === 0 || [...parts, expressions ?? translations].some((part) => part.shape[0] !== count)) {
    throw new Error("its arrays must hold one row for each frame, and at least one");
  }
  const far = Math.hypot(...translations.row(0));
  if (far > FAR) {
    throw new Error(`its first frame lies ${far.toPrecision(4)} from the origin, far for metres; give metres, or open it in test.py by --units cm or mm`);
  }
  const numbers = frames && frames.length === count ? Array.from(frames, Number) : Array.from({ length: count }, (_, i) => i);
  const expression = (i) => (expressions ? [...expressions.row(i).slice(0, EXPRESSION_DIM)] : Array(EXPRESSION_DIM).fill(0));
  return { count, joints, translation: (i) => [...translations.row(i)], expression, fps: fps > 0 ? fps : null, frames: numbers };
}

/* Name without .npy -> {method, size, bytes}, from the directory at the zip's end. */
function zipEntries(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== ZIP_END) end -= 1;
  if (end < 0) throw new Error("is no .npz file, or is cut short");
  const entries = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0 && view.getUint32(at, true) === ZIP_ENTRY; left -= 1) {
    const [nameSize, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameSize));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    entries.set(name.replace(/\.npy$/, ""), {
      method: view.getUint16(at + 10, true),
      size: view.getUint32(at + 24, true),
      bytes: new Uint8Array(buffer, start, view.getUint32(at + 20, true)),
    });
    at += 46 + nameSize + extra + comment;
  }
  return entries;
}

async function unpack(name, { method, size, bytes }) {
  if (size > MAX_BYTES) throw new Error(`${name} has ${size} bytes, too many`);
  if (method === STORED) return bytes.slice().buffer;
  if (method !== DEFLATED) throw new Error(`${name} is compressed in an unknown way (${method})`);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

/* A .npy file -> {shape, data}, row by row. */
function parseArray(name, buffer) {
  const view = new DataView(buffer);
  const long = view.getUint8(6) > 1; // version 1 has a short length
  const start = long ? 12 : 10;
  const size = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, start, size));
  const type = /'descr': '([^']*)'/.exec(header)?.[1];
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((part) => part.trim()).map(Number);
  if (!(type in TYPES)) throw new Error(`${name} has the type ${type}; numbers are needed`);
  if (header.includes("'fortran_order': True")) throw new Error(`${name} is stored column by column; save it row by row`);
  return { shape, data: new TYPES[type](buffer.slice(start + size), 0, shape.reduce((a, b) => a * b, 1)) };
}
