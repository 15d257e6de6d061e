/* Floor grid, world axes and the capture's cameras, drawn over the picture.

Welcome and the view of the picture on the screen -> lines on a canvas; a place on it -> the camera that is drawn there.
Lines lie over the person, whose depth the page does not know: they are thin, and pale where they are many. */

import { at, remember } from "./dom.js";
import { add, dot, groundAxes, length, scale } from "./orbit_camera.js";

const GRID_CELLS = 5; // of a metre, from the middle to each side
const AXIS = 0.5; // metres
const NEAR = 0.02; // metres; what is nearer to the camera is not drawn
const FRUSTUM = 0.06, LARGEST = 0.4; // its depth: of the camera's distance from the person; metres at most
const WITHIN = 1.5; // depths of a frustum from its tip: from there one looks through it
const GRAB = 8; // pixels round its corners that belong to it
const TRAINED = "#2f7de1", HELD_OUT = "#e07b00", AXES = ["#e5484d", "#30a46c", "#4a7dff"];
const FONT = "12px system-ui, sans-serif";
export const SWITCHES = ["grid", "axes", "frusta"]; // ids of check boxes

export class Overlay {
  scene = null;
  frusta = []; // {entry, trained, tip, corners, top}
  hovered = null; // an entry
  drawn = "";

  constructor(canvas) {
    this.canvas = canvas;
    SWITCHES.forEach(remember);
  }

  setScene(scene) {
    this.scene = scene;
    this.frusta = scene.cameras.map((entry) => frustum(entry, scene.center));
    this.hovered = null;
    this.drawn = "";
  }

  /* view: {w2c, fovx, width, height} of the picture; dark: the background is. Only where something has changed. */
  draw(view, dark) {
    const { canvas } = this;
    const size = [canvas.clientWidth, canvas.clientHeight];
    const shown = SWITCHES.filter((id) => at(id).checked);
    const key = JSON.stringify([view, dark, size, shown, this.hovered?.id, devicePixelRatio]);
    if (key === this.drawn || !this.scene) return;
    this.drawn = key;
    const wanted = size.map((side) => Math.round(side * devicePixelRatio));
    if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
    this.pen = canvas.getContext("2d");
    this.pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    this.pen.clearRect(0, 0, ...size);
    this.eye = new Eye(view, ...size);
    if (shown.includes("grid")) this.drawGrid(dark);
    if (shown.includes("axes")) this.drawAxes();
    if (shown.includes("frusta")) for (const each of this.frusta) this.drawFrustum(each);
  }

  drawGrid(dark) {
    const { center, up, floor } = this.scene;
    const [side, front] = groundAxes(up);
    const whole = (axis) => Math.round(dot(center, axis)); // lines stand at whole metres of the world
    const place = (i, j) => add(scale(side, whole(side) + i), scale(front, whole(front) + j), scale(up, floor));
    this.pen.lineWidth = 1;
    for (let i = -GRID_CELLS; i <= GRID_CELLS; i += 1) {
      for (let j = -GRID_CELLS; j < GRID_CELLS; j += 1) {
        const away = Math.hypot(i, j + 0.5) / GRID_CELLS;
        if (away > 1) continue; // a round floor that fades
        const strength = 0.4 * (1 - away * away);
        this.pen.strokeStyle = dark ? `rgb(255 255 255 / ${strength})` : `rgb(40 50 70 / ${strength})`;
        this.line(place(i, j), place(i, j + 1));
        this.line(place(j, i), place(j + 1, i));
      }
    }
  }

  drawAxes() {
    this.pen.lineWidth = 2;
    AXES.forEach((color, i) => {
      const end = [0, 0, 0];
      end[i] = AXIS;
      this.pen.strokeStyle = this.pen.fillStyle = color;
      this.line([0, 0, 0], end);
      this.word("xyz"[i], end);
    });
  }

  drawFrustum({ entry, trained, tip, corners, top }) {
    if (this.within(tip, corners)) return;
    const hovered = entry === this.hovered;
    this.pen.strokeStyle = this.pen.fillStyle = trained ? TRAINED : HELD_OUT;
    this.pen.lineWidth = hovered ? 2.5 : 1.25;
    corners.forEach((corner, i) => {
      this.line(tip, corner);
      this.line(corner, corners[(i + 1) % 4]);
    });
    this.line(corners[0], top);
    this.line(top, corners[1]);
    if (hovered) this.word(`camera ${entry.id}${trained ? "" : ", held out"}`, top);
  }

  /* The nearest camera whose frustum is drawn at this place of the canvas; null: none. */
  cameraAt(x, y) {
    if (!at("frusta").checked || !this.eye) return null;
    let [found, nearest] = [null, Infinity];
    for (const { entry, tip, corners } of this.frusta) {
      if (this.within(tip, corners)) continue;
      const places = [tip, ...corners].map((point) => this.eye.place(point));
      if (places.some((place) => place === null)) continue;
      const faces = [[1, 2, 3, 4], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]];
      const close = places.some((place) => Math.hypot(x - place[0], y - place[1]) < GRAB);
      const hit = close || faces.some((face) => inside(x, y, face.map((i) => places[i])));
      const depth = this.eye.axes(tip)[2];
      if (hit && depth < nearest) [found, nearest] = [entry, depth];
    }
    return found;
  }

  within(tip, corners) {
    const depth = length(add(corners[0], scale(tip, -1)));
    return length(this.eye.axes(tip)) < WITHIN * depth;
  }

  line(a, b) {
    const ends = this.eye.segment(a, b);
    if (!ends) return;
    this.pen.beginPath();
    for (const end of ends) this.pen.lineTo(...end);
    this.pen.stroke();
  }

  word(text, point) {
    const place = this.eye.place(point);
    if (!place) return;
    this.pen.font = FONT;
    this.pen.fillText(text, place[0] + 5, place[1] - 5);
  }
}

/* A view on a canvas of this size, which shows the whole of its picture. */
class Eye {
  constructor({ w2c, fovx, width, height }, canvasWidth, canvasHeight) {
    this.rows = [0, 4, 8].map((start) => w2c.slice(start, start + 4));
    const factor = Math.min(canvasWidth / width, canvasHeight / height);
    this.focal = factor * width / (2 * Math.tan(fovx * Math.PI / 360));
    this.middle = [canvasWidth / 2, canvasHeight / 2];
  }

  /* World -> right, down, forward. */
  axes(point) {
    return this.rows.map((row) => dot(row, point) + row[3]);
  }

  screen([right, down, forward]) {
    return [right, down].map((value, i) => this.middle[i] + this.focal * value / forward);
  }

  /* Where a point of the world is on the canvas; null: not in front. */
  place(point) {
    const seen = this.axes(point);
    return seen[2] > NEAR ? this.screen(seen) : null;
  }

  /* Both ends of what is in front; null: nothing. */
  segment(a, b) {
    const ends = [this.axes(a), this.axes(b)].sort((one, other) => one[2] - other[2]);
    if (ends[1][2] <= NEAR) return null;
    if (ends[0][2] < NEAR) {
      const share = (NEAR - ends[0][2]) / (ends[1][2] - ends[0][2]);
      ends[0] = ends[0].map((value, i) => value + share * (ends[1][i] - value));
    }
    return ends.map((end) => this.screen(end));
  }
}

function frustum(entry, center) {
  const { trained, camera: { w2c, fovx, width, height } } = entry;
  const rows = [0, 4, 8].map((start) => w2c.slice(start, start + 3));
  const shift = [3, 7, 11].map((i) => w2c[i]);
  const world = (seen) => [0, 1, 2].map((k) => rows.reduce((sum, row, i) => sum + row[k] * (seen[i] - shift[i]), 0));
  const tip = world([0, 0, 0]);
  const depth = Math.min(FRUSTUM * length(add(tip, scale(center, -1))), LARGEST);
  const right = depth * Math.tan(fovx * Math.PI / 360), down = right * height / width;
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => world([x * right, y * down, depth]));
  return { entry, trained, tip, corners, top: world([0, -1.5 * down, depth]) };
}

/* Whether a place is in a convex polygon. */
function inside(x, y, places) {
  const sides = places.map(([ax, ay], i) => {
    const [bx, by] = places[(i + 1) % places.length];
    return (bx - ax) * (y - ay) - (by - ay) * (x - ax);
  });
  return sides.every((side) => side >= 0) || sides.every((side) => side <= 0);
}
