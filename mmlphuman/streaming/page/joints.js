/* Joints turned by hand: sliders -> turns of a PoseRequest, on top of whatever pose is shown.

Angles are in degrees here and in radians in the request, about the joint's own x, then y, then z. */

import { at, write } from "./dom.js";

/* The joints of SMPL-X in their order; pose_layout.py. */
const FINGERS = ["index", "middle", "pinky", "ring", "thumb"];
const hand = (side) => FINGERS.flatMap((finger) => [1, 2, 3].map((part) => `${side} ${finger} ${part}`));
export const JOINTS = [
  "pelvis", "left hip", "right hip", "spine 1", "left knee", "right knee", "spine 2", "left ankle", "right ankle",
  "spine 3", "left foot", "right foot", "neck", "left collar", "right collar", "head", "left shoulder",
  "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist", "jaw", "left eye", "right eye",
  ...hand("left"), ...hand("right"),
];
const AXES = ["x", "y", "z"];

export class Joints {
  angles = new Map(); // joint -> [x, y, z] of those that are turned

  constructor() {
    at("joint").replaceChildren(...JOINTS.map((name, i) => new Option(name, i)));
    at("joint").addEventListener("change", () => this.show());
    AXES.forEach((axis, i) => at(`turn-${axis}`).addEventListener("input", (event) => this.turn(i, event.target.value)));
    at("reset-joint").addEventListener("click", () => this.forget(Number(at("joint").value)));
    at("reset-joints").addEventListener("click", () => this.forget(...this.angles.keys()));
    this.show();
  }

  turn(axis, degrees) {
    const joint = Number(at("joint").value);
    const angles = [...(this.angles.get(joint) ?? [0, 0, 0])];
    angles[axis] = Number(degrees);
    if (angles.some((angle) => angle !== 0)) this.angles.set(joint, angles);
    else this.angles.delete(joint);
    this.show();
  }

  forget(...joints) {
    for (const joint of joints) this.angles.delete(joint);
    this.show();
  }

  /* Of a PoseRequest. */
  turns() {
    return [...this.angles].map(([joint, angles]) => [joint, ...angles.map((angle) => angle * Math.PI / 180)]);
  }

  /* Turned joints carry a mark in the list. */
  show() {
    const angles = this.angles.get(Number(at("joint").value)) ?? [0, 0, 0];
    AXES.forEach((axis, i) => { at(`turn-${axis}`).value = angles[i]; });
    for (const [i, option] of [...at("joint").options].entries()) {
      const text = this.angles.has(i) ? `${JOINTS[i]} •` : JOINTS[i];
      if (option.text !== text) option.text = text;
    }
    at("reset-joints").disabled = this.angles.size === 0;
    write("joints-title", this.angles.size ? `Joints (${this.angles.size} turned)` : "Joints");
  }
}

/* A PoseAnswer's pose -> the content of a file that test.py --pose_path reads: EasyMocap's names, which have room for
all that places a person. */
export function poseFile({ joints, expression, translation, rotation }) {
  const row = (i) => rotation.slice(3 * i, 3 * i + 3);
  const Th = [0, 1, 2].map((i) => row(i).reduce((sum, value, k) => sum + value * translation[k], 0));
  return { Rh: [rotationVector(rotation)], Th: [Th], poses: [joints], expression: [expression] };
}

/* 9 numbers row by row -> axis times angle. */
export function rotationVector(r) {
  const sine = [r[7] - r[5], r[2] - r[6], r[3] - r[1]]; // axis times twice the angle's sine
  const cosine = (r[0] + r[4] + r[8] - 1) / 2;
  const angle = Math.atan2(Math.hypot(...sine) / 2, cosine);
  if (angle < 1e-9) return [0, 0, 0];
  if (Math.PI - angle > 1e-3) return sine.map((value) => value * angle / Math.hypot(...sine));
  // Near half a turn the sine tells no axis; r + 1 is then twice the axis times itself.
  const longest = [0, 4, 8].reduce((best, place, i) => (r[place] > r[4 * best] ? i : best), 0);
  const axis = [0, 1, 2].map((i) => r[3 * i + longest] + r[3 * longest + i] + (i === longest ? 2 : 0));
  const sign = Math.sign(axis.reduce((sum, value, i) => sum + value * sine[i], 0)) || 1;
  return axis.map((value) => sign * value * angle / Math.hypot(...axis));
}
