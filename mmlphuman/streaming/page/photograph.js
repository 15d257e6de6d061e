/* The capture's photograph over the render, as far as a line that can be moved.

The camera jumped to, the training frame and the picture's size -> PhotographRequest -> a canvas on the picture, cut at
the line. Asked for only while nothing moves, and once for each camera, frame and size. */

import { at, number, remember, set, write } from "./dom.js";

const ELSEWHERE = "Photographs are there for the capture's cameras and training frames: choose a camera.";

export class Photograph {
  wanted = ""; // what was asked for last, as text
  there = ""; // of it, what the canvas holds
  fault = ""; // why that did not come

  constructor(connection) {
    this.connection = connection;
    remember("photograph-share");
    at("photograph-share").addEventListener("input", () => this.cut());
    at("photograph-line").addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // the camera stays
      at("photograph-line").setPointerCapture(event.pointerId);
    });
    at("photograph-line").addEventListener("pointermove", (event) => {
      if (!at("photograph-line").hasPointerCapture(event.pointerId)) return;
      const { left, width } = at("stage").getBoundingClientRect();
      at("photograph-share").value = 100 * (event.clientX - left) / width;
      this.cut();
    });
    this.cut();
  }

  /* Left of the line the photograph, right of it the render. */
  cut() {
    const share = number("photograph-share");
    at("photograph").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    at("photograph-line").style.left = `${share}%`;
  }

  /* request: {camera, camera_id, frame}, or null where there is no photograph; still: nothing moves. */
  step(request, still) {
    const on = at("photograph-on").checked;
    const key = on && request ? JSON.stringify(request) : "";
    if (key && key !== this.wanted && still) this.fetch(request, key);
    const shown = key !== "" && key === this.there;
    set("photograph", "hidden", !shown);
    set("photograph-line", "hidden", !shown);
    write("photograph-note", on && !request ? ELSEWHERE : key === this.wanted ? this.fault : "");
  }

  async fetch(request, key) {
    Object.assign(this, { wanted: key, fault: "" });
    try {
      const { picture } = await this.connection.ask({ type: "photograph", ...request, encoding: "jpeg", quality: 90 });
      const bitmap = await createImageBitmap(new Blob([picture], { type: "image/jpeg" }));
      Object.assign(at("photograph"), { width: bitmap.width, height: bitmap.height });
      at("photograph").getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      this.there = key;
    } catch (error) {
      this.fault = error.message;
    }
  }
}
