/* Draws with WebGL2: a worker poses and sorts, the graphics card projects and blends.

Frame {pose, poseKey, project, view, background} -> worker -> textures of posed Gaussians and of their order -> a square
of two triangles for each Gaussian, farthest first, into a half-float picture -> over the background, onto the canvas.
All squares are one mesh: instances of four corners are slow on many graphics cards, and very slow in software.
Projection, blur and alpha follow render/projection.py and render/torch_rasterizer.py. */

import { STRIDE } from "./posing.js";

const TEXELS = STRIDE / 4; // of a Gaussian
const ROW = 256; // Gaussians in a row of the texture

/* Projection, the same in webgpu_shaders.js. What covers the ellipse is not a rectangle along its axes but a
parallelogram, from the covariance's Cholesky factor: as small, and without the axes' special cases. */
const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D gaussians;
uniform usampler2D order;
uniform mat3 rotation; // world to camera
uniform vec3 translation, eye;
uniform vec4 lens; // fx, fy, cx, cy
uniform vec2 size;
out vec2 place; // standard deviations
flat out vec4 color; // and opacity

const float BLUR = 0.3, MAX_EXTENT = 3.33, FRUSTUM_MARGIN = 0.3, MIN_ALPHA = 1.0 / 255.0;
const float SH_DEGREE_0 = 0.28209479177387814, SH_DEGREE_1 = 0.4886025119029199;

void main() {
  int rank = gl_VertexID >> 2;
  int index = int(texelFetch(order, ivec2(rank % ${ROW}, rank / ${ROW}), 0).x);
  ivec2 at = ivec2(index % ${ROW} * ${TEXELS}, index / ${ROW});
  vec4 t[${TEXELS}];
  for (int i = 0; i < ${TEXELS}; i += 1) t[i] = texelFetch(gaussians, at + ivec2(i, 0), 0);
  vec3 xyz = t[0].xyz;
  float opacity = t[0].w;
  mat3 covariance = mat3(t[1].x, t[1].y, t[1].z, t[1].y, t[1].w, t[2].x, t[1].z, t[2].x, t[2].y);
  mat3 turnedBack = mat3(t[3].y, t[4].x, t[4].w, t[3].z, t[4].y, t[5].x, t[3].w, t[4].z, t[5].y); // columns of the 3x3 part

  vec3 seen = rotation * xyz + translation;
  vec2 margin = FRUSTUM_MARGIN * 0.5 * size / lens.xy;
  vec2 slope = clamp(seen.xy / seen.z, -lens.zw / lens.xy - margin, (size - lens.zw) / lens.xy + margin);
  mat3 toCamera = transpose(rotation); // its columns are the camera's axes
  vec3 across = (lens.x / seen.z) * (toCamera[0] - slope.x * toCamera[2]);
  vec3 down = (lens.y / seen.z) * (toCamera[1] - slope.y * toCamera[2]);
  float xx = dot(across, covariance * across) + BLUR;
  float xy = dot(across, covariance * down);
  float yy = dot(down, covariance * down) + BLUR;
  float determinant = xx * yy - xy * xy;

  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1 & 1)) * 2.0 - 1.0;
  float reach = min(sqrt(2.0 * log(max(opacity / MIN_ALPHA, 1.0))), MAX_EXTENT);
  place = corner * reach;
  float root = sqrt(xx);
  vec2 pixel = lens.xy * seen.xy / seen.z + lens.zw
    + vec2(root * place.x, xy / root * place.x + sqrt(determinant / xx) * place.y);
  gl_Position = determinant > 0.0 ? vec4(pixel / size * 2.0 - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);

  vec3 d = vec3(dot(turnedBack[0], eye - xyz), dot(turnedBack[1], eye - xyz), dot(turnedBack[2], eye - xyz));
  d /= max(length(d), 1e-12);
  vec3 sh0 = vec3(t[2].zw, t[3].x), sh1 = vec3(t[5].zw, t[6].x), sh2 = t[6].yzw, sh3 = t[7].xyz;
  vec3 sum = SH_DEGREE_0 * sh0 + SH_DEGREE_1 * (d.z * sh2 - d.y * sh1 - d.x * sh3);
  color = vec4(max(sum + 0.5, 0.0), opacity);
}`;

const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
flat in vec4 color;
out vec4 blended;
void main() {
  float alpha = color.a * exp(-0.5 * dot(place, place));
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.999);
  blended = vec4(color.rgb * alpha, alpha);
}`;

const COVER_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0);
}`;

/* The picture has its first row, the upper one, at the bottom. */
const COVER_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D picture;
uniform vec3 background;
out vec4 color;
void main() {
  ivec2 at = ivec2(gl_FragCoord.x, float(textureSize(picture, 0).y) - gl_FragCoord.y);
  vec4 drawn = texelFetch(picture, at, 0);
  color = vec4(drawn.rgb + (1.0 - drawn.a) * background, 1.0);
}`;

export class WebGLRenderer {
  name = "WebGL2";
  lost = null; // told when the graphics card goes away
  poseKey = null; // of what is in the texture
  spare = {}; // buffers that the worker gets back
  waiting = new Map(); // id -> resolve
  lastId = 0;

  /* null where the browser has no WebGL2. */
  static create(canvas, avatar) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });
    return gl && new WebGLRenderer(canvas, gl, avatar);
  }

  constructor(canvas, gl, avatar) {
    const { sizes } = avatar;
    this.canvas = canvas;
    this.gl = gl;
    canvas.addEventListener("webglcontextlost", () => this.lost?.());
    this.rows = Math.ceil(sizes.N / ROW);
    this.format = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float") ? gl.RGBA16F : gl.RGBA8;
    this.splats = program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
    this.cover = program(gl, COVER_VERTEX, COVER_FRAGMENT);

    this.gaussians = texture(gl);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, ROW * TEXELS, this.rows);
    this.picture = null;
    this.target = gl.createFramebuffer();
    this.order = texture(gl);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.R32UI, ROW, this.rows);
    this.squares = gl.createVertexArray();
    gl.bindVertexArray(this.squares);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, squareCorners(sizes.N), gl.STATIC_DRAW);

    this.worker = new Worker(new URL("posing_worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.answered(data.id, (promise) => promise.resolve(data));
    this.worker.onerror = (event) => {
      event.preventDefault();
      for (const id of [...this.waiting.keys()]) this.answered(id, (promise) => promise.reject(new Error(event.message ?? "posing failed")));
    };
    this.worker.postMessage({ avatar, places: this.rows * ROW });
  }

  answered(id, act) {
    act(this.waiting.get(id));
    this.waiting.delete(id);
  }

  ask(message) {
    this.lastId += 1;
    const id = this.lastId, { posed, ...others } = this.spare;
    const spare = message.pose && posed ? { posed, ...others } : others;
    this.spare = posed && !message.pose ? { posed } : {};
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ ...message, id, spare }, Object.values(spare));
    });
  }

  /* One at a time. seen(): called at once when the picture is on the canvas. -> milliseconds that posing and sorting took */
  async draw({ pose, poseKey, project, view, background }, seen = () => {}) {
    const { gl } = this, changed = poseKey !== this.poseKey;
    const answer = await this.ask({ pose: changed ? pose : null, project, axis: view.w2c.slice(8, 12) });
    const { posed, order, count, milliseconds } = answer;
    if (posed) {
      gl.bindTexture(gl.TEXTURE_2D, this.gaussians);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, ROW * TEXELS, this.rows, gl.RGBA, gl.FLOAT, posed);
      this.poseKey = poseKey;
    }
    this.resize(view);
    this.blend(view, order, count);
    this.show(background);
    seen();
    this.spare = { ...this.spare, order: order.buffer, ...(posed && { posed: posed.buffer }) };
    await this.finished();
    return milliseconds;
  }

  resize({ width, height }) {
    const { gl, canvas } = this;
    if (this.picture && canvas.width === width && canvas.height === height) return;
    canvas.width = width;
    canvas.height = height;
    gl.deleteTexture(this.picture);
    this.picture = texture(gl);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.format, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.picture, 0);
  }

  blend(view, order, count) {
    const { gl, splats: { use, at } } = this;
    const { rotation, translation, eye, lens } = cameraNumbers(view);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, view.width, view.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(use);
    gl.uniformMatrix3fv(at.rotation, true, rotation);
    gl.uniform3fv(at.translation, translation);
    gl.uniform3fv(at.eye, eye);
    gl.uniform4fv(at.lens, lens);
    gl.uniform2f(at.size, view.width, view.height);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.order);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, ROW, Math.ceil(count / ROW), gl.RED_INTEGER, gl.UNSIGNED_INT, order);
    gl.uniform1i(at.order, 1);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.gaussians);
    gl.bindVertexArray(this.squares);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.TRIANGLES, 6 * count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.BLEND);
  }

  show(background) {
    const { gl, cover: { use, at } } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.bindVertexArray(null);
    gl.useProgram(use);
    gl.bindTexture(gl.TEXTURE_2D, this.picture);
    gl.uniform3fv(at.background, background);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /* Until the graphics card has done it. */
  finished() {
    const { gl } = this;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return new Promise((resolve) => {
      const look = () => {
        const status = gl.isContextLost() ? gl.WAIT_FAILED : gl.clientWaitSync(fence, 0, 0);
        if (status === gl.TIMEOUT_EXPIRED) return setTimeout(look, 1);
        gl.deleteSync(fence);
        return resolve();
      };
      look();
    });
  }
}

/* Of a view {w2c, fovx, width, height}: rotation (9), translation (3), eye (3), lens (fx, fy, cx, cy). */
export function cameraNumbers({ w2c, fovx, width, height }) {
  const rows = [0, 4, 8].map((start) => w2c.slice(start, start + 3));
  const translation = [3, 7, 11].map((place) => w2c[place]);
  const eye = [0, 1, 2].map((axis) => -rows.reduce((sum, row, i) => sum + row[axis] * translation[i], 0));
  const focal = width / (2 * Math.tan(fovx * Math.PI / 360));
  return { rotation: rows.flat(), translation, eye, lens: [focal, focal, width / 2, height / 2] };
}

/* Corners of `count` squares, four each, as two triangles. */
export function squareCorners(count) {
  const corners = new Uint32Array(6 * count);
  for (let i = 0; i < count; i += 1) [0, 1, 2, 2, 1, 3].forEach((corner, k) => { corners[6 * i + k] = 4 * i + corner; });
  return corners;
}

function texture(gl) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
  return made;
}

/* {use: the program, at: places of its uniforms by name} */
function program(gl, vertex, fragment) {
  const use = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new Error(`a shader of this page does not compile here: ${gl.getShaderInfoLog(shader)}`);
    }
    gl.attachShader(use, shader);
  }
  gl.linkProgram(use);
  if (!gl.getProgramParameter(use, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`a program of this page does not link here: ${gl.getProgramInfoLog(use)}`);
  }
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(use, gl.ACTIVE_UNIFORMS); i += 1) {
    const { name } = gl.getActiveUniform(use, i);
    at[name] = gl.getUniformLocation(use, name);
  }
  return { use, at };
}
