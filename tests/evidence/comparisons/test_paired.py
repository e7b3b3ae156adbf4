"""Paired differences by hand, the correction for rescaled rows, and comparisons that would mean nothing."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import as_split, load
from pyrovae.diagnostics.gaps import gaps
from pyrovae.evidence.annealing.ais import annealed_evidence
from pyrovae.evidence.comparisons.paired import compare, source_evidence
from pyrovae.evidence.comparisons.seeds import compare_seeds
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.proposals.widened import widened
from pyrovae.programs.oracles import LinearGaussian, ppca

ORACLE = ppca(8, 2)
X, _ = ORACLE.draw(60, seed=0)


def account(guide, x=X, model=ORACLE.model, num_particles=40, **options):
    settings = {"method": "importance", **options}
    return evaluate(model, guide, x, num_particles=num_particles, progress=False, **settings)


@pytest.fixture(scope="module")
def reports():
    return {
        "narrow": account(widened(ORACLE.guide, 0.6), seed=1),
        "exact": account(ORACLE.guide),
        "other model": account(ppca(8, 2, seed=1).guide, model=ppca(8, 2, seed=1).model),
    }


def test_paired_differences_by_hand(reports):
    result = compare(reports)
    assert [row.name for row in result.rows][-1] == "other model"
    best = result.rows[0]
    assert (best.difference, best.difference_se, best.difference_mc_error) == (0, 0, 0)
    for row in result.rows:
        report = reports[row.name]
        assert row.log_evidence == pytest.approx(float(report.log_evidence.mean()), rel=1e-12)
        assert row.data_se == pytest.approx(float(report.log_evidence.std()) / math.sqrt(60), rel=1e-12)
    row = next(row for row in result.rows if row.name == "other model")
    difference = reports["other model"].log_evidence - reports[best.name].log_evidence
    squares = reports["other model"].mc_se_log_evidence.square() + reports[best.name].mc_se_log_evidence.square()
    assert row.difference == pytest.approx(float(difference.mean()), rel=1e-12)
    assert row.difference_se == pytest.approx(float(difference.std()) / math.sqrt(60), rel=1e-12)
    means = [reports[name].mc_se_log_evidence.square().mean() / 2 for name in ("other model", best.name)]
    error = math.hypot(math.sqrt(float(squares.sum())) / 60, float(means[0] - means[1]))
    assert row.difference_mc_error == pytest.approx(error, rel=1e-12)
    assert row.difference == pytest.approx(row.log_evidence - best.log_evidence, rel=1e-9)


def test_pairing_takes_out_what_the_data_share(reports):
    """One model, two guides: their accounts differ far less than the data do."""
    rows = {row.name: row for row in compare(reports).rows}
    worse = max((rows["narrow"], rows["exact"]), key=lambda row: abs(row.difference))
    assert worse.difference_se < worse.data_se / 5


def test_order_and_text(reports):
    result = compare(reports)
    assert compare(dict(reversed(reports.items()))) == result
    assert list(result.rows) == sorted(result.rows, key=lambda row: -row.log_evidence)
    text = str(result)
    assert all(
        part in text for part in [*reports, "highest", "N = 60", "nats per datum", "MC error", "paired", "unreliable"]
    )
    assert text.splitlines()[1].startswith(result.rows[0].name)


def test_unequal_numbers_of_particles_are_told():
    reports = {k: account(widened(ORACLE.guide, 0.5), num_particles=k) for k in (30, 300)}
    text = str(compare({str(k): report for k, report in reports.items()}))
    assert "find all of it by the same means" in text and "importance, K = 30 " in text


def test_whatever_holds_an_evidence_is_compared(reports):
    """One pair by its guide, by chains and by the draws of several proposals: one evidence."""
    guide = widened(ORACLE.guide, 1.3)
    found = {
        "guide": account(guide),
        "chains": annealed_evidence(ORACLE.model, guide, X, num_temperatures=10, progress=False),
        "proposals": gaps(ORACLE.model, guide, X, families=["own"], num_steps=5, num_particles=40, progress=False),
    }
    result = compare(found)
    text = str(result)
    assert "AIS, 10 x 16" in text and "gaps, K = 80" in text and "importance, K = 40" in text
    assert all(abs(row.difference) <= 4 * row.difference_mc_error for row in result.rows[1:])
    assert compare({"guide": found["guide"], "exact": reports["exact"]}).by_guides


def test_the_error_of_a_difference_holds_the_bias_of_few_draws():
    """From a guide a little off, 30 draws of 15 coordinates are too few: the bias is beyond the Monte-Carlo SE."""
    oracle = ppca(30, 15)
    x, _ = oracle.draw(400, seed=0)
    poor = account(widened(oracle.guide, 1.1, shift=0.2), x, model=oracle.model, num_particles=30)
    row = compare({"exact": account(oracle.guide, x, model=oracle.model), "poor": poor}).rows[-1]
    mc_se = float(poor.mc_se_log_evidence.square().sum().sqrt()) / len(x)
    assert 4 * mc_se < abs(row.difference) < 4 * row.difference_mc_error


def test_one_datum():
    reports = {str(i): account(widened(ORACLE.guide, 1.2), X[:1], seed=i) for i in range(2)}
    text = str(compare(reports))
    assert text.splitlines()[1].split()[2] == "-" and "nan" not in text


# --------------------------------------------------------------------------------- rescaled rows

DIVISOR = 16.0


def rescaled(x):
    """Rows divided by 16, with the protocol that says so, and the model of the same data in that unit."""
    split = as_split(x / DIVISOR)
    jacobian = -x.shape[1] * math.log(DIVISOR)
    protocol = replace(
        split.protocol, divisor=DIVISOR, log_jacobian=jacobian, source_sha256=as_split(x).protocol.sha256
    )
    model = LinearGaussian(ORACLE.loadings / DIVISOR, ORACLE.bias / DIVISOR, ORACLE.noise_scale / DIVISOR)
    return replace(split, protocol=protocol), model


def test_rescaled_densities_are_brought_to_one_unit(reports):
    split, model = rescaled(X)
    report = account(model.guide, split, model.model)
    shift = report.log_evidence - reports["exact"].log_evidence
    assert (shift - 8 * math.log(DIVISOR)).abs().max() < 1e-9
    assert (source_evidence(report) - reports["exact"].log_evidence).abs().max() < 1e-9
    row = compare({"as found": reports["exact"], "rescaled": report}).rows[-1]
    assert abs(row.difference) < 1e-9


def test_rescaled_digits_of_the_loader():
    """The loader's own protocol gives the same correction."""

    def pair(unit):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                loc = (5 + z[..., None, None] + torch.zeros(8, 8)) / unit
                pyro.sample("x", dist.Normal(loc, 4.0 / unit).to_event(2), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.mean((-1, -2)) * unit - 5, 0.5))

        return model, guide

    found, scaled = (load("digits", divisor=divisor).test[:40] for divisor in (None, 16.0))
    reports = {
        "found": evaluate(*pair(1), found, num_particles=50, progress=False),
        "scaled": evaluate(*pair(16), scaled, num_particles=50, progress=False),
    }
    assert abs(compare(reports).rows[-1].difference) < 1e-3  # float32; uncorrected it would be 177 nats
    of_source = float(source_evidence(reports["scaled"]).mean())
    assert f"in the unit of the source rows {of_source:.3f}" in str(reports["scaled"])
    assert "source rows" not in str(reports["found"])


def test_masses_get_no_jacobian(reports):
    report = replace(reports["exact"], measure={"x": "mass"})
    shifted = replace(report, protocol=replace(report.protocol, log_jacobian=-5.0))
    assert torch.equal(source_evidence(shifted), report.log_evidence)


def test_a_column_that_is_a_mass_in_one_and_a_density_in_the_other_is_refused(reports):
    """Age as a count or as a real number, beside a binary and a real column; and two columns that change roles."""
    kinds = [
        {"x.count": "mass", "x.binary": "mass", "x.real": "density"},
        {"x.binary": "mass", "x.real": "density"},
    ]
    counted, real = (replace(reports["exact"], measure=measure) for measure in kinds)
    with pytest.raises(InputError, match="unlike base measures"):
        compare({"age a count": counted, "age real": real})
    rescaled = [replace(counted.protocol, scale=scale) for scale in ((1.0, 2.0, 1.0), (2.0, 1.0, 1.0))]
    swapped = [replace(counted, protocol=protocol) for protocol in rescaled]
    with pytest.raises(InputError, match="other columns are rescaled in one than in the other"):
        compare(dict(zip("ab", swapped, strict=True)))


def test_parts_of_one_observation_are_one_measure(reports):
    parts = replace(reports["exact"], measure={"x.real": "density", "x.positive": "density"})
    assert compare({"one site": reports["exact"], "two": parts}).rows[-1].difference == 0


# ----------------------------------------------------------------------------------------- refusals


def with_protocol(report, **changes):
    return replace(report, protocol=replace(report.protocol, **changes))


REFUSED = {  # name: (changes of two reports on the same rows, message)
    "mass-and-density": (
        lambda a: (a, replace(a, measure={"x": "mass"})),
        "likelihood of one is a density, of the other a mass",
    ),
    "joint-and-conditional": (
        lambda a: (replace(a, measure={"x": "mass", "y": "mass"}), replace(a, measure={"x": "mass"})),
        "likelihood of one is 2 masses, of the other a mass",
    ),
    "parts-of-a-row": (
        lambda a: (a, replace(a, measure={"x.real": "density", "x.ordinal5": "mass"})),
        "of one is a density, of the other a density and a mass",
    ),
    "factor": (
        lambda a: (a, replace(a, measure={"x": "density", "penalty": "factor"})),
        "of one is a density, of the other a density and a factor",
    ),
    "binarization": (
        lambda a: (with_protocol(a, binarization="static"), with_protocol(a, binarization="threshold")),
        "binarization is 'static' in one and 'threshold' in the other",
    ),
    "rows": (lambda a: (a, with_protocol(a, source_sha256="0" * 64)), "their rows differ .*evaluate both on the same"),
    "binarized-rows": (
        lambda a: (with_protocol(a, binarization="static"), with_protocol(a, binarization="static", sha256="0" * 64)),
        "their rows differ",
    ),
    "no-protocol": (lambda a: (a, replace(a, protocol=None)), "without a data protocol says nothing of its rows"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case, reports):
    change, message = case
    first, second = change(reports["exact"])
    with pytest.raises(InputError, match=rf"'mine' and 'yours' cannot be compared: .*{message}"):
        compare({"mine": first, "yours": second})


def test_unlike_numbers_of_data(reports):
    with pytest.raises(InputError, match="evaluated on 60 and 50 data"):
        compare({"mine": reports["exact"], "yours": account(ORACLE.guide, X[:50])})


def test_unlike_data(reports):
    with pytest.raises(InputError, match="their rows differ"):
        compare({"mine": reports["exact"], "yours": account(ORACLE.guide, X.flip(0))})


@pytest.mark.parametrize("count", [0, 1])
def test_too_few(count, reports):
    with pytest.raises(InputError, match=f"at least two reports, got {count}"):
        compare(dict(list(reports.items())[:count]))


@pytest.mark.parametrize("wrong", [[1, 2], {"a": "runs/a", "b": "runs/b"}], ids=["a list", "folders"])
def test_what_is_no_report_is_refused(wrong):
    with pytest.raises(
        InputError, match=r"a comparison needs reports, annealed evidence or gaps by name|reports must be a dict"
    ):
        compare(wrong)


def test_an_order_that_the_guides_alone_would_not_give_is_told():
    """The model that made the data wins, though its guide is so poor that its own draws put it last."""
    other = ppca(8, 2, seed=1)
    reports = {
        "right, poor guide": account(widened(ORACLE.guide, 1.0, shift=8.0), num_particles=200, method="auto"),
        "wrong, exact guide": account(other.guide, model=other.model),
    }
    result = compare(reports)
    assert result.row_names() == ["right, poor guide", "wrong, exact guide"]
    told = "by the guides' own draws alone the order would be wrong, exact guide, right, poor guide"
    assert told in result.summary()
    assert compare(dict(reversed(reports.items()))).by_guides == tuple(reversed(result.row_names()))
    same = compare({"a": reports["wrong, exact guide"], "b": reports["wrong, exact guide"]})
    assert "own draws" not in same.summary()


@pytest.fixture(scope="module")
def mass_and_density():
    """Independent pixels by their bins, and the density of which these are the bins, of digits with noise."""
    whole, noisy = load("digits"), load("digits", dequantize=True, divisor=17)
    loc, scale = whole.train.x.mean(0).double() + 0.5, whole.train.x.std(0).double() + 1

    def density(x):  # of (k + u) / 17
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc / 17, scale / 17).to_event(2), obs=x.double())

    def mass(x):  # the integral of that over u, from k to k + 1, over 17 levels
        level = torch.arange(17.0, dtype=torch.float64)[:, None, None]
        normal = dist.Normal(loc, scale)
        logits = (normal.cdf(level + 1) - normal.cdf(level)).log().movedim(0, -1)
        left = torch.cat([logits, (1 - logits.exp().sum(-1, keepdim=True)).log()], -1)  # beyond: one more level
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Categorical(logits=left).to_event(2), obs=x.double())

    none = lambda x: None  # noqa: E731
    return {
        "mass": account(none, whole.test, model=mass),
        "density": account(none, noisy.test, model=density),
    }


class TestDequantized:
    """A density of whole numbers with noise: in expectation at most their log mass, and compared as such."""

    def test_its_mean_over_noise_is_below_the_mass_of_each_datum(self, mass_and_density):
        train, x = (getattr(load("digits"), part).x.double() for part in ("train", "test"))
        loc, variance = train.mean(0) + 0.5, (train.std(0) + 1).square()
        square = (x + 0.5 - loc).square() + 1 / 12  # E (x + u - loc)^2
        mean = -0.5 * (square / variance + (2 * math.pi * variance).log()).sum((1, 2))
        assert (mean < mass_and_density["mass"].log_evidence).all()  # Jensen's inequality
        apart = source_evidence(mass_and_density["density"]) - mean
        assert abs(float(apart.mean())) < 4 * float(apart.std()) / math.sqrt(len(x))  # 4 standard errors

    def test_it_stands_beside_the_mass_and_what_it_is_is_told(self, mass_and_density):
        found = compare(mass_and_density)
        assert found.row_names() == ["mass", "density"] and found.bounds == ("density",)
        assert "density: densities of dequantized rows, in expectation lower bounds on the log mass" in str(found)
        told = compare_seeds({name: [report] for name, report in mass_and_density.items()}).notes
        assert "lower bounds on the log mass" in told[-1]
        assert "in expectation at most the log mass of the whole numbers" in str(mass_and_density["density"])

    def test_densities_of_whole_numbers_as_found_are_kept_apart(self, mass_and_density):
        def density(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0.0, 9.0).expand([8, 8]).to_event(2), obs=x)

        found = account(lambda x: None, load("digits").test, model=density)
        with pytest.raises(InputError, match="dequantized in one and as found in the other"):
            compare({"found": found, "density": mass_and_density["density"]})
        with pytest.raises(InputError, match="the likelihood of one is a density, of the other a mass"):
            compare({"found": found, "mass": mass_and_density["mass"]})
        assert compare({"density": mass_and_density["density"], "again": mass_and_density["density"]}).bounds == ()
