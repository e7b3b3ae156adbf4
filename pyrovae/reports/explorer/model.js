// The pair of the page: z in the plane and out of it, decoding, q(z|x), the posterior and the account of a datum.
"use strict";

const scene = unpackedAll(JSON.parse(document.getElementById("scene").textContent));
const { plane, data } = scene;
const BOX = plane.box, DIMS = plane.axes.shape[0], SIZE = data.x.shape[1];
const IS_LIVE = scene.decoder !== null, HAS_ENCODER = scene.encoder !== null;
const QUADRATURE = Array.from({ length: 25 }, (_, i) => (i - 12) / 2); // standard deviations of q from its mean
const DRAWS = 400;

const pair = {
  decode: IS_LIVE ? network(scene.decoder.layers) : null,
  likelihood: IS_LIVE ? family(scene.decoder.family) : null,
  encode: HAS_ENCODER ? network(scene.encoder.layers) : null,
  prior: scene.density.kind === "mixture" ? mixture(scene.density) : tabled(scene.density),
};

// ---------------------------------------------------------------- z = o + u A, and back

function latents(u) {
  const z = Array.from(plane.origin);
  for (let k = 0; k < u.length; k++) for (let d = 0; d < DIMS; d++) z[d] += u[k] * plane.axes[k * DIMS + d];
  return z;
}

function coordinates(z) {
  return Array.from({ length: DIMS }, (_, k) => {
    let total = 0;
    for (let d = 0; d < DIMS; d++) total += (z[d] - plane.origin[d]) * plane.axes[k * DIMS + d];
    return total;
  });
}

// ---------------------------------------------------------------- decoding

/** The mean of p(x|z) at coordinates u: computed, or interpolated between the means that the page holds. */
function decodedMean(u) {
  if (IS_LIVE) return pair.likelihood.mean(pair.decode(latents(u)));
  const [low, high] = data.limits, { size, values } = scene.means;
  return bilinear(values, size, SIZE, BOX, u[0], u[1]).map((v) => low + ((high - low) * v) / 255);
}

const decodedDraw = (u, random) => pair.likelihood.draw(pair.decode(latents(u)), random);
const logLikelihood = (x, z) => pair.likelihood.log(x, pair.decode(z));

// ---------------------------------------------------------------- q(z|x)

/** Of data in the page, by their number; or of any x, where the encoder is there. */
function guideOf(x, number) {
  if (HAS_ENCODER) {
    const raw = pair.encode(x);
    return normalGuide(raw.slice(0, DIMS), raw.slice(DIMS).map(positive));
  }
  const row = (array, size = DIMS) => Float64Array.from(array.subarray(number * size, (number + 1) * size));
  const { mean, scale, draws, covariance } = scene.stored;
  if (scale) return normalGuide(row(mean), row(scale));
  const draw = (k) => row(draws, draws.shape[1] * DIMS).subarray(k * DIMS, (k + 1) * DIMS);
  return {
    mean: row(mean), code: coordinates(row(mean)), covariance: row(covariance, 3), log: null,
    draw: (random) => draw(Math.floor(random() * draws.shape[1])),
  };
}

/** A normal with a scale for each coordinate; of its marginal in the plane, the centre and the covariance. */
function normalGuide(mean, scale) {
  const covariance = products(scale.map((s) => s * s));
  return { ...diagonal(mean, scale), code: coordinates(mean), covariance };
}

/** The products of the plane's two axes, each latent weighed: (1,1), (1,2), (2,2). */
const products = (weights) => [[0, 0], [0, 1], [1, 1]].map(([i, j]) =>
  weights.reduce((sum, w, d) => sum + w * plane.axes[i * DIMS + d] * plane.axes[j * DIMS + d], 0));

/** q as it is in the plane through u: given the further coordinates, where there are more than two. */
function slice(q, u) {
  if (DIMS === 2 || !q.scale) return q;
  const precision = q.scale.map((s) => 1 / (s * s)), [aa, ab, bb] = products(precision), all = aa * bb - ab * ab;
  const away = latents([...q.code.slice(0, 2), ...u.slice(2)]).map((t, d) => (t - q.mean[d]) * precision[d]);
  const [a, b] = [0, 1].map((i) => away.reduce((sum, t, d) => sum + t * plane.axes[i * DIMS + d], 0));
  const code = [q.code[0] - (bb * a - ab * b) / all, q.code[1] - (aa * b - ab * a) / all];
  return { code, covariance: [bb / all, -ab / all, aa / all] };
}

// ---------------------------------------------------------------- the account, in steps that leave the page alive

/** ELBO and its parts: by quadrature over q in two dimensions, else by draws of q, with log p(x) by their weights. */
function* bounds(x, q) {
  const random = stream(1), terms = [];
  const add = (weight, z) => terms.push([weight, logLikelihood(x, z), q.log(z) - pair.prior.log(z)]);
  if (DIMS === 2) {
    for (const s of QUADRATURE)
      for (const t of QUADRATURE) {
        add(Math.exp(-0.5 * (s * s + t * t)) / (8 * Math.PI), [q.mean[0] + s * q.scale[0], q.mean[1] + t * q.scale[1]]);
        yield;
      }
  } else for (let k = 0; k < DRAWS; k++) { add(1 / DRAWS, q.draw(random)); yield; }
  const mean = (read) => terms.reduce((sum, term) => sum + term[0] * read(term), 0);
  const [reconstruction, klPrior] = [mean((t) => t[1]), mean((t) => t[2])], elbo = reconstruction - klPrior;
  if (DIMS === 2) return { reconstruction, klPrior, elbo };
  const logWeights = terms.map((t) => t[1] - t[2]), evidence = logSumExp(logWeights) - Math.log(DRAWS);
  const error = (values) => {
    const middle = values.reduce((a, b) => a + b) / DRAWS;
    return Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (DRAWS - 1) / DRAWS);
  };
  const errors = {
    reconstruction: error(terms.map((t) => t[1])), klPrior: error(terms.map((t) => t[2])), elbo: error(logWeights),
    evidence: error(logWeights.map((w) => Math.exp(w - evidence))),
  };
  return { reconstruction, klPrior, elbo, evidence, errors };
}

/** p(x, z) on a grid in the plane through coordinates u, its box narrowed about what is not negligible. */
function* posterior(x, q, u) {
  const random = stream(2), rest = u.slice(2), through = (a, b) => latents([a, b, ...rest]);
  const logJoint = (a, b) => { const z = through(a, b); return logLikelihood(x, z) + pair.prior.log(z); };
  const began = performance.now(), scouts = [];
  for (let k = 0; k < 30; k++) {
    const place = DIMS === 2 ? coordinates(q.draw(random)) : around(slice(q, u), random);
    scouts.push({ u: place, log: logJoint(...place) });
  }
  const each = (performance.now() - began) / scouts.length; // ms
  const [first, later, last] = each < 0.25 ? [41, 25, 61] : [25, 17, each < 1.5 ? 41 : 25]; // nodes along an axis
  let [box, before, grid] = [BOX, null, null];
  for (let round = 0; round < 9 && !(before && settled(box, before)); round++) {
    grid = gridded(logJoint, box, round ? later : first);
    while (grid.step()) yield;
    [before, box] = [box, fitted(grid, scouts)];
  }
  grid = gridded(logJoint, box, last);
  while (grid.step()) yield;
  return grid;
}

/** A point of the plane by q as it is there, but for its correlation. */
function around(q, random) {
  const { code: [a, b], covariance: [aa, , bb] } = q;
  return [a + Math.sqrt(aa) * normal(random), b + Math.sqrt(bb) * normal(random)];
}

/** The posterior that the page holds of a datum. */
function storedPosterior(number) {
  const { log, boxes } = scene.posteriors, nodes = log.shape[1], all = nodes * nodes;
  const grid = gridded(null, Array.from(boxes.slice(4 * number, 4 * number + 4)), nodes);
  grid.log.set(log.subarray(number * all, (number + 1) * all));
  return grid;
}
