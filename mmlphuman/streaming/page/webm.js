/* Encoded pictures -> a WebM file: the few elements of Matroska that a video without sound needs.

An element is its id, the length of its content, the content: numbers big endian, or further elements. */

const EBML = 0x1a45dfa3, SEGMENT = 0x18538067, INFO = 0x1549a966, TRACKS = 0x1654ae6b, TRACK = 0xae, VIDEO = 0xe0;
const CLUSTER = 0x1f43b675, TIME = 0xe7, BLOCK = 0xa3;
/* Elements of the colours, and the numbers that stand for WebCodecs' words. */
const COLOUR = 0x55b0;
const COLOURS = {
  matrix: [0x55b1, { bt709: 1, smpte170m: 6 }],
  transfer: [0x55ba, { bt709: 1, smpte170m: 6, "iec61966-2-1": 13 }],
  primaries: [0x55bb, { bt709: 1, smpte170m: 6 }],
  fullRange: [0x55b9, { false: 1, true: 2 }],
};
const KEY_FRAME = 0x80;
const MILLISECOND = 1e6; // nanoseconds: the file's unit of time

/* chunks: {time: milliseconds, key, data: bytes}, the first a key frame and at most 30 s from one key frame to the next;
codec: "V_VP8" or "V_VP9"; duration: milliseconds; colors: a VideoColorSpace, or what there is of one. */
export function webm(chunks, { codec, width, height, duration, colors = {} }) {
  const clusters = [];
  for (const chunk of chunks) {
    if (chunk.key) clusters.push({ start: chunk.time, blocks: [element(TIME, uint(chunk.time))] });
    const { start, blocks } = clusters.at(-1);
    const after = chunk.time - start; // 16 bits
    blocks.push(element(BLOCK, [0x81, after >> 8, after & 255, chunk.key ? KEY_FRAME : 0], chunk.data));
  }
  const head = element(EBML,
    element(0x4286, uint(1)), element(0x42f7, uint(1)), element(0x42f2, uint(4)), element(0x42f3, uint(8)),
    element(0x4282, text("webm")), element(0x4287, uint(2)), element(0x4285, uint(2)));
  const info = element(INFO,
    element(0x2ad7b1, uint(MILLISECOND)), element(0x4489, double(duration)),
    element(0x4d80, text("avatar viewer")), element(0x5741, text("avatar viewer")));
  const tracks = element(TRACKS, element(TRACK,
    element(0xd7, uint(1)), element(0x73c5, uint(1)), element(0x83, uint(1)), element(0x86, text(codec)),
    element(VIDEO, element(0xb0, uint(width)), element(0xba, uint(height)), ...colour(colors))));
  const segment = element(SEGMENT, info, tracks, ...clusters.map(({ blocks }) => element(CLUSTER, ...blocks)));
  return new Blob([head, segment], { type: "video/webm" });
}

function colour(colors) {
  const known = Object.entries(COLOURS).filter(([name, [, numbers]]) => colors[name] in numbers);
  const told = known.map(([name, [id, numbers]]) => element(id, uint(numbers[colors[name]])));
  return told.length ? [element(COLOUR, ...told)] : [];
}

/* contents: bytes, blobs or arrays of numbers. */
function element(id, ...contents) {
  const content = new Blob(contents.map((each) => (Array.isArray(each) ? new Uint8Array(each) : each)));
  const size = uint(content.size, 7);
  return new Blob([new Uint8Array(uint(id)), new Uint8Array([1, ...size]), content]); // a length of eight bytes
}

/* In as few bytes as it takes, or in as many as are asked for. */
function uint(value, least = 1) {
  const bytes = [];
  for (; value > 0 || bytes.length < least; value = Math.floor(value / 256)) bytes.unshift(value % 256);
  return bytes;
}

function double(value) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return [...new Uint8Array(view.buffer)];
}

function text(value) {
  return [...new TextEncoder().encode(value)];
}
