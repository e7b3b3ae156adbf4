"""Every measurement as a function of a stranger and a seed, which gives numbers beside what they must be.

Sizes are small (some hundreds of particles, few chains), as an error counts in units of the standard error stated.
"""

import copy
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from strangers.stranger import Refusal, Stranger
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence.estimators import is_skewed, is_skewed_for_few, mean_se_of_few, pareto_k_threshold, skewness

STANDARD_ERRORS = 4  # of a mean over data: one comparison in 16,000 fails by chance, were errors normal
OF_ONE_DATUM = 7  # standard errors: their tails are heavier, and there are more of them
LEVEL = 0.999  # of calibration: an exact guide fails one time in a thousand
K = 400
DRAWS = 100


class Found(NamedTuple):
    """A number, its stated standard error and what it must be; with ``bound`` 1 at least that, with -1 at most.

    ``doubted`` is whether the record itself says of this number that its error may be too small, by its own rules.
    """

    what: str
    value: float
    se: float
    truth: float
    bound: int = 0
    errors: float = STANDARD_ERRORS
    doubted: bool = False

    @property
    def allowed(self) -> float:
        """Standard errors, and what rounding to float32 may do."""
        rounding = 1e-5 + 2e-6 * abs(self.truth) if math.isfinite(self.truth) else 0.0
        return self.errors * (0.0 if math.isnan(self.se) else self.se) + rounding

    @property
    def wrong(self) -> bool:
        if not math.isfinite(self.truth):
            return self.value != self.truth
        off = (self.value - self.truth) * (self.bound or 1)
        return not ((off >= 0 if self.bound else False) or abs(off) <= self.allowed)

    @property
    def excused(self) -> bool:
        """Whether the record doubts it, and its error is too small by no more than a factor of three."""
        infinite = not (math.isfinite(self.truth) and math.isfinite(self.value))
        return self.doubted and (infinite or abs(self.value - self.truth) <= 3 * self.allowed)

    @property
    def z(self) -> float:
        """How many standard errors it is off, beyond rounding; 0 if within rounding."""
        if not self.wrong and (not math.isfinite(self.truth) or self.bound * (self.value - self.truth) > 0):
            return 0.0
        off = max(0.0, abs(self.value - self.truth) - 1e-5 - 2e-6 * abs(self.truth))
        return off / self.se if self.se > 0 else (0.0 if off == 0 else math.inf)

    def __str__(self) -> str:
        relation = {0: "must be", 1: "must be at least", -1: "must be at most"}[self.bound]
        return f"{self.what} is {self.value:.6g} (se {self.se:.2g}), {relation} {self.truth:.6g}"


def compare(
    what: str,
    value: Tensor,
    se: Tensor | None,
    truth: Tensor,
    *,
    of_one_datum: float = OF_ONE_DATUM,
    doubt: Tensor | None = None,
) -> list[Found]:
    """A mean over data, and the datum that is farthest off; ``doubt`` is whether the record doubts each, (N,)."""
    value, truth = value.detach().double().flatten(), truth.detach().double().flatten()
    if value.shape != truth.shape:
        return [Found(f"number of values of {what}", len(value), 0.0, len(truth))]
    se = torch.zeros_like(value) if se is None else se.detach().double().flatten().nan_to_num(0.0, posinf=math.inf)
    doubt = torch.zeros(len(value), dtype=torch.bool) if doubt is None else doubt
    many = bool(doubt.double().mean() > 0.05)  # what the summaries say of means
    of_mean = float(value.mean()), float(se.square().sum().sqrt() / len(se)), float(truth.mean())
    mean = Found(f"mean {what}", *of_mean, doubted=many)
    found = [
        Found(f"{what}[{n}]", *map(float, row), errors=of_one_datum, doubted=bool(doubted))
        for n, (*row, doubted) in enumerate(zip(value, se, truth, doubt, strict=True))
    ]
    worst = [one for one in found if one.wrong][:1]
    return [mean, *(worst or found[:1])]


def evaluated(s: Stranger, seed: int, *, num_particles: int = K, **settings) -> list[Found]:
    settings = {"method": "importance", "num_particles": num_particles, **settings}
    r = pv.evaluate(s.model, s.guide, s.data, seed=seed, plate=s.plate, progress=False, **settings)
    skewed = {name: is_skewed(r.columns[f"skewness_{name}"], num_particles) for name in ("log_evidence", "elbo")}
    doubt = skewed["log_evidence"] | r.unreliable
    found = compare("log p(x)", r.log_evidence, r.mc_se_log_evidence, s.truth, doubt=doubt)
    if s.elbo is not None:
        found += compare("ELBO", r.elbo, r.mc_se_elbo, s.elbo, doubt=skewed["elbo"] | (r.beyond is not None))
    finite = r.elbo.isfinite()
    found += (
        compare("ELBO by its parts", (r.reconstruction - r.kl_prior)[finite], None, r.elbo[finite])
        if finite.any()
        else []
    )
    closed = ~r.kl_prior_analytic.isnan()
    if closed.any() and bool(r.kl_prior_analytic[closed].isfinite().all()):
        found += compare("KL in closed form", r.kl_prior[closed], r.mc_se_kl_prior[closed], r.kl_prior_analytic[closed])
    if s.exact is not None:
        exact = (r.pareto_k == -math.inf).double()
        found += compare("guide is exact", exact, None, torch.full_like(exact, float(s.exact)))
    return found


def evaluate(s: Stranger, seed: int) -> list[Found]:
    return evaluated(s, seed, compile=False)


def repaired(s: Stranger, seed: int) -> list[Found]:
    """From better proposals, where a pilot shows that the guide is not good enough; too few passes to anneal."""
    budget = {"budget": 30_000}
    r = pv.evaluate(s.model, s.guide, s.data, num_particles=K, seed=seed, plate=s.plate, progress=False, **budget)
    counts = ~r.unreliable | (r.columns["route"] == 0)
    doubt = is_skewed(r.skewness_log_evidence, K)[counts]
    found = compare("log p(x)", r.log_evidence[counts], r.mc_se_log_evidence[counts], s.truth[counts], doubt=doubt)
    return found if counts.any() else []


def compiled(s: Stranger, seed: int) -> list[Found]:
    return evaluated(s, seed, compile=True)


def blocks(s: Stranger, seed: int) -> list[Found]:
    """The data in two halves, the particles in blocks."""
    return evaluated(s, seed, batch_size=len(s.data[0]) // 2, particle_batch=K // 4, compile=False)


def convergence(s: Stranger, seed: int) -> list[Found]:
    r = pv.convergence(s.model, s.guide, s.data, num_particles=K, seed=seed, plate=s.plate, progress=False)
    doubt = is_skewed(r.skewness, K) | ~(r.pareto_k <= pareto_k_threshold(K))
    return compare("log p(x) of all particles", r.log_evidence[-1], r.mc_se[-1], s.truth, doubt=doubt)


def annealed(s: Stranger, seed: int) -> list[Found]:
    r = pv.annealed_evidence(
        s.model,
        s.guide,
        s.data,
        num_temperatures=8,
        num_chains=12,
        num_leapfrog=2,
        seed=seed,
        plate=s.plate,
        progress=False,
    )
    doubt = is_skewed_for_few(r.skewness_log_evidence, 12) | ~(r.ess >= 3)
    # The error of one datum is from 12 chains, and so is itself uncertain.
    found = r.log_evidence, r.mc_se_log_evidence, s.truth
    return compare("annealed log p(x)", *found, of_one_datum=12, doubt=doubt)


def bidirectional(s: Stranger, seed: int) -> list[Found]:
    """Bounds must hold the exact log p(x) of the simulated data between them, on average."""
    r = pv.bidirectional(
        s.model,
        s.guide,
        s.data,
        num_data=16,
        num_temperatures=6,
        num_chains=6,
        num_leapfrog=2,
        num_particles=50,
        seed=seed,
        plate=s.plate,
        progress=False,
    )
    found = [_over_data("upper - lower bound", r.width, bound=1)]
    if "simulated" not in s.skipped and s.log_evidence is not None:
        truth = s.log_evidence(*r.data).double()
        found += [_over_data("upper bound - log p(x)", r.upper - truth, bound=1)]
        found += [_over_data("lower bound - log p(x)", r.lower - truth, bound=-1)]
        found += [_over_data("importance sampling - log p(x)", r.importance - truth, bound=-1)]
    return found


def _over_data(what: str, value: Tensor, bound: int) -> Found:
    """With the error that a record of bounds states over its data, and its doubt."""
    doubted = bool(is_skewed_for_few(skewness(value), len(value)))
    return Found(what, float(value.mean()), float(mean_se_of_few(value)), 0.0, bound, doubted=doubted)


def gaps(s: Stranger, seed: int) -> list[Found]:
    """With the guide's own family; where a refusal says to leave that out, without."""
    try:
        r = _gaps(s, seed, ["own", "full covariance"])
    except pv.InputError as error:
        if "leave 'own' out" not in str(error).lower():
            raise
        r = _gaps(s, seed, ["full covariance"])
    doubt = ~(r.pareto_k <= r.pareto_k_threshold) | is_skewed(r.skewness_log_evidence, 100)
    found = compare("log p(x)", r.log_evidence, r.mc_se_log_evidence, s.truth, doubt=doubt)
    if s.elbo is not None:
        skewed = [is_skewed(one["guide"], 100) for one in (r.skewness_elbo, r.skewness_gap)]
        found += compare("ELBO", r.elbo["guide"], r.mc_se_elbo["guide"], s.elbo, doubt=skewed[0])
        found += compare("gap", r.gap["guide"], r.mc_se_gap["guide"], s.truth - s.elbo, doubt=skewed[1])
    return found


def _gaps(s: Stranger, seed: int, families: list[str]) -> pv.Gaps:
    return pv.gaps(
        s.model,
        s.guide,
        s.data,
        num_particles=100,
        num_steps=10,
        num_draws=4,
        families=families,
        seed=seed,
        plate=s.plate,
        progress=False,
    )


def surgery(s: Stranger, seed: int) -> list[Found]:
    r = pv.surgery(s.model, s.guide, s.data, num_draws=50, seed=seed, plate=s.plate, progress=False)
    parts = r.mutual_information.mean + r.marginal_kl.mean
    found = [Found("mutual information + KL of the aggregate", parts, 0.0, r.kl_prior.mean)]
    found += [
        Found("mutual information", r.mutual_information.mean, r.mutual_information.mc_se, math.log(len(s.data[0])), -1)
    ]
    found += [Found("mutual information", r.mutual_information.mean, r.mutual_information.mc_se, 0.0, 1)]
    found += [Found("KL of the aggregate", r.marginal_kl.mean, r.marginal_kl.mc_se, 0.0, 1)]
    if s.elbo is not None:
        se = (r.kl_prior.mc_se**2 + r.distortion.mc_se**2) ** 0.5 * 2**0.5  # the two may go together
        found += [Found("ELBO by rate and distortion", -r.kl_prior.mean - r.distortion.mean, se, float(s.elbo.mean()))]
    return found


def calibrate(s: Stranger, seed: int) -> list[Found]:
    """An exact guide is not called miscalibrated; of another the numbers alone must be there."""
    r = pv.calibrate(
        s.model,
        s.guide,
        s.data,
        num_simulations=60,
        num_draws=19,
        num_particles=60,
        level=LEVEL,
        seed=seed,
        plate=s.plate,
        progress=False,
    )
    found = [Found("simulations", r.num_simulations, 0.0, 60)]
    if s.exact:
        found += [Found("guide passes", float(r.guide.passed), 0.0, 1.0)]
        found += [Found("resampled draws pass", float(r.resampled.passed), 0.0, 1.0)]
    return found


def posterior(s: Stranger, seed: int) -> list[Found]:
    """Draws from the guide have its mean."""
    draws = pv.posterior(s.model, s.guide, *s.data, num_draws=DRAWS, seed=seed)
    found = []
    for site, truth in s.guide_mean.items():
        values = draws.values[site].double().reshape(DRAWS, *truth.shape)
        se = ((values.var(0) + 1 / DRAWS) / DRAWS).sqrt()  # not zero where all draws of a class agree
        found += compare(f"mean of '{site}'", values.mean(0), se, truth)
        if (
            site in draws.means
            and not bool(draws.means[site].isnan().any())
            and draws.means[site].numel() == DRAWS * truth.numel()
        ):
            means = draws.means[site].double().reshape(DRAWS, *truth.shape)
            found += compare(f"mean of the means of '{site}'", means.mean(0), se, truth)
    return found


def reference(s: Stranger, seed: int) -> list[Found]:
    """The posterior of the first datum by resampling: its mean, and log p(x)."""
    datum = tuple(part[:1] for part in s.data)
    r = pv.reference_posterior(
        s.model,
        s.guide,
        datum,
        method="resampled",
        num_draws=200,
        num_particles=2000,
        seed=seed,
        plate=s.plate,
        progress=False,
    )
    found = [Found("log p(x)", r.log_evidence.value, r.log_evidence.error, float(s.truth[0]))]
    for site, truth in s.posterior_mean.items():
        mean, error = r.moments.mean[site], r.mean_error[site]
        found += compare(f"posterior mean of '{site}'", mean, error, truth[0])
    return found


def predictive_check(s: Stranger, seed: int) -> list[Found]:
    """Every PIT is between 0 and 1, or NaN where nothing is observed."""
    r = pv.predictive_check(s.model, s.guide, s.data, num_draws=50, seed=seed, plate=s.plate, progress=False)
    inside = ((r.pit >= 0) & (r.pit <= 1) | r.pit.isnan()).double()
    return [Found("share of PIT within 0 and 1", float(inside.mean()), 0.0, 1.0)]


def has_parameters(s: Stranger) -> bool:
    """Whether the programs have anything to fit."""
    with pyro.get_param_store().scope(), warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        s.guide(*s.data)
        s.model(*s.data)
        return len(pyro.get_param_store()) > 0


def _fitted(s: Stranger, seed: int, **settings) -> list[Found]:
    model, guide = copy.deepcopy((s.model, s.guide))
    r = pv.fit(
        model,
        guide,
        s.data,
        valid=s.data,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-9),
        epochs=2,
        batch_size=len(s.data[0]),
        seed=seed,
        plate=s.plate,
        progress=False,
        **settings,
    )
    found = [Found("epochs", len(r.history), 0.0, 2)]
    numbers = [value for row in r.history for key, value in row.items() if "elbo" in key]
    found.append(Found("all logged ELBOs are numbers", float(all(map(math.isfinite, numbers))), 0.0, 1.0))
    return found


def fit(s: Stranger, seed: int) -> list[Found]:
    """Two epochs, eagerly, at a rate that moves nothing (the programs are tried again and again)."""
    return _fitted(s, seed, compile=False)


def log_terms(s: Stranger, seed: int) -> list[Found]:
    """The table itself; errors by the delta method, here."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(seed)
        table = pv.log_terms(s.model, s.guide, *s.data, num_particles=K, plate=s.plate)
    weight = (table.log_likelihood + table.log_prior - table.log_guide).detach().double()
    value = weight.logsumexp(0) - math.log(K)
    ratio = (weight - value).exp()
    found = compare("log p(x)", value, ratio.std(0) / K**0.5, s.truth)
    if s.elbo is not None and bool(s.elbo.isfinite().all()):  # a table of draws states no ELBO: K may all be possible
        found += compare("ELBO", weight.mean(0), weight.std(0) / K**0.5, s.elbo)
    return found


MEASUREMENTS: dict[str, Callable[[Stranger, int], list[Found]]] = {
    "evaluate": evaluate,
    "repaired": repaired,
    "compiled": compiled,
    "blocks": blocks,
    "convergence": convergence,
    "log_terms": log_terms,
    "annealed": annealed,
    "bidirectional": bidirectional,
    "gaps": gaps,
    "surgery": surgery,
    "calibrate": calibrate,
    "posterior": posterior,
    "reference": reference,
    "predictive_check": predictive_check,
    "fit": fit,
}


class Cell(NamedTuple):
    """What a measurement of a program came to: a word for the table, and in words what is wrong, if anything."""

    word: str  # right, refused, not compiled, said, -, WRONG
    wrong: str | None = None
    z: float = 0.0


def applies(s: Stranger, measurement: str) -> bool:
    """Whether there is anything to ask; a refusal that is wanted is always asked for."""
    if measurement in s.skipped:
        return False
    if measurement == "posterior" and not s.guide_mean:
        return measurement in s.refused
    return s.log_evidence is not None or measurement in s.refused


def cell(s: Stranger, measurement: str, seed: int) -> Cell:
    """Takes a measurement and judges it."""
    if not applies(s, measurement):
        return Cell("-")
    wanted = s.refused.get(measurement)
    if wanted is None and measurement == "fit" and not has_parameters(s):
        wanted = Refusal(None, ("parameter",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = MEASUREMENTS[measurement](s, seed)
        except pv.InputError as error:
            return _refused(str(error), wanted, measurement)
        except Exception as error:
            first = (str(error).strip() or "no words").splitlines()[0]
            return Cell("WRONG", f"raised {type(error).__name__}: {first[:200]}")
    if wanted is not None and not wanted.or_right:
        return Cell("WRONG", f"accepted, must be refused: {wanted}")
    wrong = [str(one) for one in found if one.wrong]
    if wrong and any(word in str(w.message) for w in caught for word in s.said):
        return Cell("said")
    if wrong and all(one.excused for one in found if one.wrong):
        return Cell("said")
    largest = max((one.z for one in found), default=0.0)
    return Cell("WRONG", "; ".join(wrong), largest) if wrong else Cell("right", None, largest)


def _refused(message: str, wanted, measurement: str) -> Cell:
    if measurement == "compiled" and "cannot be compiled" in message:
        return Cell("not compiled")
    if wanted is None:
        return Cell("WRONG", f"refused: {message[:200]}")
    missing = wanted.missing(message)
    return Cell("WRONG", f"refused, but the message {missing}: {message[:200]}") if missing else Cell("refused")
