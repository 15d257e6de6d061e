/* One websocket to the server that the page came from, kept alive. Messages: mmlphuman/streaming/messages.py.

Requests -> JSON -> server; its frames -> header and picture -> the listener; a question -> its answer.

A server takes a viewer's newest request only. So a question is sent when nothing is under way, and nothing else until it
is answered. */

export const PROTOCOL_VERSION = 3;
const MAGIC = "MMLF"; // then the header's length (uint32, little endian), header (JSON), picture
const MAX_OUTSTANDING = 2; // one being drawn, one waiting or on its way
const LOST_MS = 20000; // an unanswered request then no longer counts
const ANSWER_MS = 30000; // a question that is not answered by then is given up
const CONNECT_MS = 8000;
const FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 10000; // between attempts; each is twice the one before
const RATE_MS = 2000; // fps and MB/s are means over this long

export class Connection {
  lastId = 0; // of all requests
  question = null; // {request, resolve, reject, timer} of the one that is answered before anything else
  asking = Promise.resolve(); // the end of the last question

  /* listener: onWelcome(message), onState(message), onProblem(message), and onFrame(header, picture, took), awaited;
  took: milliseconds since it was sent, or since the picture before it came. */
  constructor(token, listener) {
    this.token = token;
    this.listener = listener;
    this.pause = FIRST_PAUSE_MS;
    this.sent = new Map(); // id -> when, of the requests under way
    this.waiting = null; // the newest request, not sent yet
    this.arrivals = []; // [when, bytes]
    this.open();
  }

  get connected() {
    return this.phase === "connected";
  }

  /* Nothing is asked for that was not answered. */
  get idle() {
    return this.waiting === null && this.question === null && this.sent.size === 0;
  }

  /* At once, with this token from now on. */
  reconnect(token) {
    this.token = token;
    this.pause = FIRST_PAUSE_MS;
    this.open();
  }

  /* Replaces a request that was not sent yet; its id. */
  submit(request) {
    this.lastId += 1;
    this.waiting = { ...request, id: this.lastId };
    this.send();
    return this.lastId;
  }

  /* What the server answers, a message or {header, picture}; an Error that can be shown if it does not. */
  ask(request) {
    const answered = this.asking.then(() => new Promise((resolve, reject) => {
      if (!this.connected) throw new Error("there is no connection");
      this.lastId += 1;
      const timer = setTimeout(() => this.answer(null, new Error("the answer did not come; try again")), ANSWER_MS);
      this.question = { request: { ...request, id: this.lastId }, resolve, reject, timer };
      this.send();
    }));
    this.asking = answered.catch(() => {});
    return answered;
  }

  answer(content, error = null) {
    const { resolve, reject, timer } = this.question;
    clearTimeout(timer);
    this.question = null;
    if (error) reject(error);
    else resolve(content);
    this.send();
  }

  answers(id) {
    return this.question !== null && this.question.request.id === id;
  }

  /* [pictures a second, megabytes a second] */
  rates() {
    const since = performance.now() - RATE_MS;
    this.arrivals = this.arrivals.filter(([when]) => when > since);
    const bytes = this.arrivals.reduce((sum, [, size]) => sum + size, 0);
    return [this.arrivals.length * 1000 / RATE_MS, bytes / RATE_MS / 1000];
  }

  open() {
    clearTimeout(this.timer);
    this.leave();
    this.phase = "connecting";
    this.reason = "connecting";
    this.refused = false;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.say({ type: "hello", protocol: PROTOCOL_VERSION, token: this.token, client: "browser" });
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = (event) => this.closed(event.reason);
    this.timer = setTimeout(() => socket.close(), CONNECT_MS);
  }

  leave() {
    if (this.socket) {
      this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
    }
    this.sent.clear();
    this.waiting = null;
    if (this.question) this.answer(null, new Error("the connection was lost"));
  }

  closed(why) {
    clearTimeout(this.timer);
    this.leave();
    if (!this.refused) {
      this.reason = this.connected ? "the connection was lost" : "the server does not answer";
      if (why) this.reason += ` (${why})`;
    }
    const pause = this.refused ? LONGEST_PAUSE_MS : this.pause;
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    this.phase = "waiting";
    this.retryAt = performance.now() + pause;
    this.timer = setTimeout(() => this.open(), pause);
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }

  send() {
    const now = performance.now();
    for (const [id, when] of this.sent) if (when < now - LOST_MS) this.sent.delete(id);
    if (!this.connected) return;
    const request = this.question?.request ?? this.waiting;
    const most = this.question ? 1 : MAX_OUTSTANDING;
    if (request === null || this.sent.size >= most) return;
    if (!this.question) this.waiting = null;
    this.sent.set(request.id, now);
    this.say(request);
  }

  async receive(data) {
    if (typeof data !== "string") return this.receiveFrame(data);
    const message = JSON.parse(data);
    if (message.type === "refused") {
      this.refused = true; // the server closes the connection
      this.reason = message.reason;
    } else if (message.type === "welcome") {
      clearTimeout(this.timer);
      this.phase = "connected";
      this.pause = FIRST_PAUSE_MS;
      this.listener.onWelcome(message);
    } else if (message.type === "state") {
      this.listener.onState(message);
    } else if (message.type === "problem") {
      if (this.answers(message.id)) this.answer(null, new Error(message.message));
      else this.listener.onProblem(message);
      if (message.id !== null) this.settle(message.id);
    } else if (this.answers(message.id)) {
      this.answer(message);
      this.settle(message.id);
    }
  }

  async receiveFrame(data) {
    const { header, picture } = parseFrame(data);
    const now = performance.now();
    const took = now - Math.max(this.sent.get(header.id) ?? now, this.arrivals.at(-1)?.[0] ?? 0);
    this.arrivals.push([now, data.byteLength]);
    try {
      if (this.answers(header.id)) this.answer({ header, picture });
      else await this.listener.onFrame(header, picture, took);
    } finally {
      this.settle(header.id); // only now: a slow browser asks for less
    }
  }

  /* An answer also settles all older requests: the server leaves out stale ones. */
  settle(id) {
    for (const other of this.sent.keys()) if (other <= id) this.sent.delete(other);
    this.send();
  }
}

/* ArrayBuffer of a binary message -> {header, picture: bytes}. */
export function parseFrame(data) {
  const view = new DataView(data);
  const start = MAGIC.length + 4;
  const decode = (from, size) => new TextDecoder().decode(new Uint8Array(data, from, size));
  if (data.byteLength < start || decode(0, MAGIC.length) !== MAGIC) throw new Error("not a picture of this protocol");
  const size = view.getUint32(MAGIC.length, true);
  return { header: JSON.parse(decode(start, size)), picture: new Uint8Array(data, start + size) };
}
