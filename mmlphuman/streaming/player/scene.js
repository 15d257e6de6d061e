/* What there is to look at: the avatar's poses of training, resting poses, where the person is, the capture's cameras.

Avatar (avatar_file.js) -> cameras, firstView, frames, center, up; and the numbers of a pose by kind, as posing.js takes them.
As streaming/live_scene.py has it. */

import { UP_ROTATIONS } from "./pose_file.js";
import { IDENTITY, canonicalPose } from "./posing.js";

const POSE_DIM = 165, EXPRESSION_DIM = 10, KEPT = POSE_DIM + EXPRESSION_DIM;
const JAW_START = 66, JAW_END = 69;
const MAX_LEAN = 30 * Math.PI / 180; // of a body whose mean tells which axis of the world points up

export class AvatarScene {
  constructor(avatar) {
    const { arrays, cameras, view, sizes } = avatar;
    this.avatar = avatar;
    this.cameras = cameras.map(withField).filter(isView).sort((a, b) => Number(b.trained !== false) - Number(a.trained !== false));
    this.firstView = [withField(view), ...this.cameras].find(isView) ?? null;
    this.frames = "frames.numbers" in arrays ? [...arrays["frames.numbers"]] : [];
    this.up = upOf(view?.up) ?? worldUp(this.cameras);
    const root = this.root = [...arrays.joints.subarray(0, 3)];
    const mean = [0, 1, 2].map((axis) => {
      let sum = 0;
      for (let i = 0; i < this.frames.length; i += 1) sum += arrays["frames.translations"][3 * i + axis];
      return sum / Math.max(this.frames.length, 1);
    });
    this.center = root.map((value, axis) => value + mean[axis]);
    this.restRotation = standing(this.up);
    this.restTranslation = this.center.map((value, row) => value - turn(this.restRotation, root)[row]);
    this.gaussians = sizes.N;
  }

  training(place) {
    const { arrays } = this.avatar;
    const numbers = arrays["pose_space.training_poses"].subarray(place * KEPT, (place + 1) * KEPT);
    return this.posed({
      joints: [...numbers.subarray(0, POSE_DIM)],
      expression: [...numbers.subarray(POSE_DIM)],
      translation: [...arrays["frames.translations"].subarray(3 * place, 3 * place + 3)],
    });
  }

  /* Of a pose file (pose_file.js), with this axis pointing up in it. */
  given(poses, place, up) {
    const rotation = UP_ROTATIONS[up];
    return this.posed({
      joints: poses.joints(place),
      expression: poses.expression(place),
      translation: turn(rotation, poses.translation(place)),
      rotation,
    });
  }

  /* kind: t or big; upright where the person is in training. */
  resting(kind) {
    const joints = kind === "big" ? canonicalPose() : Array(POSE_DIM).fill(0);
    return this.posed({ joints, translation: this.restTranslation, rotation: this.restRotation });
  }

  /* Where a pose has the root. */
  rootOf({ translation, rotation }) {
    return turn(rotation, this.root).map((value, axis) => value + translation[axis]);
  }

  /* Without what the avatar has not learnt. */
  posed({ joints, expression = null, translation, rotation = IDENTITY }) {
    const { face } = this.avatar.config;
    if (!face) joints.fill(0, JAW_START, JAW_END);
    return { joints, translation, rotation, expression: face && expression ? expression : Array(EXPRESSION_DIM).fill(0) };
  }
}

/* A camera with the field of view that its K says. */
function withField(camera) {
  const focal = camera?.K?.[0];
  return focal > 0 ? { ...camera, fovx: 360 / Math.PI * Math.atan(camera.width / (2 * focal)) } : camera;
}

function isView(camera) {
  const numbers = [camera?.fovx, camera?.width, camera?.height, ...(camera?.w2c ?? [])];
  return numbers.length === 19 && numbers.every(Number.isFinite);
}

/* The axis next to a direction, which bodies' mean is not quite; the direction where no axis is near; null for none. */
function upOf(direction) {
  if (!Array.isArray(direction) || direction.length !== 3 || !direction.every(Number.isFinite)) return null;
  const length = Math.hypot(...direction), axis = mainAxis(direction);
  if (!length) return null;
  return Math.abs(direction[axis]) > Math.cos(MAX_LEAN) * length ? alongAxis(direction, axis) : direction.map((value) => value / length);
}

function mainAxis(vector) {
  const sizes = vector.map(Math.abs);
  return sizes.indexOf(Math.max(...sizes));
}

function alongAxis(vector, axis) {
  return [0, 1, 2].map((i) => (i === axis ? (vector[axis] >= 0 ? 1 : -1) : 0));
}

/* The world's axis that the cameras' upper edges point to in the mean. */
function worldUp(cameras) {
  if (!cameras.length) return [0, 1, 0];
  const mean = [4, 5, 6].map((place) => -cameras.reduce((sum, { w2c }) => sum + w2c[place], 0));
  return alongAxis(mean, mainAxis(mean));
}

/* (9,) what stands a body, whose own head is at +y, up in the world. */
function standing(up) {
  const axis = mainAxis(up);
  const rotation = UP_ROTATIONS[`${up[axis] > 0 ? "" : "-"}${"xyz"[axis]}`];
  return [0, 3, 6, 1, 4, 7, 2, 5, 8].map((place) => rotation[place]);
}

function turn(rotation, vector) {
  return [0, 3, 6].map((row) => rotation[row] * vector[0] + rotation[row + 1] * vector[1] + rotation[row + 2] * vector[2]);
}
