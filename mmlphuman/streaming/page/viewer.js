/* The page: its controls and the mouse -> requests -> pictures and the state of things.

The controls hold the settings; `request` reads them. A step, once for each frame of the screen and never in a hidden
tab, moves poses and camera on, asks for a picture if something has changed, and shows the state. What has a file of its
own: the connection, the camera that the mouse moves, poses and frames (timeline), joints turned by hand, lines over the
picture (overlay), photographs, camera paths, the size of pictures while the view moves (pace). */

import { CameraPath } from "./camera_path.js";
import { Connection } from "./connection.js";
import { at, grouped, number, openFiles, press, remember, save, set, timestamp, watchHelp, write } from "./dom.js";
import { Joints, poseFile } from "./joints.js";
import { LossPlot } from "./loss_plot.js";
import { watchMouse } from "./mouse.js";
import { OrbitCamera } from "./orbit_camera.js";
import { Overlay, SWITCHES } from "./overlay.js";
import { Pace } from "./pace.js";
import { Photograph } from "./photograph.js";
import { Timeline } from "./timeline.js";

const MAX_SIDE = 4096, MIN_SIDE = 16; // pixels of a picture
const MOVING_MS = 300; // after the last touch the full resolution is asked for again
const FLIGHT_MS = 600; // to another camera
const MESSAGE_MS = 12000;
const DARK = 110; // of 255: a background below it

class Viewer {
  camera = new OrbitCamera();
  cameras = []; // entries of the capture's, held-out ones last
  cameraPlace = 0; // among them: the one jumped to last
  flight = null; // {from, to, began, arrive} of the camera, to another one
  movedAt = -Infinity;
  scene = null; // the server's welcome
  asked = ""; // the last request
  askedAt = 0;
  views = new Map(); // id -> {camera, share} of the requests under way
  shown = { id: 0 }; // header of the picture on the screen
  shownView = null; // its camera
  messageUntil = 0;

  constructor() {
    this.losses = new LossPlot(at("loss"));
    this.timeline = new Timeline();
    this.joints = new Joints();
    this.pace = new Pace();
    this.overlay = new Overlay(at("overlay"));
    this.connection = new Connection(tokenOfAddress(), this);
    this.photograph = new Photograph(this.connection);
    this.path = new CameraPath(this);
    for (const id of ["background", "auto-resolution"]) remember(id);
    if (devicePixelRatio >= 2) at("resolution").value = 50;
    document.body.classList.toggle("folded", matchMedia("(max-width: 640px)").matches);
    watchMouse(at("stage"), {
      move: (change) => this.move(change),
      hover: (x, y) => this.hover(x, y),
      click: (x, y) => this.flyToCameraAt(x, y),
      doubleClick: (x, y) => this.turnAbout(x, y),
    });
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
    this.views.clear();
    this.pace.answered(0, true);
    if (known && sceneKey(known) === sceneKey(welcome)) return;
    write("title", welcome.title);
    document.title = `${welcome.title} - avatar viewer`;
    this.cameras = welcome.cameras;
    const options = this.cameras.map(
      ({ id, trained }, place) => new Option(`camera ${id}${trained ? "" : ", held out"}`, place));
    at("camera").replaceChildren(new Option(options.length ? "free" : "none", ""), ...options);
    this.timeline.setScene(welcome);
    this.overlay.setScene(welcome);
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
    if (id !== null) this.pace.answered(performance.now(), id >= this.connection.lastId);
  }

  /* took: milliseconds, or null where that says nothing. view: the picture's camera, if it is not a usual request's. */
  async onFrame(header, picture, took, view = null) {
    const bitmap = await createImageBitmap(new Blob([picture], { type: `image/${header.encoding}` }));
    const { camera, share } = this.views.get(header.id) ?? { camera: view, share: 1 };
    for (const id of this.views.keys()) if (id <= header.id) this.views.delete(id);
    if (took !== null) {
      // While training, what passes between two pictures is not spent on drawing them.
      this.pace.note(this.scene.training ? header.render_ms + header.encode_ms : took, share);
      this.pace.answered(performance.now(), this.views.size === 0);
    }
    if (header.id > this.shown.id) {
      this.shown = header;
      this.shownView = camera;
      set("picture", "width", bitmap.width);
      set("picture", "height", bitmap.height);
      at("picture").getContext("2d").drawImage(bitmap, 0, 0);
      this.drawOverlay(); // in the same frame of the screen
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

  /* By hand, which ends whatever moves the camera by itself. */
  move(change) {
    this.path.stop();
    this.flight = null;
    this.takeCamera(change(this.camera));
  }

  takeCamera(camera) {
    this.camera = camera;
    this.movedAt = performance.now();
    at("camera").value = "";
  }

  orbitCamera(view) {
    const { center, up } = this.scene ?? new OrbitCamera();
    return OrbitCamera.fromView(view, center, up);
  }

  /* As a camera path goes on. */
  follow(view) {
    this.takeCamera(this.orbitCamera(view));
  }

  /* Beyond the ends it goes round. */
  jumpToCamera(place) {
    if (!this.cameras.length) return;
    this.cameraPlace = (place + this.cameras.length) % this.cameras.length;
    this.move(() => this.orbitCamera(this.cameras[this.cameraPlace].camera));
    this.movedAt = -Infinity; // a jump is no movement
    at("camera").value = this.cameraPlace;
  }

  /* arrive(): at the end. */
  flyTo(camera, arrive = () => {}) {
    this.path.stop();
    this.flight = { from: this.camera, to: camera, began: performance.now(), arrive };
  }

  fly(now) {
    if (!this.flight) return;
    const { from, to, began, arrive } = this.flight;
    const passed = Math.min(Math.max(now - began, 0) / FLIGHT_MS, 1);
    this.takeCamera(passed < 1 ? from.towards(to, passed * passed * (3 - 2 * passed)) : to);
    if (passed < 1) return;
    this.flight = null;
    arrive();
  }

  flyToCameraAt(x, y) {
    const entry = this.overlay.cameraAt(x, y);
    if (entry) this.flyTo(this.orbitCamera(entry.camera), () => this.jumpToCamera(this.cameras.indexOf(entry)));
  }

  hover(x, y) {
    this.overlay.hovered = this.overlay.cameraAt(x, y);
    at("stage").classList.toggle("on-camera", this.overlay.hovered !== null);
  }

  /* From now on about the surface point that is seen there, if one is. */
  async turnAbout(x, y) {
    if (this.overlay.cameraAt(x, y)) return;
    const [width, height] = this.pictureSize();
    const { clientWidth, clientHeight } = at("stage");
    const pixel = (value, side, client) => Math.min(Math.max(Math.floor(value * side / client), 0), side - 1);
    try {
      const { point } = await this.connection.ask({
        type: "ask_point",
        camera: this.camera.view(width, height),
        column: pixel(x, width, clientWidth),
        row: pixel(y, height, clientHeight),
        pose: this.pose(),
        project: at("project").checked,
      });
      if (!point) return this.say("there is no surface to turn about; double-click on the person");
      this.camera = this.camera.about(point); // the view stays as it is
      this.say("turns about this point now");
    } catch (error) {
      this.say(error.message);
    }
  }

  resetView() {
    const { center, up } = this.scene ?? new OrbitCamera();
    this.move(() => new OrbitCamera({ center, up }));
    this.jumpToCamera(0);
  }

  /* The content of a camera file. */
  cameraFile(camera) {
    const { w2c, fovx, width, height } = camera.view(...this.pictureSize());
    const focal = width / (2 * Math.tan(fovx * Math.PI / 360));
    return { w2c, K: [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1], fovx, height, width };
  }

  cameraOfFile(view) {
    const numbers = [view?.fovx, view?.width, view?.height, ...(view?.w2c?.flat() ?? [])];
    if (numbers.length !== 19 || !numbers.every(Number.isFinite)) {
      throw new Error("is no camera file: w2c (16 numbers), fovx, height and width are needed");
    }
    return this.orbitCamera({ ...view, w2c: view.w2c.flat() });
  }

  async loadCamera(file) {
    const camera = this.cameraOfFile(JSON.parse(await file.text()));
    this.move(() => camera);
  }

  // --- poses -----------------------------------------------------------------------------------------------

  pose() {
    return this.timeline.pose(this.joints.turns());
  }

  togglePlaying(playing) {
    this.timeline.toggle(playing);
  }

  async savePose() {
    try {
      const { pose } = await this.connection.ask({ type: "ask_pose", pose: this.pose() });
      save(poseFile(pose), "pose.json");
    } catch (error) {
      this.say(error.message);
    }
  }

  // --- asking ----------------------------------------------------------------------------------------------

  request(share) {
    const color = this.background();
    return {
      type: "render",
      camera: this.camera.view(...this.pictureSize(share)),
      pose: this.pose(),
      project: at("project").checked,
      background: color.map((value) => value / 255),
      gaussian_scale: number("gaussian-scale"),
      show: at("show").value,
      light: at("light").checked,
      encoding: "jpeg",
      quality: number("quality"),
    };
  }

  /* Red, green, blue, of 255. */
  background() {
    const color = parseInt(at("background").value.slice(1), 16);
    return [16, 8, 0].map((shift) => (color >> shift) & 255);
  }

  get moving() {
    return this.timeline.playing || this.flight !== null || performance.now() - this.movedAt < MOVING_MS;
  }

  /* At once if something was changed; while training also again and again, `rate` times a second. */
  ask(now) {
    if (!this.connection.connected || this.path.working) return;
    const share = this.moving && at("auto-resolution").checked ? this.pace.share : 1;
    const request = this.request(share * number("resolution") / 100);
    const text = JSON.stringify(request);
    const again = this.scene.training && this.connection.idle && now - this.askedAt >= 1000 / number("rate");
    if (text === this.asked && !again) return;
    if (text !== this.asked) this.pace.asked(now);
    this.asked = text;
    this.askedAt = now;
    const id = this.connection.submit(request);
    this.views.set(id, { camera: request.camera, share });
  }

  async takeScreenshot() {
    if (!this.connection.connected || !this.shown.id) return this.say("there is no picture yet");
    try {
      const { picture } = await this.connection.ask({ ...this.request(1), encoding: "png" });
      save(new Blob([picture], { type: "image/png" }), `screenshot_${timestamp()}.png`);
    } catch (error) {
      this.say(`no screenshot: ${error.message}`);
    }
  }

  // --- once for each frame of the screen ---------------------------------------------------------------------

  step(now) {
    this.timeline.step(now);
    this.path.step(now);
    this.fly(now);
    this.ask(now);
    this.showConnection(now);
    this.showControls(now);
    this.showPhotograph();
    this.drawOverlay();
    if (this.shown.id) this.showNumbers();
  }

  drawOverlay() {
    const dark = Math.max(...this.background()) < DARK;
    this.overlay.draw(this.shownView ?? this.camera.view(...this.pictureSize()), dark);
  }

  /* Where the view is a camera's of the capture, and the pose a frame's. */
  showPhotograph() {
    const place = at("camera").value;
    const frame = at("pose").value === "training" && !this.path.working;
    const there = this.scene?.photographs && place !== "" && frame;
    set("photograph-section", "hidden", !this.scene?.photographs);
    this.photograph.step(there ? {
      camera: this.camera.view(...this.pictureSize(number("resolution") / 100)),
      camera_id: this.cameras[place].id,
      frame: this.timeline.place,
    } : null, !this.moving && this.connection.connected);
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
    at("busy").classList.toggle("shown", connected && this.pace.waits(now));
  }

  showControls(now) {
    if (this.scene?.training) set("training", "hidden", false);
    set("light-row", "hidden", !this.scene?.light);
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
    watchHelp();
    click("save-camera", () => save(this.cameraFile(this.camera), "camera.json"));
    click("load-camera", () => at("camera-file").click());
    click("load-poses", () => at("pose-file").click());
    click("save-pose", () => this.savePose());
    click("level", () => this.move((camera) => camera.levelled()));
    click("reset", () => this.resetView());
    click("fold", () => document.body.classList.toggle("folded"));
    at("camera").addEventListener("change", (event) => event.target.value && this.jumpToCamera(number("camera")));
    at("fovx").addEventListener("input", () => this.move((camera) => camera.withFovx(number("fovx"), ...this.pictureSize())));
    at("frame").addEventListener("input", () => this.timeline.goTo(number("frame")));
    at("pose").addEventListener("change", () => {
      if (at("pose").value === "given" && !this.timeline.poses) at("pose-file").click();
    });
    const say = (text) => this.say(text);
    openFiles("camera-file", (file) => this.loadCamera(file), say);
    openFiles("pose-file", async (file) => say(`${file.name}: ${await this.timeline.load(file)} poses`), say);
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

  press(event) {
    const click = (id) => at(id).click();
    const keys = {
      h: () => at("help").showModal(),
      p: () => this.takeScreenshot(),
      r: () => this.resetView(),
      c: () => click("fold"),
      t: () => click("project"),
      l: () => this.scene?.light && click("light"),
      k: () => click("add-key"),
      b: () => this.scene?.photographs && click("photograph-on"),
    };
    [..."gxv"].forEach((key, i) => { keys[key] = () => click(SWITCHES[i]); });
    at("show").querySelectorAll("option").forEach((option, i) => { keys[i + 1] = () => { option.selected = true; }; });
    press(event, keys, {
      " ": () => this.togglePlaying(),
      ArrowLeft: () => this.timeline.goTo(this.timeline.place - 1),
      ArrowRight: () => this.timeline.goTo(this.timeline.place + 1),
      ArrowUp: () => this.jumpToCamera(this.cameraPlace - 1),
      ArrowDown: () => this.jumpToCamera(this.cameraPlace + 1),
    });
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

new Viewer();
