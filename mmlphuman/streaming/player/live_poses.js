/* A stream of poses (mmlphuman/streaming/pose_stream.py): one websocket, kept alive, whose newest message counts.

Binary message -> {number, joints, expression, translation}. Its layout: protocol.py, LivePose. */

const MAGIC = "MMLP", VERSION = 1, HEADER = 12; // bytes: magic, version, number
const POSE_DIM = 165, EXPRESSION_DIM = 10, NUMBERS = POSE_DIM + EXPRESSION_DIM + 3;
const MOST = 10000; // of any number
const FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 10000; // between attempts; each is twice the one before
const RATE_MS = 2000;

export class LivePoses {
  pose = null; // the newest
  count = 0; // of all so far
  pause = FIRST_PAUSE_MS;
  phase = "connecting";
  arrivals = []; // when, of the last

  /* address: ws:// or wss://; an Error for anything else. */
  constructor(address) {
    if (!/^wss?:\/\//.test(address)) throw new Error(`?poses=${address} is no address of a stream; it begins with ws:// or wss://`);
    this.address = address;
    this.open();
  }

  open() {
    const socket = new WebSocket(this.address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.phase = "connected"; };
    socket.onmessage = ({ data }) => this.receive(data, socket);
    socket.onclose = () => {
      if (this.phase !== "refused") this.phase = "waiting";
      setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    };
  }

  receive(data, socket) {
    try {
      this.pose = parseLivePose(data);
    } catch (error) {
      this.phase = "refused";
      this.reason = error.message;
      socket.close();
      return;
    }
    this.phase = "connected";
    this.pause = FIRST_PAUSE_MS;
    this.count += 1;
    const now = performance.now();
    this.arrivals = [...this.arrivals.filter((time) => time > now - RATE_MS), now];
  }

  /* For the page's status line. */
  get state() {
    if (this.phase === "refused") return `live: ${this.reason}`;
    if (this.phase !== "connected") return `live: ${this.phase === "waiting" ? "the stream does not answer" : "connecting"}`;
    const since = performance.now() - RATE_MS;
    return `live: ${(this.arrivals.filter((time) => time > since).length * 1000 / RATE_MS).toFixed(0)} poses/s`;
  }
}

export function parseLivePose(data) {
  if (!(data instanceof ArrayBuffer) || data.byteLength < HEADER) throw new Error("no poses come from there");
  const view = new DataView(data);
  if (new TextDecoder("latin1").decode(new Uint8Array(data, 0, 4)) !== MAGIC) throw new Error("no poses come from there");
  const version = view.getUint32(4, true);
  if (version !== VERSION) throw new Error(`poses of version ${version}, this page reads ${VERSION}`);
  if (data.byteLength !== HEADER + 4 * NUMBERS) throw new Error(`a pose of ${data.byteLength} bytes, ${HEADER + 4 * NUMBERS} are needed`);
  const numbers = Array.from({ length: NUMBERS }, (_, i) => view.getFloat32(HEADER + 4 * i, true));
  if (!numbers.every((value) => Math.abs(value) <= MOST)) throw new Error("a pose holds numbers that are none");
  return {
    number: view.getUint32(8, true),
    joints: numbers.slice(0, POSE_DIM),
    expression: numbers.slice(POSE_DIM, POSE_DIM + EXPRESSION_DIM),
    translation: numbers.slice(POSE_DIM + EXPRESSION_DIM),
  };
}
