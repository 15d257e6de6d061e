/* The camera that the mouse moves: viewer/orbit_camera.py in JavaScript; its comments explain the numbers.

Training camera, camera file or mouse -> OrbitCamera -> camera of a request.
Axes: x right, y down, looking along +z. Lengths in metres, angles in radians; fields of view in degrees. */

const TAU = 2 * Math.PI;
const MAX_ELEVATION = 89 * TAU / 360;
const EXACTLY_VERTICAL = 1e-12;
const MIN_DISTANCE = 0.05, MAX_DISTANCE = 1000;
const MIN_FOVX = 1, MAX_FOVX = 150;
const STEEP = Math.cos(30 * TAU / 360);

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const scale = (a, factor) => a.map((x) => x * factor);
export const add = (...vectors) => [0, 1, 2].map((i) => vectors.reduce((sum, vector) => sum + vector[i], 0));
export const length = (a) => Math.hypot(...a);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => (length(a) > 0 ? scale(a, 1 / length(a)) : [0, 1, 0]);
const tangent = (degrees) => Math.tan(degrees * TAU / 720); // of half the angle

export class OrbitCamera {
  center = [0, 0, 0]; // world; what the camera turns about
  up = [0, 1, 0]; // world, unit length
  azimuth = 0; // about up
  elevation = 0; // above the horizon
  roll = 0; // about the line of sight
  target = [0, 0, 3.5]; // the centre in camera coordinates
  fovx = 40; // of a picture whose width is `aspect` times its height
  aspect = 0.75;

  constructor(values = {}) {
    Object.assign(this, values);
  }

  /* Takes over a view {w2c: 16 numbers, fovx, width, height} exactly; from then on it turns about `center`. */
  static fromView(view, center, up) {
    const [right, down, forward] = [0, 4, 8].map((start) => view.w2c.slice(start, start + 3));
    const translation = [3, 7, 11].map((place) => view.w2c[place]);
    up = unit(up);
    const [side, front] = groundAxes(up);
    const flat = Math.hypot(dot(forward, side), dot(forward, front));
    const level = flat < EXACTLY_VERTICAL ? scale(down, -Math.sign(dot(forward, up))) : scale(forward, -1);
    const camera = new OrbitCamera({
      center, up,
      azimuth: Math.atan2(dot(level, side), dot(level, front)),
      elevation: Math.atan2(-dot(forward, up), flat),
      target: add([right, down, forward].map((axis) => dot(axis, center)), translation),
      fovx: view.fovx,
      aspect: view.width / view.height,
    });
    const [levelRight, levelDown] = camera.axes();
    return camera.with({ roll: Math.atan2(dot(levelDown, right), dot(levelRight, right)) });
  }

  with(changes) {
    return new OrbitCamera({ ...this, ...changes });
  }

  /* Right, down and forward in the world. */
  axes() {
    const [side, front] = groundAxes(this.up);
    const [cos, sin] = [Math.cos(this.azimuth), Math.sin(this.azimuth)];
    const outward = add(scale(side, sin), scale(front, cos));
    const forward = add(scale(outward, -Math.cos(this.elevation)), scale(this.up, -Math.sin(this.elevation)));
    const right = add(scale(side, cos), scale(front, -sin));
    const down = cross(forward, right);
    const [c, s] = [Math.cos(this.roll), Math.sin(this.roll)];
    return [add(scale(right, c), scale(down, s)), add(scale(right, -s), scale(down, c)), forward];
  }

  /* The camera of a request for a picture of this size. */
  view(width, height) {
    const rows = this.axes().map((axis, i) => [...axis, this.target[i] - dot(axis, this.center)]);
    return { w2c: [...rows.flat(), 0, 0, 0, 1], fovx: this.pictureFovx(width, height), width, height };
  }

  pictureFovx(width, height) {
    const wider = width / height / this.aspect;
    if (wider <= 1) return this.fovx;
    const fovx = Math.atan(tangent(this.fovx) * wider) * 720 / TAU;
    return this.fovx <= MAX_FOVX ? Math.min(fovx, MAX_FOVX) : this.fovx;
  }

  withFovx(fovx, width, height) {
    return this.with({ fovx: clamp(fovx, MIN_FOVX, MAX_FOVX), aspect: width / height });
  }

  orbit(right, down) {
    const [cos, sin] = [Math.cos(this.roll), Math.sin(this.roll)];
    const limit = Math.max(MAX_ELEVATION, Math.abs(this.elevation));
    const azimuth = this.azimuth - (cos * right - sin * down);
    return this.with({
      azimuth: azimuth - TAU * Math.round(azimuth / TAU),
      elevation: clamp(this.elevation + sin * right + cos * down, -limit, limit),
    });
  }

  /* Moves the scene by pixels of a picture of this size. */
  pan(right, down, width, height) {
    const focal = width / (2 * tangent(this.pictureFovx(width, height)));
    const factor = -Math.max(Math.abs(this.target[2]), MIN_DISTANCE) / focal;
    const [rightAxis, downAxis] = this.axes();
    return this.with({ center: add(this.center, scale(rightAxis, right * factor), scale(downAxis, down * factor)) });
  }

  zoom(factor) {
    const distance = Math.max(length(this.target), MIN_DISTANCE);
    const wanted = clamp(distance * factor, MIN_DISTANCE, MAX_DISTANCE);
    return this.with({ target: scale(this.target, wanted / distance) });
  }

  levelled() {
    return this.with({ roll: 0 });
  }

  /* The same view, from then on turned about another point. */
  about(center) {
    const moved = add(center, scale(this.center, -1));
    return this.with({ center, target: this.axes().map((axis, i) => this.target[i] + dot(axis, moved)) });
  }

  /* On the way to another camera; share 0: here, 1: there. */
  towards(other, share) {
    const blend = (a, b) => a + share * (b - a);
    const turn = (a, b) => a + share * (b - a - TAU * Math.round((b - a) / TAU)); // the shorter way
    const start = this.about(other.center);
    return other.with({
      azimuth: turn(start.azimuth, other.azimuth),
      elevation: blend(start.elevation, other.elevation),
      roll: turn(start.roll, other.roll),
      target: start.target.map((value, i) => blend(value, other.target[i])),
      fovx: blend(start.fovx, other.fovx),
      aspect: blend(start.aspect, other.aspect),
    });
  }
}

/* Two axes of the ground, level. */
export function groundAxes(up) {
  const away = Math.abs(up[2]) < STEEP ? [0, 0, 1] : [1, 0, 0];
  const front = unit(add(away, scale(up, -dot(away, up))));
  return [cross(up, front), front];
}
