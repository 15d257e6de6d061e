/* The loss over the iterations: points of State messages -> a small canvas. */

const MOST_POINTS = 2000;
const MARGIN = 14; // pixels below the curve, for the iterations
const FONT = "11px system-ui, sans-serif", TEXT = "#9aa0aa", CURVE = "#7fb4ff";

export class LossPlot {
  points = []; // [iteration, loss]

  constructor(canvas) {
    this.canvas = canvas;
  }

  add(history) {
    if (!history.length) return;
    const last = this.points.at(-1);
    if (last && history[0][0] <= last[0]) this.points = []; // the course is told from its beginning again
    this.points.push(...history);
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, i) => i % 2 || i === 0);
    this.draw();
  }

  /* Logarithmic where all losses are positive, as they fall by powers. */
  draw() {
    const { canvas, points } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (points.length < 2 || !width) return;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);

    const losses = points.map(([, loss]) => loss);
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const bend = low > 0 ? Math.log : (loss) => loss;
    const [first, last] = [points[0][0], points.at(-1)[0]];
    const x = (iteration) => (iteration - first) / Math.max(last - first, 1) * (width - 2) + 1;
    const y = (loss) => 2 + (bend(high) - bend(loss)) / (bend(high) - bend(low) || 1) * (height - MARGIN - 4);
    pen.strokeStyle = CURVE;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const [iteration, loss] of points) pen.lineTo(x(iteration), y(loss));
    pen.stroke();

    pen.font = FONT;
    pen.fillStyle = TEXT;
    pen.fillText(first.toLocaleString("en"), 0, height - 2);
    pen.textAlign = "right";
    pen.fillText(last.toLocaleString("en"), width, height - 2);
    pen.fillText(`loss ${low.toPrecision(2)} to ${high.toPrecision(2)}, now ${losses.at(-1).toPrecision(2)}`, width, 11);
  }
}
