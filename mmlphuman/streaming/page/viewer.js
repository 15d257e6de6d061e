/* The page: its controls and the mouse -> requests -> pictures and the state of things.

The controls hold the settings; `request` reads them. A step, once for each frame of the screen and never in a hidden
tab, moves poses on, asks for a picture if something has changed, and shows the state. */

import { Connection } from "./connection.js";
import { LossPlot } from "./loss_plot.js";
import { watchMouse } from "./mouse.js";
import { OrbitCamera } from "./orbit_camera.js";
import { UP_ROTATIONS, readPoseFile } from "./pose_file.js";

const MAX_SIDE = 4096, MIN_SIDE = 16; // pixels of a picture
const MOVING_MS = 300; // after the last touch the full resolution is asked for again
const MESSAGE_MS = 12000, SCREENSHOT_MS = 30000;
const DEFAULT_FPS = 30; // of poses that do not tell

const at = (id) => document.getElementById(id);
const number = (id) => Number(at(id).value);
const grouped = (value) => value.toLocaleString("en");
const write = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
const set = (id, name, value) => { if (at(id)[name] !== value) at(id)[name] = value; };

class Viewer {
  camera = new OrbitCamera();
  cameraPlace = 0; // among the capture's cameras: the one jumped to last
  movedAt = -Infinity;
  scene = null; // the server's welcome
  poses = null; // of the pose file
  places = { training: 0, given: 0 }; // the frame shown, for each kind of pose that has frames
  playing = false;
  playedAt = 0;
  share = 0; // of the next frame's time that has passed
  lastId = 0;
  asked = ""; // the last request
  askedAt = 0;
  screenshot = null; // {id, until} of the one under way
  shown = { id: 0 }; // header of the picture on the screen
  messageUntil = 0;

  constructor() {
    this.losses = new LossPlot(at("loss"));
    this.connection = new Connection(tokenOfAddress(), this);
    if (devicePixelRatio >= 2) at("resolution").value = 50;
    document.body.classList.toggle("folded", matchMedia("(max-width: 640px)").matches);
    watchMouse(at("stage"), (change) => this.move(change));
    this.listen();
    const step = (now) => {
      this.step(now);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // --- what the server says --------------------------------------------------------------------------------

  /* Another scene starts with its first camera and frame; the same one, after a pause, stays as it was. */
  onWelcome(welcome) {
    const known = this.scene;
    this.scene = welcome;
    this.asked = "";
    this.screenshot = null;
    if (known && sceneKey(known) === sceneKey(welcome)) return;
    write("title", welcome.title);
    document.title = `${welcome.title} - avatar viewer`;
    const cameras = welcome.cameras.map(
      ({ id, trained }, place) => new Option(`camera ${id}${trained ? "" : ", held out"}`, place));
    at("camera").replaceChildren(new Option(cameras.length ? "free" : "none", ""), ...cameras);
    this.places.training = 0;
    if (!welcome.frames.length && at("pose").value === "training") at("pose").value = "big";
    this.resetView();
  }

  onState(state) {
    const { iteration, iterations, steps_per_second: speed, history } = state;
    at("training").hidden = false;
    at("progress").value = iteration / Math.max(iterations, 1);
    write("progress-text", `${grouped(iteration)} of ${grouped(iterations)}, ${speed.toFixed(1)} / s`);
    this.losses.add(history);
  }

  onProblem({ message, id }) {
    this.say(message);
    if (this.screenshot && id === this.screenshot.id) this.screenshot = null;
  }

  async onFrame(header, picture) {
    const blob = new Blob([picture], { type: `image/${header.encoding}` });
    if (this.screenshot && header.id === this.screenshot.id) {
      this.screenshot = null;
      save(blob, `screenshot_${timestamp()}.png`);
    }
    const bitmap = await createImageBitmap(blob);
    if (header.id > this.shown.id) {
      this.shown = header;
      const canvas = at("picture");
      set("picture", "width", bitmap.width);
      set("picture", "height", bitmap.height);
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
    }
    bitmap.close();
  }

  // --- camera ----------------------------------------------------------------------------------------------

  /* Width and height of the place for the picture, in the screen's pixels, at most what can be asked for. */
  pictureSize(share = 1) {
    const [width, height] = [at("stage").clientWidth, at("stage").clientHeight].map((side) => side * devicePixelRatio);
    const factor = Math.min(share, MAX_SIDE / Math.max(width, height, 1));
    return [width, height].map((side) => Math.max(Math.round(side * factor), MIN_SIDE));
  }

  move(change) {
    this.camera = change(this.camera);
    this.movedAt = performance.now();
    at("camera").value = "";
  }

  takeView(view) {
    const { center, up } = this.scene ?? new OrbitCamera();
    this.camera = OrbitCamera.fromView(view, center, up);
    at("camera").value = "";
  }

  /* Beyond the ends it goes round. */
  jumpToCamera(place) {
    const cameras = this.scene?.cameras ?? [];
    if (!cameras.length) return;
    this.cameraPlace = (place + cameras.length) % cameras.length;
    this.takeView(cameras[this.cameraPlace].camera);
    at("camera").value = this.cameraPlace;
  }

  resetView() {
    const { center, up } = this.scene ?? new OrbitCamera();
    this.camera = new OrbitCamera({ center, up });
    this.jumpToCamera(0);
  }

  saveCamera() {
    const { w2c, fovx, width, height } = this.camera.view(...this.pictureSize());
    const focal = width / (2 * Math.tan(fovx * Math.PI / 360));
    const K = [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1];
    save(new Blob([JSON.stringify({ w2c, K, fovx, height, width }, null, 1)], { type: "application/json" }), "camera.json");
  }

  async loadCamera(file) {
    const view = JSON.parse(await file.text());
    const numbers = [view.fovx, view.width, view.height, ...(view.w2c?.flat() ?? [])];
    if (numbers.length !== 19 || !numbers.every(Number.isFinite)) {
      throw new Error("is no camera file: w2c (16 numbers), fovx, height and width are needed");
    }
    this.takeView({ ...view, w2c: view.w2c.flat() });
  }

  // --- poses -----------------------------------------------------------------------------------------------

  /* Numbers of the frames that the chosen kind of pose has. */
  frames() {
    const kind = at("pose").value;
    return kind === "training" ? this.scene?.frames ?? [] : kind === "given" ? this.poses?.frames ?? [] : [];
  }

  stepFrame(steps) {
    const kind = at("pose").value, count = this.frames().length;
    if (count) this.places[kind] = (((this.places[kind] + steps) % count) + count) % count;
  }

  togglePlaying(playing = !this.playing) {
    this.playing = playing;
    this.share = 0;
    this.playedAt = performance.now();
  }

  /* In the time that passes, whatever the link: a slow one leaves frames out. */
  play(now) {
    if (!this.playing) return;
    const fps = (at("pose").value === "given" && this.poses?.fps) || DEFAULT_FPS;
    this.share += Math.max(now - this.playedAt, 0) / 1000 * fps * number("speed");
    this.playedAt = now;
    this.stepFrame(Math.floor(this.share));
    this.share %= 1;
  }

  async loadPoses(file) {
    this.poses = await readPoseFile(file);
    this.places.given = 0;
    at("pose").value = "given";
    this.say(`${file.name}: ${this.poses.count} poses`);
  }

  pose() {
    let kind = at("pose").value;
    if (kind === "given" && !this.poses) kind = "t"; // nothing read yet
    const given = kind === "given", place = this.places[kind];
    return {
      kind,
      frame: kind === "training" ? place : 0,
      joints: given ? this.poses.joints(place) : null,
      expression: given ? this.poses.expression(place) : null,
      translation: given ? this.poses.translation(place) : null,
      rotation: given ? UP_ROTATIONS[at("up").value] : null,
      use_translation: !at("no-translation").checked,
      hands: at("hands").value,
    };
  }

  // --- asking ----------------------------------------------------------------------------------------------

  request(share) {
    const color = parseInt(at("background").value.slice(1), 16);
    return {
      type: "render",
      camera: this.camera.view(...this.pictureSize(share)),
      pose: this.pose(),
      project: at("project").checked,
      background: [16, 8, 0].map((shift) => ((color >> shift) & 255) / 255),
      gaussian_scale: number("gaussian-scale"),
      show: at("show").value,
      light: at("light").checked,
      encoding: "jpeg",
      quality: number("quality"),
    };
  }

  /* At once if something was changed; while training also again and again, `rate` times a second. */
  ask(now) {
    if (!this.connection.connected) return;
    if (this.screenshot) {
      if (now < this.screenshot.until) return; // a newer request would take its place
      this.screenshot = null;
      this.say("the screenshot's picture did not come; try again");
    }
    const moving = this.playing || now - this.movedAt < MOVING_MS;
    const percent = Math.min(number("resolution"), moving ? number("moving-resolution") : 100);
    const request = this.request(percent / 100);
    const text = JSON.stringify(request);
    const again = this.scene.training && this.connection.idle && now - this.askedAt >= 1000 / number("rate");
    if (text === this.asked && !again) return;
    this.asked = text;
    this.askedAt = now;
    this.lastId += 1;
    this.connection.submit({ ...request, id: this.lastId });
  }

  takeScreenshot() {
    if (!this.connection.connected || !this.shown.id) return this.say("there is no picture yet");
    this.lastId += 1;
    this.screenshot = { id: this.lastId, until: performance.now() + SCREENSHOT_MS };
    this.asked = ""; // then the usual picture again
    this.connection.submit({ ...this.request(1), encoding: "png", id: this.lastId });
  }

  // --- once for each frame of the screen ---------------------------------------------------------------------

  step(now) {
    this.play(now);
    this.ask(now);
    this.showConnection(now);
    this.showControls(now);
    if (this.shown.id) this.showNumbers();
  }

  showConnection(now) {
    const { phase, connected, reason, refused, retryAt } = this.connection;
    set("connection", "className", phase);
    write("connection", phase === "waiting" ? "not connected" : phase);
    set("notice", "hidden", connected);
    write("reason", reason);
    const seconds = Math.max(Math.ceil((retryAt - now) / 1000), 0);
    write("retry", phase === "waiting" ? `next try in ${seconds} s` : "");
    set("connect", "hidden", phase !== "waiting");
    if (phase !== "connecting") set("token-row", "hidden", !refused);
  }

  showControls(now) {
    const frames = this.frames(), place = this.places[at("pose").value];
    if (this.scene?.training) set("training", "hidden", false);
    set("light-row", "hidden", !this.scene?.light);
    set("file-options", "hidden", at("pose").value !== "given");
    set("transport", "hidden", !frames.length);
    set("frame", "max", String(Math.max(frames.length - 1, 0)));
    if (frames.length) {
      set("frame", "value", String(place));
      write("frame-number", `frame ${frames[place]} (${place + 1}/${frames.length})`);
    }
    write("play", this.playing ? "Pause" : "Play");
    set("fovx", "value", this.camera.pictureFovx(...this.pictureSize()).toFixed(1));
    for (const output of document.querySelectorAll("#panel output")) {
      const input = output.previousElementSibling;
      const text = input.value + (input.dataset.unit ?? "");
      if (output.textContent !== text) output.textContent = text;
    }
    at("stage").style.backgroundColor = at("background").value;
    if (now > this.messageUntil) set("message", "hidden", true);
    set("fold", "textContent", document.body.classList.contains("folded") ? "Controls" : "Hide controls");
  }

  showNumbers() {
    const [fps, megabytes] = this.connection.rates();
    const { width, height, render_ms: drawn, encode_ms: encoded, gaussians, iteration, distance } = this.shown;
    write("speeds", `${fps.toFixed(0)} fps, ${megabytes.toFixed(2)} MB/s`);
    write("size", `${width} x ${height}`);
    write("times", `drawn ${drawn.toFixed(0)} ms, encoded ${encoded.toFixed(0)} ms`);
    write("gaussians", `${grouped(gaussians)} Gaussians`);
    write("iteration", `iteration ${grouped(iteration)}`);
    write("distance", `pose ${distance.toFixed(1)}° from training`);
  }

  say(text) {
    write("message", text);
    at("message").hidden = false;
    this.messageUntil = performance.now() + MESSAGE_MS;
  }

  // --- controls and keys -------------------------------------------------------------------------------------

  listen() {
    const click = (id, act) => at(id).addEventListener("click", act);
    click("play", () => this.togglePlaying());
    click("screenshot", () => this.takeScreenshot());
    click("help-button", () => at("help").showModal());
    click("help-close", () => at("help").close());
    click("save-camera", () => this.saveCamera());
    click("load-camera", () => at("camera-file").click());
    click("load-poses", () => at("pose-file").click());
    click("level", () => this.move((camera) => camera.levelled()));
    click("reset", () => this.resetView());
    click("fold", () => document.body.classList.toggle("folded"));
    at("camera").addEventListener("change", (event) => event.target.value && this.jumpToCamera(number("camera")));
    at("fovx").addEventListener("input", () => this.move((camera) => camera.withFovx(number("fovx"), ...this.pictureSize())));
    at("frame").addEventListener("input", () => { this.places[at("pose").value] = number("frame"); });
    at("pose").addEventListener("change", () => {
      if (at("pose").value === "given" && !this.poses) at("pose-file").click();
    });
    this.openFiles("camera-file", (file) => this.loadCamera(file));
    this.openFiles("pose-file", (file) => this.loadPoses(file));
    at("notice").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = at("token").value.trim() || this.connection.token;
      if (token) history.replaceState(null, "", `#token=${encodeURIComponent(token)}`); // for the next visit
      this.connection.reconnect(token);
    });
    addEventListener("hashchange", () => this.connection.reconnect(tokenOfAddress()));
    addEventListener("resize", () => this.losses.draw());
    addEventListener("keydown", (event) => this.press(event));
  }

  openFiles(id, read) {
    at(id).addEventListener("change", async (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // the same file can be chosen again
      try {
        if (file) await read(file);
      } catch (error) {
        this.say(`${file.name}: ${error.message}`);
      }
    });
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || at("help").open) return;
    if (event.target.matches("select, input:not([type=range], [type=checkbox])")) return; // somebody types
    const click = (id) => at(id).click();
    const keys = {
      h: () => at("help").showModal(),
      p: () => this.takeScreenshot(),
      r: () => this.resetView(),
      c: () => click("fold"),
      t: () => click("project"),
      l: () => this.scene?.light && click("light"),
    };
    at("show").querySelectorAll("option").forEach((option, i) => { keys[i + 1] = () => { option.selected = true; }; });
    if (!event.target.matches("input, button, summary")) { // which have a use for these themselves
      keys[" "] = () => this.togglePlaying();
      keys.ArrowLeft = () => this.stepFrame(-1);
      keys.ArrowRight = () => this.stepFrame(1);
      keys.ArrowUp = () => this.jumpToCamera(this.cameraPlace - 1);
      keys.ArrowDown = () => this.jumpToCamera(this.cameraPlace + 1);
    }
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/* What tells one scene from another. */
function sceneKey({ title, center, up, cameras, frames }) {
  return JSON.stringify([title, center, up, cameras.map(({ id }) => id), frames]);
}

/* Behind the #, which browsers do not send. */
function tokenOfAddress() {
  return new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get("token") ?? "";
}

function timestamp() {
  return new Date().toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "");
}

/* As a download. */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

new Viewer();
