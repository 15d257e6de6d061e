/* A camera path through saved views: made here, played here, recorded here, and rendered by test.py --camera_path.

Views (keys) -> PathQuestion -> the camera of each picture, as the server's test.py would place it -> the viewer, or
pictures -> a video file. Every picture of a video is asked for and waited for by itself. */

import { at, number, openFiles, save, set, timestamp, write } from "./dom.js";
import { Recorder } from "./recorder.js";

const MAX_KEYS = 30, MAX_PATH = 3600; // of the protocol
const FPS = 30; // pictures a second of a path
const QUALITY = 95; // of the pictures that become a video
const LONGEST_SIDE = 1920; // pixels of a video

export class CameraPath {
  keys = []; // OrbitCameras
  views = null; // of each picture, while the path plays
  working = false; // a video is being made
  cancelled = false;

  constructor(viewer) {
    this.viewer = viewer;
    const click = (id, act) => at(id).addEventListener("click", () => this.guarded(act));
    click("add-key", () => this.add(viewer.camera));
    click("play-path", () => (this.views ? this.stop() : this.play()));
    click("record-path", () => (this.working ? this.cancel() : this.record()));
    click("save-path", () => this.save());
    click("load-path", () => at("path-file").click());
    openFiles("path-file", (file) => this.load(file), (text) => viewer.say(text));
    this.show();
  }

  async guarded(act) {
    try {
      await act();
    } catch (error) {
      this.viewer.say(error.message);
    }
  }

  // --- keys ------------------------------------------------------------------------------------------------

  add(camera) {
    if (this.keys.length >= MAX_KEYS) throw new Error(`a path goes through ${MAX_KEYS} views at most`);
    this.keys.push(camera);
    this.show();
  }

  show() {
    this.stop();
    const button = (text, title, act, disabled = false) => {
      const element = Object.assign(document.createElement("button"), { textContent: text, title, disabled });
      element.setAttribute("aria-label", title);
      element.addEventListener("click", act);
      return element;
    };
    at("keys").replaceChildren(...this.keys.map((key, i) => {
      const item = document.createElement("li");
      item.append(
        button(`View ${i + 1}`, `Fly to view ${i + 1}`, () => this.viewer.flyTo(key)),
        button("↑", `Earlier: view ${i + 1}`, () => this.swap(i, i - 1), i === 0),
        button("↓", `Later: view ${i + 1}`, () => this.swap(i, i + 1), i === this.keys.length - 1),
        button("✕", `Remove view ${i + 1}`, () => { this.keys.splice(i, 1); this.show(); }),
      );
      return item;
    }));
    for (const id of ["play-path", "record-path"]) set(id, "disabled", this.keys.length < 2);
    set("save-path", "disabled", this.keys.length === 0);
  }

  swap(i, j) {
    [this.keys[i], this.keys[j]] = [this.keys[j], this.keys[i]];
    this.show();
  }

  /* The keys as cameras of one size: what test.py --cam_path FILE --camera_path reads. */
  save() {
    save(this.keys.map((key) => this.viewer.cameraFile(key)), "camera_path.json");
  }

  async load(file) {
    const views = JSON.parse(await file.text());
    if (!Array.isArray(views) || !views.length || views.length > MAX_KEYS) {
      throw new Error(`is no list of 1 to ${MAX_KEYS} cameras`);
    }
    this.keys = views.map((view) => this.viewer.cameraOfFile(view));
    this.show();
  }

  // --- the way between them ----------------------------------------------------------------------------------

  /* The camera of each picture, of this width and height. */
  async ask(size) {
    const count = Math.round(number("key-seconds") * (this.keys.length - 1) * FPS) + 1;
    if (!(count > 1 && count <= MAX_PATH)) {
      throw new Error(`a path is up to ${MAX_PATH} pictures long; this one would have ${count}`);
    }
    const keys = this.keys.map((key) => key.view(...size));
    return (await this.viewer.connection.ask({ type: "ask_path", keys, count })).views;
  }

  async play() {
    const views = await this.ask(this.viewer.pictureSize());
    Object.assign(this, { views, began: performance.now() });
    write("play-path", "Stop");
    if (at("path-motion").checked) this.viewer.togglePlaying(true);
  }

  stop() {
    if (this.views && at("path-motion").checked) this.viewer.togglePlaying(false);
    this.views = null;
    write("play-path", "Play");
  }

  /* In the time that passes; the end is the last view. */
  step(now) {
    if (!this.views) return;
    const place = Math.floor((now - this.began) / 1000 * FPS);
    this.viewer.follow(this.views[Math.min(Math.max(place, 0), this.views.length - 1)]);
    if (place >= this.views.length) this.stop();
  }

  // --- a video -----------------------------------------------------------------------------------------------

  async record() {
    const { viewer } = this, { timeline } = viewer, first = timeline.place;
    const size = videoSize(viewer.pictureSize(number("resolution") / 100));
    const recorder = await Recorder.start(...size, FPS);
    this.stop();
    timeline.toggle(false);
    Object.assign(this, { working: true, cancelled: false });
    write("record-path", "Cancel");
    try {
      const views = await this.ask(size);
      for (const [i, view] of views.entries()) {
        if (this.cancelled) throw new Error("no video was made");
        write("path-progress", `picture ${i + 1} of ${views.length}`);
        if (at("path-motion").checked) timeline.goTo(first + Math.floor(i / FPS * timeline.fps() * number("speed")));
        const request = { ...viewer.request(1), camera: view, encoding: "jpeg", quality: QUALITY };
        const { header, picture } = await viewer.connection.ask(request);
        await viewer.onFrame(header, picture, null, view);
        await recorder.add(new Blob([picture], { type: "image/jpeg" }));
      }
      save(await recorder.finish(), `path_${timestamp()}.webm`);
    } finally {
      recorder.close();
      this.working = false;
      write("record-path", "Record");
      write("path-progress", "");
      viewer.asked = ""; // the usual picture again
    }
  }

  cancel() {
    this.cancelled = true;
  }
}

/* Even sides, which encoders like. */
function videoSize([width, height]) {
  const factor = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  return [width, height].map((side) => Math.max(2 * Math.round(side * factor / 2), 2));
}
