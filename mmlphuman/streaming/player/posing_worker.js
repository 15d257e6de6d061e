/* Beside the page, where there is no WebGPU: poses the avatar and sorts its Gaussians on the CPU.

{avatar, places} once: what readAvatar gave, and for how many Gaussians the arrays have room; then {id, pose, project, axis,
spare} -> {id, posed, order, count, milliseconds}. pose is null where it has not changed, and so is posed; spare: buffers that
the page needs no more. */

import { OPACITY, STRIDE, poseAvatar } from "./posing.js";
import { Sorter } from "./sorting.js";

let avatar = null, centers = null, sorter = null, places = 0;

onmessage = ({ data }) => {
  if (data.avatar) {
    avatar = data.avatar;
    centers = new Float32Array(4 * avatar.sizes.N);
    sorter = new Sorter(avatar.sizes.N);
    places = data.places;
    return;
  }
  const began = performance.now();
  let posed = null;
  if (data.pose) {
    posed = data.spare.posed ? new Float32Array(data.spare.posed) : new Float32Array(places * STRIDE);
    poseAvatar(avatar, data.pose, data.project, posed);
    for (let n = 0; n < avatar.sizes.N; n += 1) {
      for (let i = 0; i <= OPACITY; i += 1) centers[4 * n + i] = posed[n * STRIDE + i];
    }
  }
  const order = data.spare.order ? new Uint32Array(data.spare.order) : new Uint32Array(places);
  const count = sorter.order(centers, data.axis, order);
  const answer = { id: data.id, posed, order, count, milliseconds: performance.now() - began };
  postMessage(answer, [order.buffer, ...(posed ? [posed.buffer] : [])]);
};
