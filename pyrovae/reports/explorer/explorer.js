// What pointer, keys and buttons do: z moves, a datum is chosen and accounted for.
"use strict";

const labelOf = (number) => (scene.labels ? `class ${scene.classes[scene.labels[number]]}` : `datum ${number}`);
const random = stream(Date.now());
const state = { u: Array(DIMS).fill(0), datum: null, previous: null, grid: null, path: null, walking: false };

// ---------------------------------------------------------------- where z is

function moveTo(u, { announce = false } = {}) {
  state.u = u.map((t, k) => (k < 2 ? Math.min(Math.max(t, BOX[2 * k]), BOX[2 * k + 1]) : t));
  show(el("mean"), decodedMean(state.u), state.datum ? state.datum.x : null);
  if (el("with-draw").checked) show(el("draw"), decodedDraw(state.u, random));
  const near = nearest(state.u), numbers = state.u.slice(0, 2).map((t) => said(t)).join(", ");
  const where = `${DIMS > 2 ? "in the plane " : "z = "}(${numbers})`;
  el("position").textContent = `${where}; nearest code: ${labelOf(near)}`;
  el("mean").setAttribute("aria-label", `Mean of p(x|z) at ${where}, near ${labelOf(near)}`);
  if (announce) el("status").textContent = el("position").textContent;
  drawPlane();
  drawPosterior();
}

/** The number of the datum whose code is nearest in the plane, among the first so many. */
function nearest(u, among = scene.codes.shape[0]) {
  let best = 0, least = Infinity;
  for (let n = 0; n < among; n++) {
    const away = (scene.codes[n * DIMS] - u[0]) ** 2 + (scene.codes[n * DIMS + 1] - u[1]) ** 2;
    if (away < least) [best, least] = [n, away];
  }
  return best;
}

function showSliders() {
  document.querySelectorAll("#sliders input").forEach((input) => {
    input.value = state.u[input.dataset.k];
    input.previousElementSibling.textContent = said(state.u[input.dataset.k]);
  });
}

// ---------------------------------------------------------------- one datum

let job = 0;

/** Runs a generator in slices of 10 ms; a later job of the page stops it. */
async function inSlices(steps, mine) {
  for (;;) {
    for (const until = performance.now() + 10; performance.now() < until; ) {
      const { done, value } = steps.next();
      if (done) return value;
    }
    await new Promise((resume) => setTimeout(resume));
    if (mine !== job) return null;
  }
}

function choose(number) {
  if (state.datum && state.datum.number !== number) state.previous = state.datum;
  const x = Float64Array.from(data.x.subarray(number * SIZE, (number + 1) * SIZE));
  document.querySelectorAll("#thumbnails canvas").forEach((one) => {
    const is = Number(one.dataset.number) === number;
    one.setAttribute("aria-selected", is);
    if (is) el("thumbnails").scrollLeft = one.offsetLeft - el("thumbnails").clientWidth / 2;
  });
  setDatum(x, number, false);
}

function setDatum(x, number, isOwn) {
  const q = guideOf(x, number);
  state.datum = { x, number, isOwn, q };
  state.grid = null;
  state.path = null;
  show(el("datum"), x);
  const name = isOwn ? "your own" : labelOf(number);
  el("datum").setAttribute("aria-label", `The datum, ${name}`);
  el("datum-caption").textContent = `x: ${endName(state.datum)}`;
  show(el("reconstruction"), reconstructed(q, number), x);
  el("reconstruction").setAttribute("aria-label", `Its reconstruction, ${name}`);
  moveTo(coordinates(q.mean));
  showSliders();
  const ends = state.previous && `From ${endName(state.previous)} to ${endName(state.datum)}, the last two chosen.`;
  el("ends").textContent = ends || "Choose a second datum.";
  for (const id of ["linear", "spherical"]) el(id).disabled = !state.previous;
  account();
}

/** The mean of p(x|z) at the mean of q, or what the page holds in its place. */
function reconstructed(q, number) {
  if (!data.reconstructions) return decodedMean(coordinates(q.mean));
  const [low, high] = data.limits, bytes = data.reconstructions.subarray(number * SIZE, (number + 1) * SIZE);
  return Array.from(bytes, (v) => low + ((high - low) * v) / 255);
}

function endName({ isOwn, number }) {
  return isOwn ? "your own" : `datum ${number}${scene.labels ? ` (${labelOf(number)})` : ""}`;
}

async function account() {
  const mine = ++job, { datum } = state;
  document.body.dataset.account = "begun";
  tell(datum, null, null);
  let grid = null, found = null;
  if (IS_LIVE) {
    if (Number.isFinite(pair.prior.log(Array.from(datum.q.mean)))) {
      grid = await inSlices(posterior(datum.x, datum.q, state.u), mine);
      if (mine !== job) return;
      state.grid = grid;
      drawPlane();
      drawPosterior();
    }
    if (datum.q.log && (grid || DIMS > 2)) found = await inSlices(bounds(datum.x, datum.q), mine);
  } else if (scene.posteriors) state.grid = grid = storedPosterior(datum.number);
  if (mine !== job) return;
  if (!found && scene.stored) found = storedBounds(datum.number);
  tell(datum, grid, found);
  drawPlane();
  drawPosterior();
  document.body.dataset.account = "done";
}

function storedBounds(number) {
  const of = (name) => scene.stored[name][number];
  return { elbo: of("elbo"), evidence: of("evidence"), errors: { elbo: of("elbo_se"), evidence: of("evidence_se") } };
}

const ROWS = [
  ["log p(x)", "log_evidence", (f) => f.evidence, "total"],
  ["= ELBO", "elbo", (f) => f.elbo, "total"],
  ["\u2003= E log p(x|z)", "reconstruction", (f) => f.reconstruction],
  ["\u2003− KL(q ‖ prior)", "kl_prior", (f) => f.klPrior],
  ["+ KL(q ‖ posterior)", "kl_posterior", (f) => f.evidence - f.elbo, "total"],
];
const ERRORS = { log_evidence: "evidence", elbo: "elbo", reconstruction: "reconstruction", kl_prior: "klPrior" };

/** Writes the account of a datum as far as it is known. */
function tell(datum, grid, found) {
  const isExact = DIMS === 2 && grid, { report } = scene;
  const has = report && !datum.isOwn && datum.number < report.elbo.length;
  const f = { ...found, ...(isExact ? { evidence: grid.logEvidence() } : {}) };
  state.account = f;
  const withError = (value, se) =>
    said(value, 3) + (Number.isFinite(value) && Number.isFinite(se) ? `<small>± ${se.toFixed(3)}</small>` : "");
  el("account").tBodies[0].innerHTML = ROWS.map(([name, column, read, kind = ""]) => {
    const se = isExact && column === "log_evidence" ? NaN : f.errors && f.errors[ERRORS[column]];
    const ours = withError(read(f) ?? NaN, se);
    const of = (name) => report[name]?.[datum.number] ?? NaN;
    const theirs = has ? withError(of(column), of(`mc_se_${column}`)) : "–";
    return `<tr class="${kind}"><th scope="row">${name}</th><td>${ours}</td>${report ? `<td>${theirs}</td>` : ""}</tr>`;
  }).join("");
  el("how").textContent = howFound(grid, found);
  el("posterior-caption").innerHTML = !grid ? "q(z|x): regions that hold 50 and 90 %" :
    '<b style="color:var(--blue)">p(z|x)</b>, the true posterior, and <b style="color:var(--red)">q(z|x)</b>, ' +
    `the encoder’s: regions that hold 50 and 90 %${DIMS > 2 ? ", further latents being as their sliders stand" : ""}.`;
  el("posterior").setAttribute("role", "img");
  el("posterior").setAttribute("aria-label", el("posterior-caption").textContent);
}

function howFound(grid, found) {
  const parts = [];
  if (grid && DIMS === 2) {
    const error = grid.error();
    const change = error < 1e-3 ? error.toExponential(0).replace("-", "−") : error.toFixed(3);
    parts.push(`log p(x) by ${grid.nodes} × ${grid.nodes} nodes; half of them along each axis change it by ${change}.`);
  }
  const low = DIMS > 2 && Number.isFinite(found?.evidence) ? "; log p(x) by their weights is too low on average" : "";
  if (found && found.errors) parts.push(`± one standard error over draws of q${low}.`);
  if (found && !found.errors) parts.push("ELBO and KL by quadrature over q.");
  if (scene.report) parts.push(`Report: ${scene.report.found_by}.`, missed(grid));
  return parts.join(" ") || (IS_LIVE ? "Counting …" : "");
}

/** Says where a report lies below the grid by more than their errors: draws see only where they fall. */
function missed(grid) {
  const { report } = scene, { number, isOwn } = state.datum;
  if (DIMS > 2 || !grid || isOwn || number >= report.elbo.length) return "";
  const below = grid.logEvidence() - report.log_evidence[number], se = report.mc_se_log_evidence[number] || 0;
  const isBelow = below > 5 * se + grid.error() + 0.01;
  return isBelow ? `It is ${said(below)} nats below the grid, more than its error: its draws missed this posterior.` : "";
}

// ---------------------------------------------------------------- paths

const mix = (a, b, t) => a.map((v, d) => (1 - t) * v + t * b[d]);

/** Between two latents on a great circle about the origin, lengths between theirs (Shoemake 1985). */
function onCircle(a, b, t) {
  const length = (z) => Math.hypot(...z), dot = a.reduce((sum, v, d) => sum + v * b[d], 0) / (length(a) * length(b) || 1);
  const angle = Math.acos(Math.min(Math.max(dot, -1), 1));
  if (angle < 1e-6 || angle > Math.PI - 1e-6) return mix(a, b, t);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((s) => s / Math.sin(angle));
  return a.map((v, d) => p * v + q * b[d]);
}

function interpolate(between, name) {
  stopWalk();
  const ends = [state.previous, state.datum].map((datum) => Array.from(datum.q.mean));
  const steps = Array.from({ length: 41 }, (_, i) => coordinates(between(...ends, i / 40)));
  state.path = steps;
  showStrip(steps.filter((_, i) => i % 5 === 0));
  const label = `Nine means of p(x|z) on a ${name} from ${endName(state.previous)} to ${endName(state.datum)}`;
  el("strip").setAttribute("aria-label", label);
  follow(steps);
}

function showStrip(steps) {
  const strip = el("strip"), one = document.createElement("canvas"), gap = IMAGE ? 1 : 8;
  strip.hidden = false;
  steps.forEach((u, i) => {
    show(one, decodedMean(u));
    if (!i) Object.assign(strip, { width: steps.length * (one.width + gap) - gap, height: one.height });
    strip.getContext("2d").drawImage(one, i * (one.width + gap), 0);
  });
}

let travel = 0;
const isStill = matchMedia("(prefers-reduced-motion: reduce)");

/** Moves z along steps, 25 a second; at once where motion is unwelcome. */
function follow(steps, then = showSliders) {
  const mine = ++travel;
  if (isStill.matches) { moveTo(steps[steps.length - 1]); return then(); }
  let k = 0, last = 0;
  requestAnimationFrame(function step(now) {
    if (mine !== travel) return;
    if (now - last > 40) { last = now; moveTo(steps[k++]); }
    if (k < steps.length) requestAnimationFrame(step); else then();
  });
}

function walkOn() {
  if (!state.walking) return;
  const from = state.u, to = coordinates(pair.prior.draw(random));
  const ease = (t) => t * t * (3 - 2 * t), steps = Array.from({ length: 45 }, (_, i) => mix(from, to, ease(i / 44)));
  showSliders();
  follow(steps, () => (isStill.matches ? setTimeout(walkOn, 2000) : walkOn()));
}

function stopWalk() {
  state.walking = false;
  travel++;
  el("walk").setAttribute("aria-pressed", false);
  el("walk").textContent = "Walk";
}

// ---------------------------------------------------------------- pointer, keys, buttons

function pointed(event, canvas, box) {
  const rect = canvas.getBoundingClientRect(), [left, right, bottom, top] = box;
  const p = (event.clientX - rect.left - canvas.clientLeft) / canvas.clientWidth;
  const q = (event.clientY - rect.top - canvas.clientTop) / canvas.clientHeight;
  return [left + p * (right - left), top - q * (top - bottom)];
}

function follows(canvas, box) {
  const move = (event) => { stopWalk(); moveTo([...pointed(event, canvas, box()), ...state.u.slice(2)]); };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
}

function listen() {
  const canvas = el("plane"), shown = data.x.shape[0];
  follows(canvas, () => BOX);
  follows(el("posterior"), () => state.square);
  canvas.addEventListener("click", (event) => {
    const u = pointed(event, canvas, BOX), number = nearest(u, shown), near = 24 / canvas.clientWidth;
    const away = Math.hypot(scene.codes[number * DIMS] - u[0], scene.codes[number * DIMS + 1] - u[1]);
    if (away < near * (BOX[1] - BOX[0])) choose(number);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = ((BOX[1] - BOX[0]) / 100) * (event.shiftKey ? 6 : 1);
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    if (by) moveTo(state.u.map((t, k) => t + (by[k] || 0)), { announce: true });
    else if (event.key === "Enter") choose(nearest(state.u, shown));
    else return;
    stopWalk();
    event.preventDefault();
  });
  const draws = { "from-prior": () => pair.prior.draw(random), "from-guide": () => state.datum.q.draw(random) };
  for (const [id, draw] of Object.entries(draws))
    el(id).addEventListener("click", () => {
      stopWalk();
      moveTo(coordinates(Array.from(draw())), { announce: true });
      showSliders();
    });
  el("walk").addEventListener("click", () => {
    if (state.walking) return stopWalk();
    state.walking = true;
    state.path = null;
    el("walk").setAttribute("aria-pressed", true);
    el("walk").textContent = "Stop";
    walkOn();
  });
  el("linear").addEventListener("click", () => interpolate(mix, "straight line"));
  el("spherical").addEventListener("click", () => interpolate(onCircle, "great circle"));
  el("with-draw").addEventListener("change", () => moveTo(state.u));
  listenToSliders();
  listenToDrawing();
  new ResizeObserver(() => { ground = null; moveTo(state.u); }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { ground = null; moveTo(state.u); });
}

function listenToSliders() {
  if (DIMS === 2 || !IS_LIVE) return;
  el("further").hidden = false;
  for (let k = 2; k < DIMS; k++) {
    const label = document.createElement("label"), reach = Math.max(3, (BOX[1] - BOX[0]) / 2);
    const range = `type="range" data-k="${k}" min="${-reach}" max="${reach}" step="any"`;
    label.innerHTML = `<span></span><span></span><input ${range}>`;
    label.firstChild.textContent = plane.names[k];
    label.querySelector("input").addEventListener("input", (event) => {
      stopWalk();
      state.u[k] = Number(event.target.value);
      moveTo(state.u);
      showSliders();
      account();
    });
    el("sliders").append(label);
  }
}

/** Pointer on the datum: ink into it, where the encoder can read what comes of that. */
function listenToDrawing() {
  if (!HAS_ENCODER || !IMAGE || IMAGE[0] !== 1) return;
  const canvas = el("datum"), [, height, width] = IMAGE, [low, high] = data.limits;
  const [across, along] = [width, height].map((size) => Math.max(size / 28, 0.6)); // of the pen, in pixels
  const isWhole = data.x.every((v) => v === Math.round(v));
  el("editing").hidden = false;
  canvas.classList.add("drawable");
  const paint = (event) => {
    if (!event.buttons) return;
    const rect = canvas.getBoundingClientRect(), x = state.datum.x.slice();
    const p = ((event.clientX - rect.left) / rect.width) * width - 0.5;
    const q = ((event.clientY - rect.top) / rect.height) * height - 0.5;
    for (let i = 0; i < height; i++)
      for (let j = 0; j < width; j++) {
        const ink = Math.min(Math.max(1.6 - Math.hypot((j - p) / across, (i - q) / along), 0), 1);
        const to = el("erase").checked ? low : high, value = x[i * width + j] + ink * (to - x[i * width + j]);
        x[i * width + j] = isWhole ? Math.round(value) : value;
      }
    setDatum(x, state.datum.number, true);
  };
  canvas.addEventListener("pointerdown", paint);
  canvas.addEventListener("pointermove", paint);
  el("clear").addEventListener("click", () => setDatum(state.datum.x.map(() => low), state.datum.number, true));
  el("undo").addEventListener("click", () => choose(state.datum.number));
}

// ---------------------------------------------------------------- the page

function thumbnails() {
  const list = el("thumbnails"), shown = Math.min(data.x.shape[0], 40);
  for (let n = 0; n < shown; n++) {
    const one = document.createElement("canvas");
    Object.assign(one.dataset, { number: n });
    one.setAttribute("role", "option");
    one.setAttribute("aria-label", `Datum ${n}${scene.labels ? `, ${labelOf(n)}` : ""}`);
    show(one, data.x.subarray(n * SIZE, (n + 1) * SIZE));
    one.addEventListener("click", () => choose(n));
    list.append(one);
  }
  list.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    choose(Math.min(Math.max(state.datum.number + by, 0), shown - 1));
  });
}

function legend() {
  const marks = hasLetters || !scene.classes || scene.classes.length > 30 ? [] : scene.classes.map((name, c) =>
    `<li><b class="swatch" style="background:${classColour(c)}"></b>class ${name}</li>`);
  el("legend").innerHTML = [
    ...marks,
    `<li><b>—</b>p(z): regions that hold 50, 90 (dashed) and 99 % (dotted)</li>`,
    `<li><b style="color:var(--blue)">▒</b>q(z) of all data</li>`,
    `<li><b>●</b>${hasLetters ? "codes, with their class" : "codes of data"}</li>`,
    `<li><b style="color:var(--red)">◌</b>q(z|x) of the chosen datum</li>`,
    ...(DIMS === 2 ? [`<li><b style="color:var(--blue)">◯</b>its posterior p(z|x)</li>`] : []),
  ].join("");
}

function begin() {
  el("title").textContent = scene.title;
  el("axis-x").textContent = `→ ${plane.names[0]}`;
  el("axis-y").textContent = `↑ ${plane.names[1]}`;
  const weights = Object.entries(scene.bytes).map(([name, bytes]) => `${name} ${Math.ceil(bytes / 1000)} kB`).join(", ");
  const size = weights && ` Weights in the page, float32 as base64: ${weights}; they run here, without a server.`;
  el("notes").textContent = [`Data: ${scene.source}.${size}`, ...scene.notes].join(" ");
  el("draw-figure").hidden = !IS_LIVE;
  el("with-draw").checked = IS_LIVE;
  el("report-head").hidden = !scene.report;
  legend();
  thumbnails();
  choose(0);
  listen();
}

begin();
