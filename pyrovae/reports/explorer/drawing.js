// What is drawn: pictures of data, the latent plane, a posterior beside its guide.
"use strict";

const el = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A number as text, with a true minus sign and no minus zero. */
function said(t, digits = 2) {
  return Number.isFinite(t) ? t.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "").replace("-", "−") : "–";
}

// ---------------------------------------------------------------- pictures of data

const SHAPE = data.shape.length === 2 ? [1, ...data.shape] : data.shape;
const IMAGE = SHAPE.length === 3 && [1, 3].includes(SHAPE[0]) ? SHAPE : null;
const MISSING = [245, 220, 192];

/** A datum as pixels, one of the canvas for each: one channel is ink on white, three are colours. */
function show(canvas, x, more) {
  if (!IMAGE) return showBars(canvas, x, more);
  const [channels, height, width] = IMAGE, [low, high] = data.limits, each = height * width;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pixels = new ImageData(width, height);
  for (let p = 0; p < each; p++) {
    for (let c = 0; c < 3; c++) {
      const unit = (x[p + (channels === 3 ? c * each : 0)] - low) / (high - low || 1);
      pixels.data[4 * p + c] = Number.isNaN(unit) ? MISSING[c] : 255 * (channels === 1 ? 1 - unit : unit);
    }
    pixels.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A datum that is no image as bars from zero, with another one as marks. */
function showBars(canvas, x, marks) {
  const width = 400, height = 300, context = canvas.getContext("2d");
  Object.assign(canvas, { width, height });
  const low = Math.min(data.limits[0], 0), high = Math.max(data.limits[1], 0);
  const y = (v) => height - 10 - ((Math.min(Math.max(v, low), high) - low) / (high - low || 1)) * (height - 20);
  const step = width / x.length;
  context.fillStyle = colour("blue");
  const bar = (v, i) => context.fillRect((i + 0.15) * step, Math.min(y(v), y(0)), step * 0.7, Math.abs(y(v) - y(0)) + 1);
  x.forEach(bar);
  context.fillStyle = colour("red");
  if (marks) marks.forEach((v, i) => context.fillRect(i * step, y(v) - 2, step, 4));
}

// ---------------------------------------------------------------- a frame of coordinates on a canvas

function frame(canvas, box) {
  const ratio = window.devicePixelRatio || 1, side = Math.max(canvas.clientWidth, 40);
  const pixels = Math.round(side * ratio);
  if (canvas.width !== pixels) Object.assign(canvas, { width: pixels, height: pixels });
  const context = canvas.getContext("2d"), [left, right, bottom, top] = box;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return {
    context, side, box,
    x: (t) => ((t - left) / (right - left)) * side,
    y: (t) => ((top - t) / (top - bottom)) * side,
    line(points) { // [x, y, x, y, ...]
      for (let i = 0; i < points.length; i += 2)
        context[i ? "lineTo" : "moveTo"](this.x(points[i]), this.y(points[i + 1]));
    },
    segments(all, style, width, dash = []) {
      context.beginPath();
      all.forEach((segment) => this.line(segment));
      this.stroke(style, width, dash);
    },
    stroke(style, width, dash = []) {
      context.setLineDash(dash);
      Object.assign(context, { strokeStyle: style, lineWidth: width });
      context.stroke();
      context.setLineDash([]);
    },
    ring(u, radius, style, width = 2) {
      context.beginPath();
      context.arc(this.x(u[0]), this.y(u[1]), radius, 0, 7);
      this.stroke(style, width);
    },
    ellipse([a, b], [aa, ab, bb], sds, style, width, dash) {
      const points = [], l = Math.sqrt(aa), m = ab / l, n = Math.sqrt(Math.max(bb - m * m, 0));
      for (let i = 0; i <= 72; i++) {
        const [c, s] = [Math.cos((i * Math.PI) / 36) * sds, Math.sin((i * Math.PI) / 36) * sds];
        points.push(a + l * c, b + m * c + n * s);
      }
      context.beginPath();
      this.line(points);
      this.stroke(style, width, dash);
    },
    ticks() {
      const span = right - left, steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50];
      const step = steps.find((s) => span / s <= 9) || span / 5;
      const digits = Math.max(0, Math.ceil(-Math.log10(step)));
      Object.assign(context, { fillStyle: colour("quiet"), font: "11px system-ui, sans-serif", textAlign: "center" });
      for (let t = Math.ceil(left / step) * step; t < right; t += step) {
        if (this.x(t) < 30 || this.x(t) > side - 14) continue;
        context.fillRect(this.x(t), side - 4, 1, 4);
        context.fillText(said(t, digits), this.x(t), side - 7);
      }
      context.textAlign = "left";
      for (let t = Math.ceil(bottom / step) * step; t < top; t += step) {
        if (this.y(t) > side - 24 || this.y(t) < 8) continue;
        context.fillRect(0, this.y(t), 4, 1);
        context.fillText(said(t, digits), 6, this.y(t) + 4);
      }
    },
  };
}

/** A table of opacities, rows from the top, as a picture in one colour. */
function veil(shades, width, opacity) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height: shades.length / width });
  const picture = new ImageData(width, canvas.height), [r, g, b] = colour("shade").split(",").map(Number);
  shades.forEach((shade, k) => picture.data.set([r, g, b, shade * opacity], 4 * k));
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// ---------------------------------------------------------------- the plane

let ground = null; // what does not move, kept as a picture

function drawGround() {
  const canvas = el("plane"), f = frame(canvas, BOX), { context, side } = f;
  context.clearRect(0, 0, side, side);
  context.imageSmoothingEnabled = true;
  context.drawImage(veil(scene.shades, scene.shades.shape[1], 0.5), 0, 0, side, side);
  for (const { mass, lines } of scene.contours) {
    context.beginPath();
    lines.forEach((line) => f.line(line));
    f.stroke(colour("ink"), mass < 0.6 ? 1.6 : 1, mass > 0.95 ? [2, 4] : mass > 0.6 ? [6, 4] : []);
  }
  drawCodes(f);
  f.ticks();
  ground = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  ground.getContext("2d").drawImage(canvas, 0, 0);
}

/** A disc for each datum in the colour of its class, with the name of that where it is a letter and discs are few. */
function drawCodes(f) {
  const number = scene.codes.shape[0], { context } = f, size = Math.min(1, f.side / 480);
  const radius = (hasLetters ? 5.5 : 2.4) * size;
  Object.assign(context, { font: `bold ${9 * size}px system-ui, sans-serif`, textAlign: "center" });
  for (let n = 0; n < number; n++) {
    const [x, y] = [f.x(scene.codes[n * DIMS]), f.y(scene.codes[n * DIMS + 1])];
    context.fillStyle = scene.labels ? classColour(scene.labels[n]) : colour("ink");
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
    if (!hasLetters) continue;
    context.fillStyle = isLight(classColour(scene.labels[n])) ? "#000" : "#fff";
    context.fillText(scene.classes[scene.labels[n]], x, y + 3.2 * size);
  }
}

const classColour = (c) => scene.colours[c % scene.colours.length];
const areFew = scene.codes.shape[0] <= 500;
const hasLetters = scene.labels !== null && areFew && scene.classes.every((c) => String(c).length === 1);

function isLight(hex) { // by relative luminance, about the middle between black and white text
  const [r, g, b] = [1, 3, 5].map((k) => (parseInt(hex.slice(k, k + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18;
}

function drawPlane() {
  const canvas = el("plane");
  if (!ground || Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)) !== ground.width) drawGround();
  const f = frame(canvas, BOX), { context, side } = f;
  context.clearRect(0, 0, side, side);
  context.drawImage(ground, 0, 0, side, side);
  if (state.path) { context.beginPath(); f.line(state.path.flatMap((u) => u.slice(0, 2))); f.stroke(colour("ink"), 2); }
  if (state.datum) drawBoth(f, state.datum.q, DIMS === 2 ? state.grid : null);
  f.ring(state.u, 7, colour("paper"), 5);
  f.ring(state.u, 7, colour("ink"), 2.5);
}

/** q(z|x), dashed, and the posterior, each by the regions that hold 50 and 90 per cent of it. */
function drawBoth(f, q, grid) {
  if (grid) {
    const [half, most] = levels(grid.log, [0.5, 0.9]);
    f.segments(contour(grid.log, grid.nodes, grid.place, half), colour("blue"), 2);
    f.segments(contour(grid.log, grid.nodes, grid.place, most), colour("blue"), 1.2);
  }
  for (const mass of [0.5, 0.9])
    f.ellipse(q.code, q.covariance, Math.sqrt(-2 * Math.log(1 - mass)), colour("red"), 2, [5, 3]);
}

function drawPosterior() {
  const canvas = el("posterior"), { datum, grid } = state;
  if (!datum) return;
  const shown = slice(datum.q, state.u), { code, covariance: [aa, , bb] } = shown;
  const box = [0, 1].flatMap((i) => {
    const reach = 2.6 * Math.sqrt(i ? bb : aa), of = grid ? grid.box.slice(2 * i, 2 * i + 2) : [code[i], code[i]];
    return [Math.min(of[0], code[i] - reach), Math.max(of[1], code[i] + reach)];
  });
  const half = Math.max(box[1] - box[0], box[3] - box[2]) / 2;
  const square = [0, 2].flatMap((k) => [(box[k] + box[k + 1]) / 2 - half, (box[k] + box[k + 1]) / 2 + half]);
  const f = frame(canvas, square), { context, side } = f;
  context.clearRect(0, 0, side, side);
  if (grid) {
    const most = Math.max(...grid.log), shades = new Float64Array(grid.log.length), { nodes } = grid;
    const upward = (k) => (nodes - 1 - Math.floor(k / nodes)) * nodes + (k % nodes);
    grid.log.forEach((v, k) => { shades[upward(k)] = 255 * Math.exp(v - most); });
    const [cell, rise] = [0, 2].map((k) => (grid.box[k + 1] - grid.box[k]) / (nodes - 1) / 2);
    const [x, y] = [f.x(grid.box[0] - cell), f.y(grid.box[3] + rise)];
    context.drawImage(veil(shades, nodes, 0.6), x, y, f.x(grid.box[1] + cell) - x, f.y(grid.box[2] - rise) - y);
  }
  drawBoth(f, shown, grid);
  f.ticks();
  f.ring(state.u, 5, colour("ink"), 2);
  state.square = square;
}

