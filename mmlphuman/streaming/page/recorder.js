/* Pictures -> a video file, with the browser's encoder: every picture has its exact time, however long drawing took.

Browsers lend it to pages of this machine (an SSH tunnel's too) and over https; elsewhere test.py renders the path. */

import { webm } from "./webm.js";

const CODECS = { "vp09.00.41.08": "V_VP9", vp8: "V_VP8" }; // many players show VP8 as if its colours were others
const BITS_PER_PIXEL = 0.2; // generous: the pictures are compressed twice
const LEAST_BITS = 2e6; // a second
const KEY_EVERY = 60; // pictures
const QUEUE = 4; // pictures that wait for the encoder

export class Recorder {
  chunks = [];
  encoder = null;
  count = 0; // of pictures
  colors = {}; // as the encoder wrote them
  fault = null;

  /* An Error that can be shown where the browser makes no videos. */
  static async start(width, height, fps) {
    const bitrate = Math.max(BITS_PER_PIXEL * width * height * fps, LEAST_BITS);
    const config = { width, height, bitrate, framerate: fps };
    for (const codec of globalThis.VideoEncoder ? Object.keys(CODECS) : []) {
      const { supported } = await VideoEncoder.isConfigSupported({ codec, ...config });
      if (supported) return new Recorder({ codec, ...config });
    }
    throw new Error(isSecureContext
      ? "this browser makes no videos; save the path, and test.py renders it"
      : "browsers make videos for localhost (an SSH tunnel) or https only; or save the path, and test.py renders it");
  }

  constructor(config) {
    this.config = config;
    this.encoder = new VideoEncoder({
      output: (chunk, { decoderConfig }) => {
        this.colors = decoderConfig?.colorSpace ?? this.colors;
        const data = new Uint8Array(chunk.byteLength);
        chunk.copyTo(data);
        this.chunks.push({ time: Math.round(chunk.timestamp / 1000), key: chunk.type === "key", data });
      },
      error: (error) => { this.fault = error; },
    });
    this.encoder.configure(config);
  }

  /* The next picture, a blob. */
  async add(picture) {
    const bitmap = await createImageBitmap(picture);
    const frame = new VideoFrame(bitmap, { timestamp: Math.round(1e6 * this.count / this.config.framerate) });
    bitmap.close();
    this.encoder.encode(frame, { keyFrame: this.count % KEY_EVERY === 0 });
    frame.close();
    this.count += 1;
    while (this.encoder.encodeQueueSize > QUEUE && !this.fault) await new Promise((resolve) => setTimeout(resolve, 1));
    if (this.fault) throw this.fault;
  }

  /* The file. */
  async finish() {
    await this.encoder.flush();
    const { codec, width, height, framerate } = this.config;
    const duration = 1000 * this.count / framerate;
    return webm(this.chunks, { codec: CODECS[codec], width, height, duration, colors: this.colors });
  }

  close() {
    if (this.encoder.state !== "closed") this.encoder.close();
  }
}
