/* Draws with WebGPU: the graphics card poses, sorts and draws; the page gives it what the MLPs see, and the joints.

Frame {pose, poseKey, project, view, background} -> if the pose is new: MLPs, control points, Gaussians (compute) -> projection,
sort by depth (compute) -> squares blended into a half-float picture -> over the background, onto the canvas.
The programs stand in webgpu_shaders.js; what they compute in posing.js, which is their twin on the CPU. */

import { widthOf } from "./avatar_file.js";
import { STRIDE, featuresOf, inputsOf, placeShift, skinningTransforms } from "./posing.js";
import { cameraNumbers, squareCorners } from "./webgl_renderer.js";
import {
  COVER_SHADER, DIGITS, DIGIT_BITS, GROUP, NEUTRAL, PASSES, SORT_BLOCK, SPLAT, SPLAT_SHADER, controlShader, countShader,
  gaussianShader, layerShader, projectShader, scatterShader, sumShader,
} from "./webgpu_shaders.js";

const MAX_GROUPS = 32768; // in a row
const VIEW_FLOATS = 28, LIGHT_FLOATS = 80; // of the uniforms
const PICTURE_FORMAT = "rgba16float";
const UNIFORM_STEP = 256; // bytes between uniforms of one buffer

export class WebGPURenderer {
  name = "WebGPU";
  lost = null; // told when the graphics card goes away
  poseKey = null; // of the Gaussians on the card

  /* null where the browser has no WebGPU; an Error where it has, but does not take this. The canvas is touched last: what fails
  here can still be drawn by WebGL2. */
  static async create(canvas, avatar) {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return null;
    const { maxStorageBufferBindingSize, maxBufferSize } = adapter.limits;
    const device = await adapter.requestDevice({ requiredLimits: { maxStorageBufferBindingSize, maxBufferSize } });
    const renderer = new WebGPURenderer(device, avatar);
    await renderer.prepare(canvas);
    return renderer;
  }

  constructor(device, avatar) {
    this.device = device;
    this.avatar = avatar;
    device.lost.then(({ reason }) => reason !== "destroyed" && this.lost?.());
  }

  async prepare(canvas) {
    const { device } = this;
    for (const kind of ["validation", "out-of-memory"]) device.pushErrorScope(kind);
    const failed = [];
    try {
      this.view = this.buffer(4 * VIEW_FLOATS, GPUBufferUsage.UNIFORM);
      await this.preparePosing();
      await this.prepareSort();
      await this.prepareDrawing();
    } finally {
      for (let i = 0; i < 2; i += 1) failed.push(await device.popErrorScope());
    }
    const error = failed.find(Boolean);
    if (error) throw new Error(error.message || "the graphics card has too little memory");
    this.canvas = canvas;
    this.context = canvas.getContext("webgpu");
    this.context.configure({ device, format: navigator.gpu.getPreferredCanvasFormat(), alphaMode: "opaque" });
  }

  // --- buffers and programs ----------------------------------------------------------------------------------

  /* content: bytes, or an array that is copied. */
  buffer(content, usage = GPUBufferUsage.STORAGE) {
    const bytes = typeof content === "number" ? content : content.byteLength;
    const size = Math.max(4 * Math.ceil(bytes / 4), 16);
    const made = this.device.createBuffer({ size, usage: usage | GPUBufferUsage.COPY_DST, mappedAtCreation: typeof content !== "number" });
    if (typeof content !== "number") {
      new Uint8Array(made.getMappedRange()).set(new Uint8Array(content.buffer, content.byteOffset, bytes));
      made.unmap();
    }
    return made;
  }

  /* A compute stage: its program and its buffers, in the order of bindings -> {pipeline, group, groups}. */
  async stage(code, threads, buffers) {
    const module = this.device.createShaderModule({ code });
    const pipeline = await this.device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
    return { pipeline, group: this.group(pipeline, buffers), groups: Math.ceil(threads / GROUP) };
  }

  group(pipeline, resources) {
    const entries = resources.map((resource, binding) => ({
      binding, resource: resource instanceof GPUBuffer ? { buffer: resource } : resource,
    }));
    return this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }

  async preparePosing() {
    const { avatar } = this, { arrays, sizes, config, active } = avatar;
    const { N, C, A, K } = sizes;
    this.inputs = this.buffer(4 * A * sizes.I);
    this.stages = [];
    let hidden = this.inputs, fanIn = sizes.I;
    for (let layer = 0; layer <= config.hidden_widths.length; layer += 1) {
      const fanOut = widthOf(config, sizes, layer), { values, scales } = arrays[`bank.weights.${layer}`];
      const outputs = this.buffer(4 * A * fanOut);
      const code = layerShader(A, fanIn, fanOut, values.BYTES_PER_ELEMENT, layer === config.hidden_widths.length);
      const buffers = [packed(values, fanIn), scales, arrays[`bank.biases.${layer}`]].map((content) => this.buffer(content));
      this.stages.push(await this.stage(code, A * fanOut, [...buffers, hidden, outputs]));
      hidden = outputs;
      fanIn = fanOut;
    }
    const offsets = this.buffer(12 * C);
    const controls = [arrays.control_offsets, arrays.position_bases, interpolation(arrays, "control_to_anchor")];
    this.stages.push(await this.stage(controlShader(sizes, active), C, [...controls.map((content) => this.buffer(content)), hidden, offsets]));

    this.pose = this.buffer(4 * (12 * sizes.J + 4 + LIGHT_FLOATS), GPUBufferUsage.UNIFORM);
    this.posed = this.buffer(4 * N * STRIDE);
    const { property_bases: properties, sh1_bases: sh1 } = arrays;
    const [first, second] = alike(properties.values, sh1.values);
    const gaussians = [
      neutralRows(avatar), tableRows(avatar), interpolation(arrays, "gaussian_to_anchor"),
      joined(Uint32Array, packed(first, 11 * K), packed(second, 9 * K)),
      joined(Float32Array, properties.scales, sh1.scales, properties.offsets, sh1.offsets),
    ];
    const functions = (arrays["light.coefficients"]?.length ?? 0) / 3;
    this.stages.push(await this.stage(gaussianShader(sizes, active, functions, first.BYTES_PER_ELEMENT), N, [
      this.pose, ...gaussians.map((content) => this.buffer(content)), hidden, offsets, this.posed,
    ]));
  }

  async prepareSort() {
    const { device } = this, { N } = this.avatar.sizes, blocks = Math.ceil(N / SORT_BLOCK);
    this.splats = this.buffer(4 * SPLAT * N);
    const keys = [0, 1].map(() => this.buffer(4 * N)), indices = [0, 1].map(() => this.buffer(4 * N));
    const counts = this.buffer(4 * DIGITS * blocks);
    const shifts = this.buffer(UNIFORM_STEP * PASSES, GPUBufferUsage.UNIFORM);
    for (let i = 0; i < PASSES; i += 1) device.queue.writeBuffer(shifts, UNIFORM_STEP * i, new Uint32Array([DIGIT_BITS * i]));
    const shift = (i) => ({ buffer: shifts, offset: UNIFORM_STEP * i, size: 4 });
    const project = await this.stage(projectShader({ N }), N, [this.view, this.posed, this.splats, keys[0], indices[0]]);
    const count = await this.stage(countShader(N), N, [shift(0), keys[0], counts]);
    const sum = await this.stage(sumShader(DIGITS * blocks), 1, [counts]);
    const scatter = await this.stage(scatterShader(N), N, [shift(0), keys[0], indices[0], counts, keys[1], indices[1]]);
    this.sorting = [project];
    for (let i = 0; i < PASSES; i += 1) {
      const from = i % 2, to = 1 - from;
      this.sorting.push(
        { ...count, groups: blocks, group: this.group(count.pipeline, [shift(i), keys[from], counts]) },
        { ...sum, groups: 1 },
        {
          ...scatter, groups: blocks,
          group: this.group(scatter.pipeline, [shift(i), keys[from], indices[from], counts, keys[to], indices[to]]),
        },
      );
    }
    this.order = indices[PASSES % 2];
  }

  async prepareDrawing() {
    const { device } = this, { N } = this.avatar.sizes;
    const over = { srcFactor: "one", dstFactor: "one-minus-src-alpha", operation: "add" };
    const pipeline = (code, names, target, topology) => {
      const module = device.createShaderModule({ code });
      return device.createRenderPipelineAsync({
        layout: "auto",
        vertex: { module, entryPoint: names[0] },
        fragment: { module, entryPoint: names[1], targets: [target] },
        primitive: { topology },
      });
    };
    this.blend = await pipeline(SPLAT_SHADER, ["corner", "blend"], { format: PICTURE_FORMAT, blend: { color: over, alpha: over } }, "triangle-list");
    this.cover = await pipeline(COVER_SHADER, ["corner", "lay"], { format: navigator.gpu.getPreferredCanvasFormat() }, "triangle-list");
    this.squares = this.group(this.blend, [this.view, this.splats, this.order]);
    this.corners = this.buffer(squareCorners(N), GPUBufferUsage.INDEX);
    this.picture = null;
  }

  // --- a picture -----------------------------------------------------------------------------------------------

  /* One at a time. seen(): called at once when the picture is on the canvas. -> milliseconds that the CPU was busy */
  async draw({ pose, poseKey, project, view, background }, seen = () => {}) {
    const { device } = this, began = performance.now();
    const encoder = device.createCommandEncoder();
    if (poseKey !== this.poseKey) {
      this.writePose(pose, project);
      run(encoder, this.stages);
      this.poseKey = poseKey;
    }
    this.writeView(view, background);
    this.resize(view);
    run(encoder, this.sorting);
    const onto = (target, clearValue) => encoder.beginRenderPass({
      colorAttachments: [{ view: target.createView(), clearValue, loadOp: "clear", storeOp: "store" }],
    });
    const splats = onto(this.picture, [0, 0, 0, 0]);
    splats.setPipeline(this.blend);
    splats.setBindGroup(0, this.squares);
    splats.setIndexBuffer(this.corners, "uint32");
    splats.drawIndexed(6 * this.avatar.sizes.N);
    splats.end();
    const cover = onto(this.context.getCurrentTexture(), [0, 0, 0, 1]);
    cover.setPipeline(this.cover);
    cover.setBindGroup(0, this.covering);
    cover.draw(3);
    cover.end();
    device.queue.submit([encoder.finish()]);
    seen();
    const milliseconds = performance.now() - began;
    await device.queue.onSubmittedWorkDone();
    return milliseconds;
  }

  writePose(pose, project) {
    const { avatar, device: { queue } } = this;
    queue.writeBuffer(this.inputs, 0, inputsOf(avatar, featuresOf(avatar, pose, project)));
    const uniform = new Float32Array(12 * avatar.sizes.J + 4 + LIGHT_FLOATS);
    uniform.set(skinningTransforms(avatar, pose));
    uniform.set(placeShift(avatar, pose), 12 * avatar.sizes.J);
    const light = avatar.arrays["light.coefficients"] ?? [];
    for (let i = 0; i < light.length; i += 1) uniform[12 * avatar.sizes.J + 4 + 4 * Math.floor(i / 3) + i % 3] = light[i];
    queue.writeBuffer(this.pose, 0, uniform);
  }

  writeView(view, background) {
    const { rotation, translation, eye, lens } = cameraNumbers(view);
    const rows = [0, 1, 2].map((row) => [...rotation.slice(3 * row, 3 * row + 3), translation[row]]);
    const numbers = [...rows.flat(), ...eye, 0, ...lens, view.width, view.height, 0, 0, ...background, 1];
    this.device.queue.writeBuffer(this.view, 0, new Float32Array(numbers));
  }

  resize({ width, height }) {
    const { canvas, device } = this;
    if (this.picture && canvas.width === width && canvas.height === height) return;
    canvas.width = width;
    canvas.height = height;
    this.picture?.destroy();
    this.picture = device.createTexture({
      size: [width, height], format: PICTURE_FORMAT, usage: GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.TEXTURE_BINDING,
    });
    this.covering = this.group(this.cover, [this.view, this.picture.createView()]);
  }
}

function run(encoder, stages) {
  const pass = encoder.beginComputePass();
  for (const { pipeline, group, groups } of stages) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(Math.min(groups, MAX_GROUPS), Math.ceil(groups / MAX_GROUPS));
  }
  pass.end();
}

/* Rows of `width` numbers, each padded to whole words. */
function packed(values, width) {
  const Kind = values.constructor, inWord = 4 / Kind.BYTES_PER_ELEMENT;
  const padded = inWord * Math.ceil(width / inWord), rows = values.length / width;
  const numbers = new Kind(rows * padded);
  if (padded === width) numbers.set(values);
  else for (let row = 0; row < rows; row += 1) numbers.set(values.subarray(row * width, (row + 1) * width), row * padded);
  return new Uint32Array(numbers.buffer);
}

/* Both in the wider of their types. */
function alike(first, second) {
  const Kind = first.BYTES_PER_ELEMENT < second.BYTES_PER_ELEMENT ? second.constructor : first.constructor;
  return [first, second].map((values) => (values instanceof Kind ? values : Kind.from(values)));
}

/* (rows, 6): three indices, and the bits of three weights. */
function interpolation(arrays, name) {
  const index = arrays[`${name}.index`], weight = arrays[`${name}.weight`];
  const rows = new Uint32Array(2 * index.length), floats = new Float32Array(rows.buffer);
  for (let i = 0; i < index.length; i += 1) {
    const at = 6 * Math.floor(i / 3) + i % 3;
    rows[at] = index[i];
    floats[at + 3] = weight[i];
  }
  return rows;
}

/* (N, 29 + S) as NEUTRAL has it. */
function neutralRows({ arrays, sizes: { N, S } }) {
  const width = NEUTRAL.weights + 3 + S, rows = new Float32Array(N * width);
  const put = (values, at, count) => {
    for (let n = 0; n < N; n += 1) rows.set(values.subarray(count * n, count * (n + 1)), n * width + at);
  };
  for (const [name, count] of [["xyz", 3], ["sh0", 3], ["sh1", 9], ["log_scales", 3], ["quats", 4], ["opacity_logits", 1]]) {
    put(arrays[name], NEUTRAL[name], count);
  }
  if (arrays.normals) put(arrays.normals, NEUTRAL.normals, 3);
  put(arrays["gaussian_to_control.weight"], NEUTRAL.weights, 3);
  put(arrays["lbs_weights.weight"], NEUTRAL.weights + 3, S);
  return rows;
}

/* (N, 3 + S) control points and joints. */
function tableRows({ arrays, sizes: { N, S } }) {
  const rows = new Uint32Array(N * (3 + S));
  const controls = arrays["gaussian_to_control.index"], joints = arrays["lbs_weights.index"];
  for (let n = 0; n < N; n += 1) {
    rows.set(controls.subarray(3 * n, 3 * n + 3), n * (3 + S));
    rows.set(joints.subarray(S * n, S * (n + 1)), n * (3 + S) + 3);
  }
  return rows;
}

function joined(Kind, ...parts) {
  const all = new Kind(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
