"""Findings: what the records of a pair say that a reader should know first, each by its consequence in nats per datum.

A finding is one function record -> Finding, or None where there is nothing to tell; ``FINDINGS`` lists them by the
type of the record, so that a new measurement adds its own line there.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.diagnostics.calibration import Calibration
from pyrovae.diagnostics.classes.classification import CLASSIFIERS, Classification
from pyrovae.diagnostics.gaps import Gaps
from pyrovae.diagnostics.predictive_check import PredictiveCheck
from pyrovae.diagnostics.rank_tests import RankTest
from pyrovae.diagnostics.surgery import Surgery
from pyrovae.evidence.annealing.ais import Annealed
from pyrovae.evidence.annealing.bdmc import Bidirectional
from pyrovae.evidence.comparisons.paired import Comparison
from pyrovae.evidence.convergence import Convergence
from pyrovae.evidence.report import BY_GUIDE, CORRECTED, Report
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.restoring.restoration import Restoration
from pyrovae.training.fit import Fit

BINS = 10  # of the ranks, or of the PIT, whose divergence from uniform is told


class Finding(NamedTuple):
    """What follows from a record, and what it is worth."""

    nats: float | None  # consequence in nats per datum, at least 0; None where it has none in nats
    sentence: str
    section: str  # key of the section that shows it


class TrainAndTest(NamedTuple):
    """The evidence of a pair on data that it was fitted to, and on others."""

    train: Report
    test: Report


Finder = Callable[[Any], Finding | None]


def ranked(records: Iterable[Any]) -> list[Finding]:
    """The findings of all records, the one of the largest consequence first and those without nats last."""
    found = [finding for record in records for finder in FINDINGS.get(type(record), ()) if (finding := finder(record))]
    return sorted(found, key=lambda finding: -math.inf if finding.nats is None else finding.nats, reverse=True)


def nats(value: float) -> str:
    """A number of nats, to two digits after the point or as many as it has.

    Example:
        >>> nats(7.1), nats(0.0213), nats(0.00004), nats(1.0), nats(math.inf)
        ('7.10 nats', '0.021 nat', 'less than 0.0001 nat', '1.00 nat', 'unknown')
    """
    if not math.isfinite(value):
        return "unknown"
    if abs(value) < 1e-4:
        return "0 nats" if value == 0 else "less than 0.0001 nat"
    size = abs(value)
    written = f"{value:.2f}" if size >= 0.995 else f"{value:.2g}"
    return f"{written} nat{'s' * (float(written) > 1)}"


def percent(fraction: float) -> str:
    """A fraction in percent: without places where it is large, never a "0 %" that is not none."""
    if 0 < fraction < 0.01:
        return f"{100 * fraction:.2g} %"
    return f"{100 * fraction:.0f} %"


# ------------------------------------------------------------------------------------------------------ of the account


def unreliable_rows(report: Report) -> Finding | None:
    """Rows whose evidence nothing vouches for, and how far the corrected estimates would move the mean."""
    rows = report.unreliable
    if not rows.any():
        told = f"All {len(report):,} rows are reliable: k-hat, effective draws and skewness vouch for their log p(x)"
        return Finding(0.0, told, "account")
    moved = [(report.columns[name] - report.log_evidence).abs() for name in CORRECTED if name in report.columns]
    moved.append(2 * report.mc_se_log_evidence)
    value = float(torch.stack(moved).amax(0)[rows].sum() / len(report))  # NaN wherever one is
    told = f"{percent(report.fraction_unreliable)} of the rows are unreliable: log p(x) is too low there by an unknown "
    if not math.isfinite(value):
        return Finding(math.inf, told + "amount, of which too few draws tell nothing", "account")
    told += f"amount; two standard errors and both corrections move the mean by at most {nats(value)}"
    return Finding(value, told, "account")


def guide_too_narrow(report: Report) -> Finding | None:
    """What the guide's own draws miss of the evidence that better proposals found, and what these took."""
    taken = {name: found for name, found in report.routes().items() if name != "encoder" and found["num_data"]}
    if not taken or BY_GUIDE not in report.columns:
        return None
    short = float((report.log_evidence - report.columns[BY_GUIDE]).mean())
    if math.isnan(short):
        return None
    count = sum(found["num_data"] for found in taken.values())
    passes = sum(found["num_data"] * (found["cost"] or 0.0) for found in taken.values()) / count
    told = f"By the guide's own draws log p(x) would be at least {nats(max(short, 0.0))} too low: {count:,} of "
    told += f"{len(report):,} rows took a better proposal, at {passes:,.0f} decoder passes each in place of "
    told += f"{report.num_particles:,}"
    return Finding(max(short, 0.0), told, "account")


def elbo_falls_short(report: Report) -> Finding | None:
    """What the ELBO lacks of log p(x): the guide's divergence from the posterior."""
    mean = report.numbers()["kl_posterior"]["mean"]
    if mean is None or report.found_by == "exact":
        return None
    least = "at least " * (report.fraction_unreliable > 0)
    told = f"The ELBO is {least}{nats(mean)} below log p(x): that is how far the guide is from the posterior, "
    return Finding(max(mean, 0.0), told + "and no fault of the model", "account")


def monte_carlo_error(report: Report) -> Finding | None:
    """The Monte-Carlo error of log p(x) beside the error from having so few data."""
    evidence = report.numbers()["log_evidence"]
    if evidence["mc_se"] is None or evidence["data_se"] is None:
        return None
    both = math.hypot(2 * evidence["mc_se"], evidence["bias"] or 0.0)
    is_above = evidence["mc_se"] > evidence["data_se"]
    told = f"Monte-Carlo error of log p(x): {nats(both)}, two standard errors and bias together; "
    share = "above" if is_above else "below"
    told += f"{share} the data's, 2 x {evidence['data_se']:.3g}"
    return Finding(both, told + (": raise --particles" if is_above else ""), "account")


# ----------------------------------------------------------------------------------------------------- of the fit


def overfitting(pair: TrainAndTest) -> Finding | None:
    """What the evidence loses between the data that were fitted and others."""
    train, test = (one.numbers()["log_evidence"] for one in pair)
    if train["mean"] is None or test["mean"] is None:
        return None
    lost = train["mean"] - test["mean"]
    if train["data_se"] is None or test["data_se"] is None:
        return None  # of one row
    error = math.hypot(train["data_se"], test["data_se"])
    if lost <= 2 * error:
        told = f"No over-fitting seen: log p(x) of training rows is {lost:.2f} above that of test rows (SE {error:.2f})"
        return Finding(max(lost, 0.0), told, "fit")
    told = f"Over-fitting: log p(x) falls by {nats(lost)} (SE {error:.2f}) from {len(pair.train):,} training rows to "
    return Finding(lost, told + f"{len(pair.test):,} test rows", "fit")


def training_gap(fit: Fit) -> Finding | None:
    """What the ELBO loses between training and validation data, at the weights that were kept."""
    row = _kept_row(fit)
    if row is None or not math.isfinite(row.get("valid_elbo", math.nan)):
        return None
    lost = row["elbo"] - row["valid_elbo"]
    told = f"The ELBO of the training data is {nats(abs(lost))} {'above' if lost > 0 else 'below'} that of the "
    told += f"validation data at epoch {row['epoch']:.0f}"
    return Finding(max(lost, 0.0), told + " (over-fitting of model and guide together)" * (lost > 0), "fit")


def past_its_best(fit: Fit) -> Finding | None:
    """What the validation ELBO lost since its best epoch, where the last weights were kept; or gained at the end."""
    curve = [(row.get("valid_elbo", math.nan), row["epoch"]) for row in fit.history]
    curve = [one for one in curve if math.isfinite(one[0])]
    if len(curve) < 10 or fit.best_epoch is not None:
        return None
    (best, epoch), (last, at) = max(curve), curve[-1]
    tenth = curve[-1 - len(curve) // 10]
    if best - last > 0 and epoch < tenth[1]:
        told = f"The validation ELBO was best at epoch {epoch:.0f} of {at:.0f} and lost {nats(best - last)} since: "
        return Finding(best - last, told + "--patience keeps the best", "fit")
    gained = last - tenth[0]
    told = f"The validation ELBO moved by {gained:+.3f} over the last tenth of the {at:.0f} epochs"
    return Finding(abs(gained), told + ": more epochs may find more" * (gained > 0.1), "fit")


def _kept_row(fit: Fit) -> Mapping[str, float] | None:
    """The epoch whose weights the fit returned."""
    rows = [row for row in fit.history if fit.best_epoch in (None, row["epoch"])]
    return rows[-1] if rows else None


# ------------------------------------------------------------------------------------------- of what was measured


def amortization(record: Gaps) -> Finding | None:
    """What the encoder loses against the best member of its own family, datum by datum."""
    account = record.numbers()
    if "amortization" not in account or account["amortization"]["mean"] is None:
        return None
    mean, error = account["amortization"]["mean"], account["amortization"]["mc_se"] or math.nan
    told = f"Amortization gap: {nats(mean)} (MC SE {error:.2g}): so much a guide fitted to each row alone would gain "
    return Finding(max(mean, 0.0), told + "in the same family; fit --only guide goes on with the encoder", "gaps")


def approximation(record: Gaps) -> Finding | None:
    """What the guide's family cannot reach."""
    account = record.numbers()
    if "approximation" not in account or account["approximation"]["mean"] is None:
        return None
    mean = account["approximation"]["mean"]
    least = "at least " * (record.fraction_unreliable > 0)
    told = f"Approximation gap: {least}{nats(mean)} are beyond the guide's family"
    gains = {name: account[f"gain_{name.replace(' ', '_')}"]["mean"] for name in account["families"] if name != "own"}
    told += "".join(f"; a {name} would buy {nats(gain)}" for name, gain in gains.items() if gain is not None)
    return Finding(max(mean, 0.0), told, "gaps")


def inactive_units(record: Surgery) -> Finding | None:
    """Latent dimensions that carry nothing, and what they cost."""
    idle = [one for one in record.dimensions if not one.active]
    costs = [one.kl.mean for one in idle if math.isfinite(one.kl.mean)]
    told = f"{len(idle)} of {len(record.dimensions)} latent dimensions are inactive"
    if not idle:
        return Finding(0.0, f"All {len(record.dimensions)} latent dimensions are active", "surgery")
    if not costs:
        return Finding(None, told, "surgery")
    return Finding(max(sum(costs), 0.0), f"{told}: they cost {nats(sum(costs))} of KL to the prior", "surgery")


def prior_mismatch(record: Surgery) -> Finding | None:
    """What the best prior for these codes would buy: the marginal KL, where enough data tell it."""
    mean = record.marginal_kl.mean
    if not math.isfinite(mean):
        return None
    gain = record.prior_gain
    if record.saturated and math.isfinite(gain.mean):
        told = f"A better prior would buy at least {nats(max(gain.mean, 0.0))} (SE {gain.data_se:.2g}), as a mixture "
        return Finding(max(gain.mean, 0.0), told + "fitted to other data's codes does", "surgery")
    if record.saturated:
        told = "What a better prior would buy cannot be told: mutual information is at its ceiling, log N = "
        return Finding(None, f"{told}{record.log_num_data:.2f} nats; take more data", "surgery")
    told = f"The codes as a whole differ from the prior by {nats(mean)} (MC SE {record.marginal_kl.mc_se:.2g}): "
    return Finding(max(mean, 0.0), told + "at most so much a better prior would buy", "surgery")


def miscalibration(record: Calibration) -> Finding | None:
    """How far simulated truths are from ranking evenly among the guide's draws: a lower bound on its divergence."""
    if record.passed:
        return Finding(0.0, record.verdict[0].upper() + record.verdict[1:], "calibration")
    name, value = _worst_quantity(record.guide)
    how = Counter(record.guide.verdicts.values())
    counted = ", ".join(f"{verdict} at {count}" for verdict, count in how.most_common())
    told = f"Calibration is off by at least {nats(value)} of KL(posterior ‖ guide), seen at {name}; of "
    return Finding(value, f"{told}{len(record.guide.names)} quantities the guide is {counted}", "calibration")


def _worst_quantity(test: RankTest) -> tuple[str, float]:
    """The quantity whose ranks are furthest from uniform, and by how many nats."""
    num_ranks = test.num_draws + 1
    levels = (test.ranks.double() + 0.5) / num_ranks
    bins = even_bins(num_ranks)
    values = {name: divergence_from_uniform(levels[:, test.names.index(name)], bins) for name in test.verdicts}
    worst = max(values, key=lambda name: values[name])
    return worst, values[worst]


def even_bins(num_ranks: int) -> int:
    """The most bins, up to ten, that hold as many ranks each.

    Example:
        >>> even_bins(100), even_bins(8), even_bins(11)
        (10, 8, 1)
    """
    return max(size for size in range(1, BINS + 1) if num_ranks % size == 0)


def divergence_from_uniform(levels: Tensor, bins: int = BINS) -> float:
    r"""KL of the distribution of values in [0, 1] from the uniform one, by a histogram, nats; at least 0.

    What ranks or PIT values show of a divergence is at most that divergence (data processing): of ranks,
    E KL(p(z|x) ‖ q(z|x)), of PIT values KL(data ‖ model). The plug-in value of S values in B bins is too large by
    about (B - 1) / (2 S), which is taken off.

    References:
        Miller (1955), Note on the bias of information estimates; Cover and Thomas (2006), Elements of Information
        Theory, second edition, section 2.8.

    Example:
        >>> divergence_from_uniform(torch.linspace(0.01, 0.99, 500))
        0.0
        >>> round(divergence_from_uniform(torch.linspace(0.01, 0.49, 500).double()), 2)
        0.69
    """
    levels = levels[~levels.isnan()]
    counts = torch.histc(levels.double(), bins, 0.0, 1.0)
    share = counts / counts.sum()
    value = float(torch.special.xlogy(share, share * bins).sum()) - (bins - 1) / (2 * len(levels))
    return max(value, 0.0)


def misfit(record: PredictiveCheck) -> Finding | None:
    """Coordinates that data and model distribute differently, and by how much at least; statistics that accuse."""
    p = record.ks_p_value.flatten()
    count = int((~p.isnan()).sum())
    beyond = (p * count < 0.05).nonzero().flatten().tolist()
    named = [name for name, one in record.statistics.items() if abs(one.prior.data_set_p_value - 0.5) > 0.475]
    told = f"; the mean over data of {', '.join(named)} is outside what the model makes" * bool(named)
    if not beyond:
        first = f"No coordinate of {count:,} leaves its band under the prior predictive"
        return Finding(None if named else 0.0, first + told, "check")
    columns = record.pit.flatten(1)
    value = max(divergence_from_uniform(columns[:, column]) for column in beyond)
    first = f"The model misfits {len(beyond)} of {count:,} coordinates, the worst by at least {nats(value)} by itself"
    return Finding(value, first + told, "check")


def wrong_classes(record: Classification) -> Finding | None:
    """How often each classifier is wrong, and what the guide loses of the label's log probability."""
    errors = {by: float(record.wrong(by).mean()) for by in CLASSIFIERS}
    loss = {by: -float(record.of_truth(by).log().mean()) for by in CLASSIFIERS}
    told = f"{percent(errors['guide'])} of the labels are wrong by the guide, {percent(errors['model'])} by the model; "
    told += f"the guide's probabilities cost {nats(loss['guide'])} a label, the model's {nats(loss['model'])}"
    return Finding(max(loss["guide"] - loss["model"], 0.0), told, "classification")


def unreliable_draws(record: Restoration | Completion) -> Finding | None:
    """Data for whose draws nothing vouches."""
    count = int(record.unreliable.sum())
    if not count:
        return Finding(0.0, f"The draws of all {len(record):,} completed data are vouched for", "completion")
    return Finding(None, f"Nothing vouches for the draws of {count:,} of {len(record):,} completed data", "completion")


def still_rising(record: Convergence) -> Finding | None:
    """What the last doubling of the draws added to importance-sampled log p(x)."""
    curve = record.table()["log_evidence"]
    if len(curve) < 2:
        return None
    gained = float(curve[-1] - curve[-2])
    sizes = record.num_particles
    told = f"Importance sampling gained {nats(max(gained, 0.0))} from K = {sizes[-2]:,} to {sizes[-1]:,}"
    return Finding(max(gained, 0.0), told, "convergence")


def few_chains(record: Annealed) -> Finding | None:
    """The Monte-Carlo error of annealed evidence."""
    error = record.to_dict()["log_evidence"]["mc_se"]
    if error is None:
        return None
    told = f"Annealed log p(x) has two Monte-Carlo standard errors of {nats(2 * error)}"
    return Finding(2 * error, told, "annealed")


def certified(record: Bidirectional) -> Finding | None:
    """How closely bounds from both sides hold log p(x) of simulated data."""
    width = float(record.width.mean())
    told = f"On {len(record):,} data of the model's own, bounds from both sides hold log p(x) to {nats(width)}"
    return Finding(max(width, 0.0), told, "bounds")


def differences(record: Comparison) -> Finding | None:
    """How far the best pair is above the next."""
    best, second = record.rows[:2]
    gain, error = abs(second.difference), second.difference_se
    if record.warnings():
        told = (
            f"Not told apart for certain: {best.name} and {second.name}, {nats(gain)} apart (paired SE {error:.2g}), "
        )
        return Finding(None, f"{told}as {record.warnings()[0]}", "comparison")
    if second.within_error:
        told = f"Within their error: {best.name} and {second.name}, {nats(gain)} apart (paired SE {error:.2g})"
    else:
        told = f"Best is {best.name}, {nats(gain)} above {second.name} (paired SE {error:.2g}) on the same rows"
    return Finding(gain, told, "comparison")


FINDINGS: dict[type, Sequence[Finder]] = {
    Report: [unreliable_rows, guide_too_narrow, elbo_falls_short, monte_carlo_error],
    Fit: [training_gap, past_its_best],
    TrainAndTest: [overfitting],
    Gaps: [amortization, approximation],
    Surgery: [inactive_units, prior_mismatch],
    Calibration: [miscalibration],
    PredictiveCheck: [misfit],
    Classification: [wrong_classes],
    Restoration: [unreliable_draws],
    Completion: [unreliable_draws],
    Convergence: [still_rising],
    Annealed: [few_chains],
    Bidirectional: [certified],
    Comparison: [differences],
}
