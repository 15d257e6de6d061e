/* The page that draws the avatar by itself: files of its folder -> avatar and poses -> pictures, nothing from elsewhere.

player.json (written by script/export.py --format web) names the avatar file and the pose file. The controls hold the
settings; `frame` reads them. A step, once for each frame of the screen, moves the poses on and draws if something has
changed. What has a file of its own: the avatar file, the scene's poses and cameras, the two renderers, live poses; and, shared
with the page of streamed pictures, the camera that the mouse moves, the timeline, pose files, the size of pictures. */

import { readAvatar } from "./avatar_file.js";
import { at, grouped, number, openFiles, press, remember, save, set, timestamp, watchHelp, write } from "./dom.js";
import { LivePoses } from "./live_poses.js";
import { watchMouse } from "./mouse.js";
import { OrbitCamera } from "./orbit_camera.js";
import { Pace } from "./pace.js";
import { readPoseFile } from "./pose_file.js";
import { AvatarScene } from "./scene.js";
import { Timeline } from "./timeline.js";
import { WebGLRenderer } from "./webgl_renderer.js";
import { WebGPURenderer } from "./webgpu_renderer.js";

const SETTINGS = "player.json";
const MAX_SIDE = 4096, MIN_SIDE = 16; // pixels of a picture
const MOVING_MS = 300; // after the last touch the full resolution is drawn again
const MESSAGE_MS = 12000;
const RATE_MS = 2000; // pictures a second are a mean over this long
const OFF_CENTRE = 0.5; // of half the picture: where the person may be in the first one; or of the distance, nearer or farther
const ELSEWHERE = "use a current Chrome, Edge, Firefox or Safari";

class Player {
  camera = new OrbitCamera();
  cameraPlace = 0;
  movedAt = -Infinity;
  messageUntil = 0;
  scene = null;
  renderer = null;
  live = null; // the stream of poses, where there is one
  arrived = false; // whether the camera has looked where the stream's first pose is
  drawn = ""; // what the picture on the canvas shows
  busy = null; // the picture under way
  replacing = null; // the renderer that takes over from a lost one, on its way
  failed = false; // told on the page, and over
  times = []; // of the last pictures

  /* Settled when the first picture is there, or rejected with what was told on the page. */
  ready = this.start();

  async start() {
    try {
      await this.load();
    } catch (error) {
      if (!this.failed) this.fail(error.message);
      throw error;
    }
  }

  // --- loading ---------------------------------------------------------------------------------------------

  async load() {
    write("reason", "loading");
    const query = new URLSearchParams(location.search);
    const settings = await this.settings();
    const bytes = await this.bytes(settings.avatar);
    const avatar = await about(`${settings.avatar} `, () => readAvatar(bytes));
    this.scene = new AvatarScene(avatar);
    this.timeline = new Timeline();
    this.pace = new Pace();
    const withoutPoses = settings.poses && await this.readPoses(settings.poses);
    await this.makeRenderer(query.get("renderer"));

    const title = settings.title || "Avatar";
    write("title", title);
    document.title = title;
    at("project").checked = settings.project;
    at("pose").value = this.timeline.poses ? "given" : "training";
    if (query.has("poses")) {
      this.live = new LivePoses(query.get("poses"));
      at("pose").querySelector("[value=live]").hidden = false;
      at("pose").value = "live";
    }
    this.timeline.setScene(this.scene);
    const cameras = this.scene.cameras.map(
      ({ id, trained }, place) => new Option(`camera ${id}${trained === false ? ", held out" : ""}`, place));
    at("camera").replaceChildren(new Option(cameras.length ? "free" : "none", ""), ...cameras);
    this.resetView();
    this.listen();
    document.body.classList.toggle("folded", matchMedia("(max-width: 640px)").matches);
    await this.draw(this.frame());
    at("notice").hidden = true;
    if (withoutPoses) this.say(withoutPoses);
    const step = (now) => {
      this.step(now);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /* -> what is wrong with the pose file, or null: the avatar can be looked at without. */
  async readPoses(name) {
    try {
      const poses = await this.bytes(name);
      this.timeline.poses = await about(`${name}: `, () => readPoseFile(new Blob([poses])));
      return null;
    } catch (error) {
      return error.message;
    }
  }

  async settings() {
    const text = new TextDecoder().decode(await this.bytes(SETTINGS));
    const settings = await about(`${SETTINGS} `, () => {
      try {
        return JSON.parse(text);
      } catch {
        throw new Error("is damaged");
      }
    });
    const name = (value) => typeof value === "string" && /^[\w.-]+$/.test(value);
    if (!name(settings?.avatar) || !(settings.poses === null || name(settings.poses))) throw new Error(`${SETTINGS} names no files; export anew`);
    return { title: String(settings.title ?? ""), avatar: settings.avatar, poses: settings.poses, project: settings.project === true };
  }

  /* Of a file of the page's folder. */
  async bytes(name) {
    let answer;
    try {
      answer = await fetch(name, { cache: "no-cache" });
    } catch {
      throw new Error(`${name} cannot be loaded: the server does not answer`);
    }
    if (!answer.ok) throw new Error(`${name} cannot be loaded: the server answers ${answer.status}; is the folder complete?`);
    const whole = Number(answer.headers.get("Content-Length"));
    const parts = [];
    let size = 0;
    const reader = answer.body.getReader();
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        parts.push(part.value);
        size += part.value.length;
        if (whole > size && name !== SETTINGS) write("reason", `loading ${megabytes(size)} of ${megabytes(whole)} MB`);
      }
    } catch {
      throw new Error(`${name} came only in part (${megabytes(size)} MB); load the page again`);
    }
    return new Blob(parts).arrayBuffer();
  }

  /* The better of the two that the browser has, or the one that is asked for. */
  async makeRenderer(wanted) {
    let made = null;
    if (wanted !== "webgl") {
      try {
        made = await WebGPURenderer.create(at("picture"), this.scene.avatar);
      } catch (error) {
        console.warn(`not drawn with WebGPU: ${error.message}`);
      }
    }
    if (!made && wanted !== "webgpu") made = WebGLRenderer.create(at("picture"), this.scene.avatar);
    if (!made) throw new Error(`This browser has neither WebGPU nor WebGL2, one of which draws the avatar; ${ELSEWHERE}`);
    made.lost = () => this.replace(made);
    this.renderer = made;
  }

  /* The graphics card went away, which browsers and drivers do under WebGPU now and then: WebGL2 goes on, on a canvas of its
  own, since one keeps its kind for ever. */
  replace(lost) {
    if (this.renderer === lost) this.replacing ??= this.makeAnother(lost).finally(() => { this.replacing = null; });
    return this.replacing;
  }

  async makeAnother(lost) {
    try {
      if (!(lost instanceof WebGPURenderer)) throw new Error("The graphics card went away; load the page again");
      console.warn("WebGPU was lost; WebGL2 goes on");
      at("picture").replaceWith(at("picture").cloneNode());
      await this.makeRenderer("webgl");
      this.drawn = "";
    } catch (error) {
      this.fail(error.message);
    }
  }

  fail(text) {
    this.failed = true;
    at("notice").hidden = false;
    write("reason", text);
  }

  // --- camera ----------------------------------------------------------------------------------------------

  /* Width and height of the place for the picture, in the screen's pixels. */
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

  /* Beyond the ends it goes round. */
  jumpToCamera(place) {
    const { cameras, up } = this.scene;
    if (!cameras.length) return;
    this.cameraPlace = (place + cameras.length) % cameras.length;
    this.jump(OrbitCamera.fromView(cameras[this.cameraPlace], this.person(), up));
    at("camera").value = this.cameraPlace;
  }

  /* The file's first view, or one in front; either with the person in it. */
  resetView() {
    const { cameras, center, firstView, up } = this.scene;
    const first = firstView ? OrbitCamera.fromView(firstView, center, up) : new OrbitCamera({ center, up });
    this.jump(this.withPerson(first));
    const place = firstView ? cameras.findIndex(({ w2c }) => w2c.join() === firstView.w2c.join()) : -1;
    this.cameraPlace = Math.max(place, 0);
    if (place >= 0 && first.about(this.camera.center).target.join() === this.camera.target.join()) at("camera").value = place;
  }

  /* Which is no movement. */
  jump(camera) {
    this.move(() => camera);
    this.movedAt = -Infinity;
  }

  /* Where the pose shown has the root. */
  person() {
    return this.scene.rootOf(this.pose().pose);
  }

  /* A camera that turns about the person; where that one stands elsewhere, it goes there itself. */
  withPerson(camera) {
    const center = this.person(), about = camera.about(center);
    const [across, down, ahead] = about.target, wanted = Math.max(camera.target[2], 1e-3);
    const slope = OFF_CENTRE * Math.tan(camera.fovx * Math.PI / 360);
    const seen = ahead > OFF_CENTRE * wanted && ahead < wanted / OFF_CENTRE
      && Math.abs(across) < slope * ahead && Math.abs(down) < slope / camera.aspect * ahead;
    return seen ? about : camera.with({ center });
  }

  // --- poses -----------------------------------------------------------------------------------------------

  /* {pose, poseKey}; the key is the same for the same pose. */
  pose() {
    const { scene, timeline, live } = this;
    const there = { training: scene.frames.length, given: timeline.poses, live: live?.pose, t: true, big: true };
    const kind = there[at("pose").value] ? at("pose").value : "big";
    const up = at("up").value, place = kind === "live" ? live.count : timeline.place;
    const make = {
      training: () => scene.training(place),
      given: () => scene.given(timeline.poses, place, up),
      live: () => scene.posed(live.pose),
    }[kind] ?? (() => scene.resting(kind));
    const pose = make();
    if (at("no-translation").checked) pose.translation = [0, 0, 0];
    const project = at("project").checked;
    return { pose, project, poseKey: [kind, place, kind === "given" && up, timeline.loaded, at("no-translation").checked, project].join() };
  }

  // --- drawing ---------------------------------------------------------------------------------------------

  /* Red, green, blue, from 0 to 1. */
  background() {
    const color = parseInt(at("background").value.slice(1), 16);
    return [16, 8, 0].map((shift) => ((color >> shift) & 255) / 255);
  }

  frame(share = 1) {
    return { ...this.pose(), view: this.camera.view(...this.pictureSize(share * number("resolution") / 100)), background: this.background(), share };
  }

  get moving() {
    return this.timeline.playing || at("pose").value === "live" || performance.now() - this.movedAt < MOVING_MS;
  }

  /* One after the other. seen: as the renderers take it. */
  async draw(frame, seen) {
    while (this.busy) await this.busy.catch(() => {});
    const began = performance.now(), { renderer } = this;
    this.busy = renderer.draw(frame, seen);
    try {
      await this.busy;
    } catch (error) {
      this.busy = null;
      await this.replace(renderer);
      if (this.failed || this.renderer === renderer) throw error;
      return this.draw(frame, seen);
    }
    this.busy = null;
    const now = performance.now();
    this.pace.note(now - began, frame.share ?? 1);
    this.times = [...this.times.filter((time) => time > now - RATE_MS), now];
    return write("size", `${frame.view.width} x ${frame.view.height}`);
  }

  /* PNG of any view of any pose: {pose, project, view, background} as `frame` gives it. */
  async picture(frame) {
    let encoded;
    await this.draw({ poseKey: Symbol("picture"), ...frame }, () => {
      encoded = new Promise((resolve) => { at("picture").toBlob(resolve, "image/png"); });
    });
    this.drawn = "";
    return encoded;
  }

  async takeScreenshot() {
    save(await this.picture(this.frame()), `screenshot_${timestamp()}.png`);
  }

  /* Once for each frame of the screen. */
  step(now) {
    if (this.failed) return;
    this.timeline.step(now);
    this.showControls(now);
    if (!this.arrived && this.live?.pose && at("pose").value === "live") {
      this.arrived = true;
      this.jump(this.withPerson(this.camera));
    }
    if (this.busy || this.replacing) return;
    const frame = this.frame(this.moving && at("auto-resolution").checked ? this.pace.share : 1);
    const drawn = JSON.stringify([frame.poseKey, frame.view, frame.background]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.draw(frame).catch((error) => this.failed || this.fail(error.message));
  }

  showControls(now) {
    set("fovx", "value", this.camera.pictureFovx(...this.pictureSize()).toFixed(1));
    for (const output of document.querySelectorAll("#panel output")) {
      const input = output.previousElementSibling, text = input.value + (input.dataset.unit ?? "");
      if (output.textContent !== text) output.textContent = text;
    }
    at("stage").style.backgroundColor = at("background").value;
    if (now > this.messageUntil) set("message", "hidden", true);
    set("fold", "textContent", document.body.classList.contains("folded") ? "Controls" : "Hide controls");
    const rate = this.times.filter((time) => time > performance.now() - RATE_MS).length * 1000 / RATE_MS;
    write("renderer", this.renderer.name);
    write("speeds", `${rate.toFixed(0)} fps`);
    write("gaussians", `${grouped(this.scene.gaussians)} Gaussians`);
    write("stream", this.live ? this.live.state : "");
  }

  say(text) {
    write("message", text);
    at("message").hidden = false;
    this.messageUntil = performance.now() + MESSAGE_MS;
  }

  // --- controls and keys -------------------------------------------------------------------------------------

  listen() {
    for (const id of ["background", "auto-resolution"]) remember(id);
    watchMouse(at("stage"), {
      move: (change) => this.move(change), hover: () => {}, click: () => {}, doubleClick: () => {},
    });
    const click = (id, act) => at(id).addEventListener("click", act);
    click("play", () => this.timeline.toggle());
    click("screenshot", () => this.takeScreenshot());
    watchHelp();
    click("load-poses", () => at("pose-file").click());
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
    openFiles("pose-file", async (file) => {
      say(`${file.name}: ${await this.timeline.load(file)} poses`);
      this.timeline.loaded = file.name + file.lastModified;
      this.move((camera) => this.withPerson(camera));
    }, say);
    addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    const keys = {
      h: () => at("help").showModal(),
      p: () => this.takeScreenshot(),
      r: () => this.resetView(),
      c: () => at("fold").click(),
      t: () => at("project").click(),
    };
    press(event, keys, {
      " ": () => this.timeline.toggle(),
      ArrowLeft: () => this.timeline.goTo(this.timeline.place - 1),
      ArrowRight: () => this.timeline.goTo(this.timeline.place + 1),
      ArrowUp: () => this.jumpToCamera(this.cameraPlace - 1),
      ArrowDown: () => this.jumpToCamera(this.cameraPlace + 1),
    });
  }
}

/* What `act` gives; its errors begin with the name of the file. */
async function about(beginning, act) {
  try {
    return await act();
  } catch (error) {
    throw new Error(beginning + error.message);
  }
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

export const player = new Player();
player.ready.catch(() => {}); // which the page tells
