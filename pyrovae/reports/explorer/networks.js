// Arrays, functions of numbers, and networks: lists of plain layers, run in double precision.
"use strict";

// ---------------------------------------------------------------- arrays, as base64 of their little-endian bytes

const VIEWS = { f4: Float32Array, u1: Uint8Array };

function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed.base64), (c) => c.charCodeAt(0));
  const array = new VIEWS[packed.type](bytes.buffer);
  return Object.assign(array, { shape: packed.shape });
}

/** Every packed array in a tree of objects and lists, unpacked. */
function unpackedAll(item) {
  if (Array.isArray(item)) return item.map(unpackedAll);
  if (item === null || typeof item !== "object") return item;
  if (item.base64 !== undefined) return unpacked(item);
  return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, unpackedAll(value)]));
}

// ---------------------------------------------------------------- numbers

const softplus = (t) => (t > 0 ? t + Math.log1p(Math.exp(-t)) : Math.log1p(Math.exp(t)));
const sigmoid = (t) => (t >= 0 ? 1 / (1 + Math.exp(-t)) : Math.exp(t) / (1 + Math.exp(t)));
const positive = (raw) => softplus(raw) + 1e-4; // how families make a scale of a raw number
const HALF_LOG_TWO_PI = 0.5 * Math.log(2 * Math.PI);

function logSumExp(values) {
  let most = -Infinity, total = 0;
  for (const v of values) most = Math.max(most, v);
  if (most === -Infinity) return most;
  for (const v of values) total += Math.exp(v - most);
  return most + Math.log(total);
}

function erf(t) { // Abramowitz and Stegun (1964), 7.1.26: to 1.5e-7
  const s = 1 / (1 + 0.3275911 * Math.abs(t));
  const series = ((((1.061405429 * s - 1.453152027) * s + 1.421413741) * s - 0.284496736) * s + 0.254829592) * s;
  return Math.sign(t) * (1 - series * Math.exp(-t * t));
}

function logGamma(a) { // Stirling's series above 12, and steps down to a
  let steps = 0;
  for (; a < 12; a += 1) steps += Math.log(a);
  const s = 1 / (a * a);
  return (a - 0.5) * Math.log(a) - a + HALF_LOG_TWO_PI + (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s / 1680))) / a - steps;
}

// ---------------------------------------------------------------- networks: a list of layers, each (x) => y

const ACTIVATIONS = {
  relu: () => (x) => Math.max(x, 0),
  tanh: () => Math.tanh,
  sigmoid: () => sigmoid,
  silu: () => (x) => x * sigmoid(x),
  gelu: () => (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  "gelu-tanh": () => (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  softplus: (beta) => (x) => softplus(beta * x) / beta,
  elu: (alpha) => (x) => (x > 0 ? x : alpha * Math.expm1(x)),
  selu: () => (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  leaky: (slope) => (x) => (x > 0 ? x : slope * x),
};

const LAYERS = {
  activation: ({ name, numbers }) => { const f = ACTIVATIONS[name](...numbers); return (x) => x.map((v) => f(v)); },
  glu: () => (x) => x.slice(0, x.length / 2).map((h, i) => h * sigmoid(x[x.length / 2 + i])),
  residual: ({ change, shortcut }) => {
    const [f, s] = [network(change), network(shortcut)];
    return (x) => { const y = f(x), z = s(x); return y.map((v, i) => v + z[i]); };
  },
  linear: ({ weight, bias }) => (x) => {
    const y = new Float64Array(weight.shape[0]), n = x.length, even = n - (n % 4);
    for (let i = 0, k = 0; i < y.length; i++) {
      let [a, b, c, d] = [bias ? bias[i] : 0, 0, 0, 0], j = 0; // four sums, none of which waits for another
      for (; j < even; j += 4, k += 4) {
        a += weight[k] * x[j];
        b += weight[k + 1] * x[j + 1];
        c += weight[k + 2] * x[j + 2];
        d += weight[k + 3] * x[j + 3];
      }
      for (; j < n; j++, k++) a += weight[k] * x[j];
      y[i] = a + b + (c + d);
    }
    return y;
  },
  scale: ({ weight, bias }) => (x) => {
    const each = x.length / weight.length;
    return x.map((v, i) => v * weight[Math.floor(i / each)] + bias[Math.floor(i / each)]);
  },
  norm: ({ weight, bias, groups, eps }) => (x) => {
    const y = new Float64Array(x.length), size = x.length / groups;
    for (let start = 0; start < x.length; start += size) {
      const part = x.subarray(start, start + size), mean = part.reduce((a, b) => a + b) / size;
      const scale = 1 / Math.sqrt(part.reduce((a, b) => a + (b - mean) ** 2, 0) / size + eps);
      for (let i = start; i < start + size; i++) {
        const channel = weight ? Math.floor((i * weight.length) / x.length) : 0;
        y[i] = (x[i] - mean) * scale * (weight ? weight[channel] : 1) + (bias ? bias[channel] : 0);
      }
    }
    return y;
  },
  crop: ({ from: [channels, height, width], to: [, rows, columns] }) => (x) => {
    const y = new Float64Array(channels * rows * columns);
    for (let c = 0, k = 0; c < channels; c++)
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) y[k++] = x[(c * height + i) * width + j];
    return y;
  },
  conv: (layer) => convolution(layer, layer.to, layer.from),
  transposed: (layer) => convolution(layer, layer.from, layer.to),
};

/** A convolution, or its transpose, as a matrix product: `small` is the shape behind the stride, `large` before it. */
function convolution({ kind, weight, bias, stride: [down, over], padding: [above, left], to }, small, large) {
  const [, , high, wide] = weight.shape, [channels, rows, columns] = small, [others, height, width] = large;
  const places = rows * columns, taps = others * high * wide, each = to[1] * to[2];
  const where = new Int32Array(taps * places).fill(-1); // each tap at each place: where in the large image, if inside
  for (let tap = 0; tap < taps; tap++) {
    const [other, a, b] = [Math.floor(tap / (high * wide)), Math.floor(tap / wide) % high, tap % wide];
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) {
        const [row, column] = [i * down + a - above, j * over + b - left];
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        where[tap * places + i * columns + j] = (other * height + row) * width + column;
      }
  }
  return (x) => {
    const y = new Float64Array(to[0] * each), isTransposed = kind === "transposed";
    if (bias) for (let c = 0; c < to[0]; c++) y.fill(bias[c], c * each, (c + 1) * each);
    const at = new Float64Array(taps * places);
    if (!isTransposed) where.forEach((from, k) => { if (from >= 0) at[k] = x[from]; });
    for (let c = 0, k = 0; c < channels; c++)
      for (let tap = 0; tap < taps; tap++, k++) {
        const w = weight[k], p = c * places, q = tap * places;
        if (isTransposed) for (let n = 0; n < places; n++) at[q + n] += w * x[p + n];
        else for (let n = 0; n < places; n++) y[p + n] += w * at[q + n];
      }
    if (isTransposed) where.forEach((to, k) => { if (to >= 0) y[to] += at[k]; });
    return y;
  };
}

function network(layers) {
  const parts = layers.map((layer) => LAYERS[layer.kind](layer));
  return (x) => parts.reduce((value, part) => part(value), Float64Array.from(x));
}
