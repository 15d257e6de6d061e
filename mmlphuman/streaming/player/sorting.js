/* Which Gaussians are drawn, and in which order: all in front of the camera, farthest first.

Centres and opacities (N, 4) + the camera's depth axis -> indices. A radix sort over the bits of the depths, 16 at a time:
positive floats have the order of their bits. */

const NEAR_PLANE = 0.1, MIN_ALPHA = 1 / 255; // render/projection.py
const DIGITS = 65536;

export class Sorter {
  constructor(count) {
    this.depths = new Float32Array(count);
    this.keys = new Uint32Array(this.depths.buffer);
    this.first = new Uint32Array(count); // indices by the lower digits
    this.places = new Uint32Array(DIGITS);
  }

  /* centers: (N, 4) x y z opacity. axis: (4,) depth = axis . (x, y, z, 1). -> how many are drawn; their indices stand first in
  `visible`, (N,) or longer. */
  order(centers, [a, b, c, d], visible) {
    const { depths, keys, first, places } = this;
    const count = depths.length;
    let seen = 0;
    for (let n = 0; n < count; n += 1) {
      const at = 4 * n;
      const depth = a * centers[at] + b * centers[at + 1] + c * centers[at + 2] + d;
      depths[n] = depth;
      if (depth > NEAR_PLANE && centers[at + 3] >= MIN_ALPHA) {
        visible[seen] = n;
        seen += 1;
      }
    }
    const pass = (from, to, digit) => {
      places.fill(0);
      for (let i = 0; i < seen; i += 1) places[digit(keys[from[i]])] += 1;
      let sum = 0;
      for (let value = DIGITS - 1; value >= 0; value -= 1) { // the largest first
        const here = places[value];
        places[value] = sum;
        sum += here;
      }
      for (let i = 0; i < seen; i += 1) {
        const index = from[i], value = digit(keys[index]);
        to[places[value]] = index;
        places[value] += 1;
      }
    };
    pass(visible, first, (key) => key & 0xffff);
    pass(first, visible, (key) => key >>> 16);
    return seen;
  }
}
