// Log densities in nats, draws from them, and a posterior on a grid. Nothing here draws a picture.
"use strict";

// ---------------------------------------------------------------- random numbers: a stream for each seed

function stream(seed) { // Mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

function gamma(shape, random) { // Marsaglia and Tsang (2000)
  if (shape < 1) return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3, c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(random), v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

function poisson(mean, random) {
  if (mean > 30) { // a gamma variable is the time of an event in the middle (Ahrens and Dieter 1974)
    const k = Math.floor(0.875 * mean), time = gamma(k, random);
    return time > mean ? binomial(k - 1, mean / time, random) : k + poisson(mean - time, random);
  }
  let count = -1;
  for (let product = 1; product > Math.exp(-mean); count++) product *= random();
  return count;
}

function binomial(n, p, random) {
  let count = 0;
  for (let i = 0; i < n; i++) count += random() < p;
  return count;
}

// ---------------------------------------------------------------- families
// Element i of an event of s elements, r being what the network gave: log p(x), the mean, a draw. c is the family's
// constant (trials, degrees of freedom, a scale), f what is learned without the network, one number or one for each.

const at = (f, i) => f[f.length > 1 ? i : 0];
const locationScale = (logStandard, draw, mean = (loc) => loc) => ({ scale }) => ({
  log: (x, r, i, s) => { const sd = scale(r, i, s); return logStandard((x - r[i]) / sd) - Math.log(sd); },
  mean: (r, i, s) => mean(r[i], scale(r, i, s)),
  draw: (r, i, s, random) => r[i] + scale(r, i, s) * draw(random),
});
const predicted = { scale: (r, i, s) => positive(r[s + i]) };
const NORMAL = locationScale((t) => -0.5 * t * t - HALF_LOG_TWO_PI, normal);
const logChoose = (n, x) => logGamma(n + 1) - logGamma(x + 1) - logGamma(n - x + 1);
const clampedExp = (t) => Math.exp(Math.min(Math.max(t, -15), 30));
const logBeta = (a, b) => logGamma(a) + logGamma(b) - logGamma(a + b);

function trials(n) {
  const base = Array.from({ length: n + 1 }, (_, x) => logChoose(n, x));
  return {
    log: (x, r, i) => x * r[i] - n * softplus(r[i]) + base[x],
    mean: (r, i) => n * sigmoid(r[i]),
    draw: (r, i, s, random) => binomial(n, sigmoid(r[i]), random),
  };
}

/** A family whose element has a distribution made anew: `of(r, i, s)` gives { log, mean, draw }. */
const made = (of) => ({
  log: (x, r, i, s) => of(r, i, s).log(x),
  mean: (r, i, s) => of(r, i, s).mean,
  draw: (r, i, s, random) => of(r, i, s).draw(random),
});

const FAMILIES = {
  bernoulli: () => trials(1),
  binomial: (c) => trials(c),
  poisson: () => ({
    log: (x, r, i) => x * r[i] - Math.exp(r[i]) - logGamma(x + 1),
    mean: (r, i) => Math.exp(r[i]),
    draw: (r, i, s, random) => poisson(Math.exp(r[i]), random),
  }),
  categorical: (c) => made((r, i, s) => {
    const logits = Array.from({ length: c }, (_, k) => r[k * s + i]), all = logSumExp(logits);
    const mass = logits.map((t) => Math.exp(t - all));
    return {
      log: (x) => logits[x] - all,
      mean: mass.reduce((sum, p, k) => sum + k * p, 0),
      draw: (random) => { let u = random(); const k = mass.findIndex((p) => (u -= p) < 0); return k < 0 ? c - 1 : k; },
    };
  }),
  continuous_bernoulli: () => made((r, i) => {
    const t = r[i], t2 = t * t, near = Math.abs(t) < 0.25;
    const series = t2 * (1 / 24 - t2 * (1 / 2880 - t2 * (1 / 181440 - t2 / 9676800)));
    const normaliser = near ? t / 2 + series : Math.max(t, 0) + Math.log(-Math.expm1(-Math.abs(t)) / Math.abs(t));
    return {
      log: (x) => x * t - normaliser,
      mean: near ? 0.5 + t * (1 / 12 - t2 * (1 / 720 - t2 / 30240)) : 0.5 + 0.5 / Math.tanh(t / 2) - 1 / t,
      draw: (random) => { const u = random(); return Math.abs(t) < 1e-6 ? u : Math.log1p(u * Math.expm1(t)) / t; },
    };
  }),
  normal: () => NORMAL(predicted),
  "normal of a scale": (c) => NORMAL({ scale: () => c }),
  "normal of learned scales": (c, f) => NORMAL({ scale: (r, i) => at(f, i) }),
  laplace: () => locationScale((t) => -Math.abs(t) - Math.LN2, (random) => {
    const u = random() - 0.5;
    return -Math.sign(u) * Math.log1p(-2 * Math.abs(u));
  })(predicted),
  logistic: () => locationScale((t) => -t - 2 * softplus(-t), (random) => {
    const u = Math.max(random(), 1e-12);
    return Math.log(u) - Math.log1p(-u);
  })(predicted),
  student_t: (c) => {
    const constant = logGamma((c + 1) / 2) - logGamma(c / 2) - 0.5 * Math.log(c * Math.PI);
    const draw = (random) => normal(random) / Math.sqrt((2 * gamma(c / 2, random)) / c);
    return locationScale((t) => constant - ((c + 1) / 2) * Math.log1p((t * t) / c), draw)(predicted);
  },
  log_normal: () => made((r, i, s) => {
    const sd = positive(r[s + i]);
    return {
      log: (x) => -0.5 * ((Math.log(x) - r[i]) / sd) ** 2 - Math.log(sd) - HALF_LOG_TWO_PI - Math.log(x),
      mean: Math.exp(r[i] + (sd * sd) / 2),
      draw: (random) => Math.exp(r[i] + sd * normal(random)),
    };
  }),
  gamma: () => made((r, i, s) => {
    const a = positive(r[s + i]), logRate = Math.log(a) - r[i];
    return {
      log: (x) => a * logRate + (a - 1) * Math.log(x) - x * Math.exp(logRate) - logGamma(a),
      mean: Math.exp(r[i]),
      draw: (random) => gamma(a, random) / Math.exp(logRate),
    };
  }),
  beta: () => made((r, i, s) => {
    const whole = 2 * positive(r[s + i]);
    const [a, b] = [r[i], -r[i]].map((t) => Math.max(whole * sigmoid(t), 1e-4));
    return {
      log: (x) => (a - 1) * Math.log(x) + (b - 1) * Math.log1p(-x) - logBeta(a, b),
      mean: a / (a + b),
      draw: (random) => { const g = gamma(a, random); return g / (g + gamma(b, random)); },
    };
  }),
  negative_binomial: (c, f) => made((r, i) => {
    const m = Math.exp(r[i]), d = clampedExp(at(f, i));
    return {
      log: (x) => logGamma(d + x) - logGamma(d) - logGamma(x + 1) + x * Math.log(m / (d + m)) - d * Math.log1p(m / d),
      mean: m,
      draw: (random) => poisson((gamma(d, random) * m) / d, random),
    };
  }),
  beta_binomial: (c) => made((r, i, s) => {
    const whole = clampedExp(r[s + i]), [a, b] = [sigmoid(r[i]) * whole, sigmoid(-r[i]) * whole];
    return {
      log: (x) => logChoose(c, x) + logBeta(a + x, b + c - x) - logBeta(a, b),
      mean: (c * a) / (a + b),
      draw: (random) => { const g = gamma(a, random); return binomial(c, g / (g + gamma(b, random)), random); },
    };
  }),
};

/** p(x | r) of a whole event. */
function family({ name, constant, free, size }) {
  const each = FAMILIES[name](constant, free);
  const every = (read) => Float64Array.from({ length: size }, (_, i) => read(i));
  return {
    log: (x, r) => { let total = 0; for (let i = 0; i < size; i++) total += each.log(x[i], r, i, size); return total; },
    mean: (r) => every((i) => each.mean(r, i, size)),
    draw: (r, random) => every((i) => each.draw(r, i, size, random)),
  };
}

// ---------------------------------------------------------------- densities of z

/** A mixture of C normals, each coordinate by itself: locs and scales (C, D), logits (C). */
function mixture({ locs, scales, logits }) {
  const [number, dims] = locs.shape, all = logSumExp(logits), weights = Array.from(logits, (t) => t - all);
  return {
    log: (z) => logSumExp(weights.map((weight, c) => {
      let total = weight;
      for (let d = 0; d < dims; d++) {
        const scale = scales[c * dims + d], t = (z[d] - locs[c * dims + d]) / scale;
        total -= 0.5 * t * t + Math.log(scale) + HALF_LOG_TWO_PI;
      }
      return total;
    })),
    draw: (random) => {
      let u = random(), c = 0;
      while (c < number - 1 && (u -= Math.exp(weights[c])) >= 0) c++;
      return Array.from({ length: dims }, (_, d) => locs[c * dims + d] + scales[c * dims + d] * normal(random));
    },
  };
}

/** A log density known at the nodes of a grid over two latents, bilinear between them, or not at all; and its draws. */
function tabled({ values, box, draws }) {
  return {
    log: (z) => (values ? bilinear(values, values.shape[0], 1, box, z[0], z[1])[0] : NaN),
    draw: (random) => {
      const [number, dims] = draws.shape, k = Math.floor(random() * number);
      return [...draws.subarray(dims * k, dims * (k + 1))];
    },
  };
}

/** What a table (G, G, size), rows by the second coordinate, says between its nodes; its edge beyond them. */
function bilinear(table, nodes, size, [left, right, bottom, top], x, y) {
  const place = (t, low, high) => Math.min(Math.max(((t - low) / (high - low)) * (nodes - 1), 0), nodes - 1);
  const [p, q] = [place(x, left, right), place(y, bottom, top)];
  const [i, j] = [p, q].map((t) => Math.min(Math.floor(t), nodes - 2));
  const [a, b] = [p - i, q - j], corner = (row, column) => (row * nodes + column) * size;
  const [sw, se, nw, ne] = [corner(j, i), corner(j, i + 1), corner(j + 1, i), corner(j + 1, i + 1)];
  return Float64Array.from({ length: size }, (_, k) =>
    (1 - b) * ((1 - a) * table[sw + k] + a * table[se + k]) + b * ((1 - a) * table[nw + k] + a * table[ne + k]));
}

/** A normal with a scale for each coordinate. */
function diagonal(mean, scale) {
  const one = mixture({
    locs: Object.assign(mean, { shape: [1, mean.length] }), scales: scale, logits: [0],
  });
  return { ...one, mean, scale };
}

// ---------------------------------------------------------------- a posterior in a plane

const MOST_BELOW = 14; // nats: nodes so far below the highest are negligible

/** Log p(x, z) at G x G nodes of a box; the trapezoid rule, whose error is what half the nodes would change. */
function gridded(logJoint, box, nodes) {
  const [left, right, bottom, top] = box, log = new Float64Array(nodes * nodes);
  const [h, v] = [(right - left) / (nodes - 1), (top - bottom) / (nodes - 1)];
  return {
    box, nodes, log, cell: Math.log(h * v), next: 0,
    place: (k) => [left + h * (k % nodes), bottom + v * Math.floor(k / nodes)],
    step() { log[this.next] = logJoint(...this.place(this.next)); return ++this.next < log.length; },
    logEvidence() { return logSumExp(log) + this.cell; },
    error() {
      const half = log.filter((_, k) => (k % nodes) % 2 === 0 && Math.floor(k / nodes) % 2 === 0);
      return Math.abs(logSumExp(half) + this.cell + Math.log(4) - this.logEvidence());
    },
  };
}

/** The box about all that is not negligible, and a cell more; wider by half where that reaches its edge. */
function fitted(grid, scouts) {
  const most = Math.max(...grid.log, ...scouts.map((s) => s.log));
  const points = scouts.filter((s) => s.log > most - MOST_BELOW).map((s) => s.u);
  grid.log.forEach((value, k) => { if (value > most - MOST_BELOW) points.push(grid.place(k)); });
  return [0, 1].flatMap((axis) => {
    const [low, high] = grid.box.slice(2 * axis, 2 * axis + 2);
    const half = (high - low) / 2, cell = (2 * half) / (grid.nodes - 1);
    const values = points.map((p) => p[axis]), [least, largest] = [Math.min(...values), Math.max(...values)];
    return [
      least <= low + 1e-9 * half ? Math.min(least, low - half) : least - cell,
      largest >= high - 1e-9 * half ? Math.max(largest, high + half) : largest + cell,
    ];
  });
}

const settled = (now, before) => [0, 2].every((k) => {
  const ratio = (now[k + 1] - now[k]) / (before[k + 1] - before[k]);
  return ratio > 0.7 && now[k] >= before[k] - 1e-9 && now[k + 1] <= before[k + 1] + 1e-9;
});

/** The height above which a region holds each fraction of a grid's mass. */
function levels(log, fractions) {
  const all = logSumExp(log), sorted = Float64Array.from(log).sort().reverse();
  let mass = 0, k = 0;
  return fractions.map((fraction) => {
    while (k < sorted.length - 1 && (mass += Math.exp(sorted[k] - all)) < fraction) k++;
    return sorted[k];
  });
}

/** Line segments [x, y, x', y'] along which a table on a grid has a value (marching squares). */
function contour(values, nodes, place, level) {
  const segments = [];
  for (let j = 0; j + 1 < nodes; j++)
    for (let i = 0; i + 1 < nodes; i++) {
      const ring = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]].map(([a, b]) => b * nodes + a), cuts = [];
      ring.forEach((k, n) => {
        const other = ring[(n + 1) % 4], [low, high] = [values[k] - level, values[other] - level];
        if (low < 0 === high < 0) return;
        const t = Number.isFinite(low) && Number.isFinite(high) ? low / (low - high) : 0.5;
        const [p, q] = [place(k), place(other)];
        cuts.push(p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]));
      });
      for (let c = 0; c + 3 < cuts.length; c += 4) segments.push(cuts.slice(c, c + 4));
    }
  return segments;
}
