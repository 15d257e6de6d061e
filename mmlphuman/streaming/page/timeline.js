/* Which pose is shown: the controls of poses, frames that play, pose files.

Training frames of the server, or a pose file -> the pose of a request. */

import { at, number, set, write } from "./dom.js";
import { UP_ROTATIONS, readPoseFile } from "./pose_file.js";

const DEFAULT_FPS = 30; // of poses that do not tell

export class Timeline {
  scene = null; // the server's welcome
  poses = null; // of the pose file
  places = { training: 0, given: 0 }; // the frame shown, for each kind of pose that has frames
  playing = false;
  playedAt = 0;
  share = 0; // of the next frame's time that has passed

  setScene(scene) {
    this.scene = scene;
    this.places.training = 0;
    if (!scene.frames.length && at("pose").value === "training") at("pose").value = "big";
  }

  /* Numbers of the frames that the chosen kind of pose has. */
  frames() {
    const kind = at("pose").value;
    return kind === "training" ? this.scene?.frames ?? [] : kind === "given" ? this.poses?.frames ?? [] : [];
  }

  /* The place among them. */
  get place() {
    return this.places[at("pose").value] ?? 0;
  }

  /* Beyond the ends it goes round. */
  goTo(place) {
    const count = this.frames().length;
    if (count) this.places[at("pose").value] = ((place % count) + count) % count;
  }

  toggle(playing = !this.playing) {
    this.playing = playing;
    this.share = 0;
    this.playedAt = performance.now();
  }

  /* A second, of the poses that are shown. */
  fps() {
    return (at("pose").value === "given" && this.poses?.fps) || DEFAULT_FPS;
  }

  /* In the time that passes, whatever the link: a slow one leaves frames out. */
  step(now) {
    if (this.playing) {
      this.share += Math.max(now - this.playedAt, 0) / 1000 * this.fps() * number("speed");
      this.playedAt = now;
      this.goTo(this.place + Math.floor(this.share));
      this.share %= 1;
    }
    this.show();
  }

  show() {
    const frames = this.frames();
    set("file-options", "hidden", at("pose").value !== "given");
    set("transport", "hidden", !frames.length);
    set("frame", "max", String(Math.max(frames.length - 1, 0)));
    if (frames.length) {
      set("frame", "value", String(this.place));
      write("frame-number", `frame ${frames[this.place]} (${this.place + 1}/${frames.length})`);
    }
    write("play", this.playing ? "Pause" : "Play");
  }

  async load(file) {
    this.poses = await readPoseFile(file);
    this.places.given = 0;
    at("pose").value = "given";
    return this.poses.count;
  }

  /* Of a request. turns: of joints, by hand. */
  pose(turns) {
    let kind = at("pose").value;
    if (kind === "given" && !this.poses) kind = "t"; // nothing read yet
    const given = kind === "given", { place } = this;
    return {
      kind,
      frame: kind === "training" ? place : 0,
      joints: given ? this.poses.joints(place) : null,
      expression: given ? this.poses.expression(place) : null,
      translation: given ? this.poses.translation(place) : null,
      rotation: given ? UP_ROTATIONS[at("up").value] : null,
      use_translation: !at("no-translation").checked,
      hands: at("hands").value,
      turns,
    };
  }
}
