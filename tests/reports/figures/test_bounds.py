"""Figures of the evidence tools show what their records say: geometry and labels are read back from the artists."""

import itertools
import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures import style as helpers
from pyrovae.reports.figures.bounds import draw_positive

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(12, seed=0)[0]


@pytest.fixture(scope="module")
def pair(oracle):
    return oracle.model, oracle.mean_field_guide(1.3, 0.4)


@pytest.fixture(scope="module")
def curve(pair, x):
    return pv.convergence(*pair, x, num_particles=200, **QUIET)


@pytest.fixture(scope="module")
def annealed(pair, x):
    return pv.annealed_evidence(*pair, x, num_temperatures=4, num_chains=4, **QUIET)


@pytest.fixture(scope="module")
def bounds(pair, x):
    sizes = {"num_data": 10, "num_chains": 3, "num_particles": 20}
    return {t: pv.bidirectional(*pair, x, num_temperatures=t, **sizes, **QUIET) for t in (6, 2)}


@pytest.fixture(scope="module")
def gaps(pair, x):
    return pv.gaps(*pair, x, num_particles=30, num_steps=20, **QUIET)


@pytest.fixture(scope="module")
def surgery(pair, x):
    return pv.surgery(*pair, x, **QUIET)


@pytest.fixture(scope="module")
def undivided(oracle, x):
    return pv.surgery(oracle.model, oracle.guide, x, **QUIET)


@pytest.fixture(scope="module")
def calibration(oracle, x):
    sizes = {"num_simulations": 200, "num_draws": 19, "num_particles": 200}
    return pv.calibrate(oracle.model, pv.widened(oracle.guide, 0.5), x, **sizes, **QUIET)


def posterior(oracle, scale=0.6, shift=0.4, **more):
    return pv.exact_posterior(
        oracle.model, pv.widened(oracle.guide, scale, shift=shift), oracle.draw(1, seed=0)[0], **more, **QUIET
    )


@pytest.fixture(scope="module")
def plane(oracle):
    return posterior(oracle)


@pytest.fixture(scope="module")
def line():
    return posterior(pv.oracles.ppca(5, 1), num_draws=500)


@pytest.fixture(scope="module")
def many():
    """Nine coordinates, by resampling; the guide misses much, and the record says so."""
    with pytest.warns(pv.UntrustedPosterior):
        return posterior(pv.oracles.ppca(12, 9), 0.5, 1.0, method="resampled", num_particles=300, num_draws=300)


@pytest.fixture(scope="module")
def check(oracle, x):
    return pv.predictive_check(oracle.model, oracle.guide, 1.5 * x, num_draws=40, **QUIET)


@pytest.fixture(scope="module")
def every(curve, annealed, bounds, gaps, surgery, undivided, calibration, plane, line, many, check):
    """Every figure once, and each kind of it."""
    return {
        "convergence": figures.convergence(curve),
        "convergence beside annealing": figures.convergence(curve, annealed=annealed),
        "annealed": figures.annealed(annealed),
        "bounds": figures.bounds(bounds),
        "bounds of one": figures.bounds(bounds[6]),
        "gaps": figures.gaps({"train": gaps, "a much longer name for the test data": gaps}),
        "anatomy": figures.anatomy(surgery),
        "anatomy undivided": figures.anatomy(undivided),
        "calibration": figures.calibration(calibration),
        "posterior in a plane": figures.posterior_of_one(plane),
        "posterior on a line": figures.posterior_of_one(line),
        "posterior of many": figures.posterior_of_one(many),
        "predictive check": figures.predictive_check(check),
    }


NAMES = (
    "convergence",
    "convergence beside annealing",
    "annealed",
    "bounds",
    "bounds of one",
    "gaps",
    "anatomy",
    "anatomy undivided",
    "calibration",
    "posterior in a plane",
    "posterior on a line",
    "posterior of many",
    "predictive check",
)


def boxes(figure):
    """Titles, labels, legends and the texts in the axes, and where they stand, in pixels."""
    figure.canvas.draw()
    artists = [figure._suptitle, figure._supxlabel, *figure.legends]
    for axes in figure.axes:
        artists += [axes.title, *axes.texts, axes.get_legend()]
        if axes.axison:
            artists += [axes.xaxis.label, axes.yaxis.label]
    found = [(artist, artist.get_window_extent()) for artist in artists if artist is not None]
    return [(str(artist), box) for artist, box in found if box.width > 0]


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_is_a_figure_on_its_own_canvas_that_notebooks_show(self, every, name):
        assert isinstance(every[name], Figure)
        assert isinstance(every[name].canvas, FigureCanvasAgg)
        assert every[name]._repr_png_().startswith(b"\x89PNG")

    def test_nothing_is_cut_off(self, every, name):
        drawn = every[name].get_tightbbox().transformed(matplotlib.transforms.Affine2D().scale(every[name].dpi))
        width, height = every[name].canvas.get_width_height()
        for text, box in [("all", drawn), *boxes(every[name])]:
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text

    def test_texts_do_not_overlap(self, every, name):
        for (text, box), (other, other_box) in itertools.combinations(boxes(every[name]), 2):
            assert not box.overlaps(other_box), (text, other)


def test_settings_stay_as_they_were(curve):
    before = dict(matplotlib.rcParams)
    figures.convergence(curve)
    assert dict(matplotlib.rcParams) == before


def test_figures_of_an_exact_guide_are_drawn(oracle, x):
    """All differences are 0 up to rounding, and one chain or particle has no errors."""
    pair = (oracle.model, oracle.guide)
    exact = pv.annealed_evidence(*pair, x[:1], num_temperatures=2, num_chains=1, **QUIET)
    figure = figures.convergence(pv.convergence(*pair, x[:1], num_particles=1, **QUIET), annealed=exact)
    assert figure.axes[1].texts[0].get_text() == "none above 1e-09"
    for figure in (
        figure,
        figures.annealed(exact),
        figures.bounds(pv.bidirectional(*pair, x, num_data=1, num_temperatures=2, num_chains=1, **QUIET)),
        figures.gaps(pv.gaps(*pair, x, num_particles=1, num_steps=1, families=[], **QUIET)),
        figures.calibration(pv.calibrate(*pair, x, num_simulations=1, num_draws=1, num_particles=1, **QUIET)),
        figures.predictive_check(pv.predictive_check(*pair, x[:1], num_draws=1, **QUIET)),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------- evidence


def whiskers(container):
    """(C, 2): both ends of each whisker of an errorbar."""
    (lines,) = container.lines[2]
    vertical = container.has_yerr
    return np.array([segment[:, int(vertical)] for segment in lines.get_segments()])


def infinite(record, name):
    return replace(record, **{name: torch.full_like(getattr(record, name), -math.inf)})


class TestConvergence:
    def test_curve_and_jackknife(self, curve):
        (axes,) = figures.convergence(curve).axes
        raw, jackknife = axes.lines
        np.testing.assert_allclose(raw.get_xdata(), [1, 10, 100, 200])
        np.testing.assert_allclose(raw.get_ydata(), curve.log_evidence.mean(1))
        np.testing.assert_allclose(jackknife.get_ydata(), curve.jackknife.mean(1))
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["importance sampling ± 2 MC SE", "jackknife-corrected"]
        assert axes.get_title().startswith("user's tensor\nN = 12; k-hat bad for ")

    def test_band_is_two_monte_carlo_errors_of_the_mean(self, curve):
        (axes,) = figures.convergence(curve).axes
        edges = axes.collections[0].get_paths()[0].vertices
        se = curve.mc_se.square().sum(1).sqrt() / 12
        for k, mean, error in zip(curve.num_particles, curve.log_evidence.mean(1), se, strict=True):
            y = edges[edges[:, 0] == k, 1]
            assert y.min() == pytest.approx((mean - 2 * error).item())
            assert y.max() == pytest.approx((mean + 2 * error).item())

    def test_annealed_line_and_what_is_lacking(self, curve, annealed):
        left, right = figures.convergence(curve, annealed=annealed).axes
        mean = annealed.log_evidence.mean()
        se = annealed.mc_se_log_evidence.square().sum().sqrt() / 12
        assert left.lines[2].get_ydata()[0] == pytest.approx(mean.item())
        band = left.patches[0]
        assert band.get_y() == pytest.approx((mean - 2 * se).item())
        assert band.get_height() == pytest.approx((4 * se).item())
        lacking = (mean - curve.log_evidence.mean(1)).numpy()
        np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(), lacking[lacking > 0])
        top = whiskers(right.containers[0])[:, 1] - lacking[lacking > 0]
        errors = torch.hypot(curve.mc_se.square().sum(1).sqrt() / 12, se).numpy()
        np.testing.assert_allclose(top, 2 * errors[lacking > 0])

    def test_annealed_evidence_of_other_rows_is_refused(self, curve, annealed, pair, x):
        other = pv.annealed_evidence(*pair, x[:5], num_temperatures=2, num_chains=2, **QUIET)
        with pytest.raises(InputError, match=r"expected the annealed evidence of the same rows, .*: 12 data.*: 5 data"):
            figures.convergence(curve, annealed=other)
        with pytest.raises(InputError, match="measure both on the same data"):
            figures.convergence(curve, annealed=replace(annealed, protocol=None))

    def test_what_cannot_be_drawn_is_refused(self, curve, annealed):
        with pytest.raises(InputError, match="this convergence: log_evidence is not finite for all data"):
            figures.convergence(infinite(curve, "log_evidence"))
        with pytest.raises(InputError, match="the annealed evidence: log_evidence is not finite"):
            figures.convergence(curve, annealed=infinite(annealed, "log_evidence"))
        with pytest.raises(InputError, match="the annealed evidence: log_evidence is not finite"):
            figures.annealed(infinite(annealed, "log_evidence"))

    def test_differences_that_are_not_above_zero_are_arrows(self):
        _, (axes,) = helpers.new_figure(4, 3)
        draw_positive(axes, np.array([1, 2, 3]), np.array([1.0, 0.5, -0.1]), np.array([0.1, 0.6, 0.11]))
        (container,) = axes.containers
        assert container.lines[0].get_xydata().tolist() == [[1.0, 1.0], [2.0, 0.5]]
        low, high = whiskers(container).T
        assert high.tolist() == pytest.approx([1.1, 1.1])
        assert low[0] == pytest.approx(0.9) and 0 < low[1] < axes.get_ylim()[0]  # reaches 0: goes on out of sight
        arrows = axes.lines[-1]
        assert arrows.get_marker() == r"$\downarrow$"
        np.testing.assert_allclose(arrows.get_xydata(), [[3.0, 0.01]])
        assert axes.get_ylim()[0] < 0.01

    def test_annealed_by_itself(self, annealed):
        panels = figures.annealed(annealed).axes
        columns = (annealed.log_evidence, annealed.ess, annealed.acceptance)
        for axes, values in zip(panels, columns, strict=True):
            assert sum(bar.get_height() for bar in axes.patches) == 12
            assert axes.lines[0].get_xdata()[0] == pytest.approx(values.mean().item())
        assert panels[1].get_title() == "chains from the guide\nover T = 4 temperatures"
        rounded = figures.annealed(replace(annealed, ess=torch.full_like(annealed.ess, 4 + 1e-9))).axes[1]
        assert sum(bar.get_height() for bar in rounded.patches) == 12


QUANTITIES = ("upper", "importance", "lower")


class TestBounds:
    def points(self, axes):
        """Quantity -> what is drawn of it: (C, 2) points and (C, 2) ends of whiskers."""
        return {
            quantity: (container.lines[0].get_xydata(), whiskers(container))
            for quantity, container in zip(QUANTITIES, axes.containers, strict=True)
        }

    @pytest.mark.parametrize("known", [True, False])
    def test_means_and_errors_about_a_common_value(self, bounds, oracle, known):
        exact = oracle.log_evidence(bounds[6].data[0])
        figure = figures.bounds(bounds, exact=exact if known else None)
        centre = exact if known else (bounds[6].lower + bounds[6].upper) / 2
        drawn = self.points(figure.axes[0])
        for quantity in QUANTITIES:
            points, ends = drawn[quantity]
            for row, num_temperatures in enumerate((2, 6)):
                values = getattr(bounds[num_temperatures], quantity) - centre
                assert points[row, 0] == pytest.approx(num_temperatures, rel=0.1)
                assert points[row, 1] == pytest.approx(values.mean().item())
                assert ends[row, 1] - ends[row, 0] == pytest.approx(4 * values.std().item() / math.sqrt(10))
        title = "minus the exact value (mean" if known else "minus their middle at T = 6 (mean"
        assert title in figure.axes[0].get_title()

    def test_width(self, bounds):
        axes = figures.bounds(bounds).axes[1]
        mean = np.array([bounds[t].width.mean().item() for t in (2, 6)])
        se = np.array([bounds[t].width.std().item() / math.sqrt(10) for t in (2, 6)])
        drawn = {tuple(point) for line in axes.lines for point in line.get_xydata()}
        shown = np.where(mean > 0, mean, mean + 2 * se)
        assert all(any(np.allclose(point, (t, y)) for point in drawn) for t, y in zip((2, 6), shown, strict=True))
        assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "6"]
        assert f"({mean[1]:.3f}" in axes.get_title().replace("\n", "(").replace("−", "-")

    def test_one_record(self, bounds):
        left, right = figures.bounds(bounds[6]).axes
        centre = (bounds[6].lower + bounds[6].upper) / 2
        for quantity, (points, ends) in self.points(left).items():
            values = getattr(bounds[6], quantity) - centre
            assert points[0, 0] == pytest.approx(values.mean().item())
            assert ends[0, 1] - ends[0, 0] == pytest.approx(4 * values.std().item() / math.sqrt(10))
        assert sum(bar.get_height() for bar in right.patches) == 10
        assert right.lines[0].get_xdata()[0] == pytest.approx(bounds[6].width.mean().item())

    @pytest.mark.parametrize("several", [True, False])
    def test_says_what_it_certifies(self, bounds, several):
        note = figures.bounds(bounds if several else bounds[2])._supxlabel.get_text()
        assert "on data simulated from the model; for real data it is a guess" in note
        assert note.endswith("whiskers: 2 SE over N = 10 simulated data")

    def test_what_cannot_be_drawn_is_refused(self, bounds, oracle):
        with pytest.raises(InputError, match="got an empty one"):
            figures.bounds({})
        with pytest.raises(InputError, match="under its number of temperatures, 6; got 'a'"):
            figures.bounds({"a": bounds[6]})
        with pytest.raises(InputError, match="the bounds at T = 6: upper is not finite"):
            figures.bounds(infinite(bounds[6], "upper"))
        moved = replace(bounds[6], data=(bounds[6].data[0] + 1,))
        with pytest.raises(InputError, match=r"at T = 2 and 6 are of other data, .* the same seed"):
            figures.bounds({2: bounds[2], 6: moved})
        with pytest.raises(InputError, match=r"exact log p\(x\) of 10 data, got shape \(3,\)"):
            figures.bounds(bounds, exact=torch.zeros(3))

    def test_missing_entries_are_the_same_data(self, bounds):
        gone = {t: replace(record, data=(record.data[0].clone().fill_(math.nan),)) for t, record in bounds.items()}
        assert isinstance(figures.bounds(gone), Figure)


# -------------------------------------------------------------------------------------------------- anatomy


class TestGaps:
    def spans(self, figure):
        """gid -> (start, end) of a bar."""
        return {bar.get_gid(): (bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[1].patches}

    def test_bars_run_from_guide_to_evidence(self, gaps):
        wider = replace(gaps, elbo={**gaps.elbo, "guide": gaps.elbo["guide"] - 2})
        spans = self.spans(figures.gaps({"a": gaps, "b": wider}))
        assert len(spans) == 12
        for name, record in {"a": gaps, "b": wider}.items():
            evidence = record.log_evidence.mean().item()
            at = {family: elbo.mean().item() - evidence for family, elbo in record.elbo.items()}
            assert spans[f"{name}/elbo_guide"] == pytest.approx((at["guide"], at["guide"]))
            assert spans[f"{name}/amortization"] == pytest.approx((at["guide"], at["own"]))
            assert spans[f"{name}/approximation"] == pytest.approx((at["own"], 0))
            assert spans[f"{name}/log_evidence"] == (0, 0)
            assert spans[f"{name}/gain_full_covariance"] == pytest.approx((at["own"], at["full covariance"]))
            assert spans[f"{name}/gain_mixture"] == pytest.approx((at["own"], at["mixture"]))

    def test_means_and_errors_are_written(self, gaps):
        texts = {text.get_text() for text in figures.gaps(gaps).axes[2].texts}
        account = gaps.to_dict()
        for name in ("elbo_guide", "amortization", "approximation", "log_evidence", "gain_mixture"):
            values = account[name]
            written = [f"{values['mean']:.3f}", f"{values['mc_se']:.4f}", f"{values['data_se']:.3f}"]
            assert texts >= {number.replace("-", "−") for number in written}, name
        assert any(text.startswith("N = 12, K = 30, k-hat bad for ") for text in texts)

    def test_without_the_guides_own_family_the_gap_is_whole(self, pair, x):
        record = pv.gaps(*pair, x, num_particles=20, num_steps=5, families=["mixture"], **QUIET)
        figure = figures.gaps(record)
        spans = self.spans(figure)
        gap = record.gap["guide"].mean().item()
        assert list(spans) == [
            f"user's tensor/{quantity}" for quantity in ("elbo_guide", "gap", "log_evidence", "gain_mixture")
        ]
        assert spans["user's tensor/gap"] == pytest.approx((-gap, 0))
        gain = record.gain("mixture", over="guide")[0].mean().item()
        assert spans["user's tensor/gain_mixture"] == pytest.approx((-gap, gain - gap))
        assert [text.get_text() for text in figure.axes[0].texts][-1] == "a mixture would buy"

    def test_what_cannot_be_drawn_is_refused(self, gaps):
        with pytest.raises(InputError, match="got an empty one"):
            figures.gaps({})
        impossible = replace(gaps, elbo={**gaps.elbo, "own": gaps.elbo["own"] - math.inf})
        with pytest.raises(InputError, match="gaps 'a': the mean of elbo_own is not finite"):
            figures.gaps({"a": impossible})


class TestAnatomy:
    def spans(self, axes):
        return {bar.get_gid(): (bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches}

    def test_parts_of_the_rate(self, surgery):
        axes = figures.anatomy(surgery).axes[0]
        rate, information, correlation = (
            getattr(surgery, name).mean for name in ("kl_prior", "mutual_information", "total_correlation")
        )
        expected = {
            "kl_prior": (0, rate),
            "mutual_information": (0, information),
            "marginal_kl": (information, rate),
            "total_correlation": (information, information + correlation),
            "dimension_wise_kl": (information + correlation, rate),
        }
        spans = self.spans(axes)
        assert list(spans) == list(expected)
        for name, span in expected.items():
            assert spans[name] == pytest.approx(span, abs=1e-9), name
        assert f"−ELBO = rate {rate:.2f} + distortion {surgery.distortion.mean:.2f}" in axes.get_title()

    def test_ceiling_of_the_mutual_information(self, surgery):
        figure = figures.anatomy(surgery)
        ceiling = figure.axes[0].lines[0]
        assert ceiling.get_xdata() == pytest.approx([math.log(12)] * 2)
        assert "of at most log N = 2.48" in figure.axes[0].texts[1].get_text()
        full = surgery.mutual_information._replace(mean=0.96 * math.log(12))
        reached = figures.anatomy(replace(surgery, mutual_information=full))
        assert reached._supxlabel.get_text().startswith("the mutual information is at its ceiling log N")

    def points(self, axes):
        return {container.get_label(): container.lines[0].get_xydata() for container in axes.containers}

    def test_dimensions_are_sorted_and_told_apart(self, surgery):
        kinds = [(0.5, 0.9, True), (-1e-4, 1e-5, False), (0.2, 1e-3, False), (1.5, 0.8, True)]
        dimensions = tuple(
            surgery.dimensions[0]._replace(
                name=f"z[{i}]",
                kl=surgery.dimensions[0].kl._replace(mean=kl, mc_se=1e-3),
                mean_variance=variance,
                active=active,
            )
            for i, (kl, variance, active) in enumerate(kinds)
        )
        axes = figures.anatomy(replace(surgery, dimensions=dimensions)).axes[1]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["z[3]", "z[0]", "z[2]", "z[1]"]
        points = self.points(axes)
        assert list(points) == ["active: 2", "inactive: 1", "collapsed: 1"]
        assert points["active: 2"].tolist() == [[1, 1.5], [2, 0.5]]
        assert points["inactive: 1"].tolist() == [[3, 0.2]]
        assert points["collapsed: 1"].tolist() == [[4, -1e-4]]
        assert axes.get_title() == "2 of 4 dimensions are active\n(Var E[z_j|x] > 0.01)"
        whole = figures.anatomy(replace(surgery, dimensions=dimensions * 10)).axes[1]
        assert whole.get_xlabel() == "rank of the dimension"

    def test_undivided_pair_says_why(self, undivided):
        figure = figures.anatomy(undivided)
        left, right = figure.axes
        assert list(self.spans(left)) == ["kl_prior", "mutual_information", "marginal_kl"]
        assert undivided.reason in figure._supxlabel.get_text()
        assert right.get_ylabel() == "Var E[z_j|x]"
        variances = sorted((d.mean_variance for d in undivided.dimensions), reverse=True)
        np.testing.assert_allclose(self.points(right)["active: 2"][:, 1], variances)


# ---------------------------------------------------------------------------------------------- calibration


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


class TestCalibration:
    def test_curves_and_band(self, calibration):
        panels = figures.calibration(calibration).axes
        for axes, test in zip(panels, (calibration.guide, calibration.resampled), strict=True):
            curves = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 21]
            assert len(curves) == len(test.names)
            for d, curve in enumerate(curves):
                np.testing.assert_allclose(curve[1:-1, 0], test.grid)
                np.testing.assert_allclose(curve[1:-1, 1], test.ecdf[:, d] - test.grid)
                assert curve[[0, -1]].tolist() == [[0, 0], [1, 0]]
            edges = axes.collections[0].get_paths()[0].vertices
            for point, low, high in zip(test.grid, test.low, test.high, strict=True):
                y = edges[np.isclose(edges[:, 0], point), 1]
                assert y.min() == pytest.approx((low - point).item())
                assert y.max() == pytest.approx((high - point).item())

    def test_what_leaves_the_band_is_named_and_judged(self, calibration):
        axes = figures.calibration(calibration).axes[0]
        verdicts = calibration.guide.verdicts
        assert len(verdicts) == 3  # a guide of half the width
        assert legend_texts(axes) == [f"{name}: {verdict}" for name, verdict in verdicts.items()]
        assert axes.get_title() == "draws of the guide\np = 0.001, 3 of 3 outside"
        for d, (line, dots) in enumerate(zip(axes.lines[1::2], axes.lines[2::2], strict=True)):
            test = calibration.guide
            outside = (test.ecdf[:, d] < test.low) | (test.ecdf[:, d] > test.high)
            np.testing.assert_allclose(dots.get_xdata(), test.grid[outside])
            assert outside.any() and dots.get_color() == line.get_color()

    def test_a_calibrated_guide_is_grey(self, calibration):
        fine = replace(calibration.guide, threshold=0.0)
        figure = figures.calibration(replace(calibration, guide=fine, resampled=fine))
        assert all(line.get_color() == helpers.QUIET for axes in figure.axes for line in axes.lines)
        assert figure.axes[0].get_legend() is None

    def test_a_quantity_has_one_colour_in_both_panels(self, calibration):
        test = replace(calibration.guide, threshold=1e-6)
        first, second = (
            replace(test, gamma=torch.tensor(gamma, dtype=torch.float64))
            for gamma in ([3e-9, 2e-9, 1e-9], [1e-12, 5e-9, 5e-9])
        )
        panels = figures.calibration(replace(calibration, guide=first, resampled=second)).axes
        for axes in panels:
            colours = [line.get_color() for line in axes.lines[1::2]]
            assert colours == ["#3f90da", "#bd1f01", "#ffa90e"]  # the worst in either panel comes first

    def test_at_most_eight_are_named(self, calibration):
        test = calibration.guide
        columns = {name: torch.cat([getattr(test, name)] * 4, -1) for name in ("ranks", "gamma", "p_values")}
        wide = replace(test, names=tuple(f"z[{i}]" for i in range(12)), **columns)
        axes = figures.calibration(replace(calibration, guide=wide, resampled=wide)).axes[0]
        assert len(legend_texts(axes)) == 9 and legend_texts(axes)[-1] == "and 4 more"


# ---------------------------------------------------------------------------------------------- the posterior


class TestPosteriorOfOne:
    def test_contours_hold_their_share_of_the_mass(self, plane):
        (axes,) = figures.posterior_of_one(plane).axes
        (contours,) = [c for c in axes.collections if hasattr(c, "levels")]
        draws = plane.values["z"].flatten(0, 1).numpy()
        for path, share in zip(contours.get_paths(), (0.99, 0.9, 0.5), strict=True):
            inside = path.contains_points(draws).mean()
            assert inside == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))  # 4 s.e. of 2000 draws

    def test_guide_is_drawn_over_it(self, plane):
        (axes,) = figures.posterior_of_one(plane).axes
        points = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets()) > 1])
        np.testing.assert_allclose(points, plane.guide_values["z"])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", "z[1]")

    def test_without_a_grid_both_are_draws(self, oracle):
        record = posterior(oracle, 1.2, 0.0, method="resampled", num_draws=100, num_particles=500)
        (axes,) = figures.posterior_of_one(record).axes
        drawn = [np.asarray(c.get_offsets()) for c in axes.collections]
        np.testing.assert_allclose(drawn[0], record.values["z"][0])
        np.testing.assert_allclose(drawn[1], record.guide_values["z"])

    def test_title_names_method_diagnostics_and_evidence(self, plane):
        title = figures.posterior_of_one(plane)._suptitle.get_text()
        assert title.startswith("user's tensor: the posterior of one datum, method grid; log p(x) = −")
        assert f"{plane.log_evidence.value:.4f}".replace("-", "−") in title
        assert plane.diagnostics.lines()[0] in title and "the guide's sd is 0." in title

    def test_density_of_one_coordinate(self, line):
        (axes,) = figures.posterior_of_one(line).axes
        z, density = axes.lines[0].get_data()
        assert np.trapezoid(density, z) == pytest.approx(1, abs=1e-6)
        assert np.trapezoid(density * z, z) == pytest.approx(line.moments.mean["z"].item(), abs=1e-6)
        assert {patch.get_label() for patch in axes.patches} >= {"guide, draws"}

    def test_of_many_coordinates_the_six_that_differ_most(self, many):
        moved = {"z": many.guide_values["z"].clone()}
        moved["z"][:, [1, 3, 4, 5, 6, 8]] += 100.0
        panels = figures.posterior_of_one(replace(many, guide_values=moved)).axes
        assert [axes.get_xlabel() for axes in panels] == [f"z[{i}]" for i in (1, 3, 4, 5, 6, 8)]
        assert panels[0].get_ylabel() == "density (6 of 9 coordinates)"

    def test_marginals_are_densities_of_the_draws(self, many):
        for axes in figures.posterior_of_one(many).axes:
            column = int(axes.get_xlabel()[2:-1])
            exact, guide = (
                patch for patch in axes.patches if patch.get_label() in ("posterior, draws", "guide, draws")
            )
            for patch, draws in ((exact, many.values["z"][0]), (guide, many.guide_values["z"])):
                values, edges, _ = patch.get_data()
                np.testing.assert_allclose(values, np.histogram(draws[:, column], edges, density=True)[0])
                assert (values * np.diff(edges)).sum() == pytest.approx(1)

    def test_doubts_stand_below_in_red(self, many, plane):
        (legend,) = figures.posterior_of_one(many).legends
        assert "the Pareto k-hat of the weights is" in legend.get_title().get_text()
        assert to_hex(legend.get_title().get_color()) == helpers.RED
        (fine,) = figures.posterior_of_one(plane).legends
        assert fine.get_title().get_text() == ""

    def test_classes_are_counted_one_by_one(self):
        record = posterior(pv.oracles.bernoulli_mixture(4, 3), 0.5, 0.0, num_draws=200)
        (axes,) = figures.posterior_of_one(record).axes
        exact = next(patch for patch in axes.patches if patch.get_label() == "posterior, draws")
        values, edges, _ = exact.get_data()
        centres = (edges[1:] + edges[:-1]) / 2
        assert set(centres) <= {0.0, 1.0, 2.0}
        np.testing.assert_allclose(values, [(record.values["k"] == k).double().mean() for k in centres])
        assert axes.get_ylabel() == "probability"


# ------------------------------------------------------------------------------------------- predictive checks


def ecdf_minus_uniform(values, points):
    return [(values[~values.isnan()] <= point).double().mean().item() - point for point in points]


class TestPredictiveCheck:
    def test_pit_of_every_coordinate_and_pooled(self, check):
        axes = figures.predictive_check(check).axes[0]
        pooled = next(line for line in axes.lines if line.get_label() == "all coordinates pooled")
        np.testing.assert_allclose(pooled.get_ydata(), ecdf_minus_uniform(check.pit, pooled.get_xdata()), atol=1e-12)
        curves = [segment for drawn in axes.collections for segment in drawn.get_segments()]
        assert len(curves) == 6
        for d in range(6):
            expected = ecdf_minus_uniform(check.pit[:, d], pooled.get_xdata())
            assert any(np.allclose(curve[:, 1], expected, atol=1e-12) for curve in curves)

    def test_coordinates_beyond_their_band_are_red(self, check):
        p_value = torch.tensor([0.01, 0.2, 0.04, 0.3, 1.0, 0.06], dtype=torch.float64)
        axes = figures.predictive_check(replace(check, ks_p_value=p_value)).axes[0]
        counts = {drawn.get_label(): len(drawn.get_segments()) for drawn in axes.collections}
        assert counts == {"within its band": 4, "beyond it": 2}
        assert axes.get_title() == "PIT: p = 0.06 after Bonferroni\n33% of 6 coordinates beyond their band"
        band = axes.patches[0]
        assert band.get_height() == pytest.approx(2 * math.sqrt(math.log(40) / 24))

    def test_masked_values_are_left_out(self, check):
        pit = check.pit.clone()
        pit[::2, 0] = math.nan
        axes = figures.predictive_check(replace(check, pit=pit)).axes[0]
        pooled = next(line for line in axes.lines if line.get_label() == "all coordinates pooled")
        np.testing.assert_allclose(pooled.get_ydata(), ecdf_minus_uniform(pit, pooled.get_xdata()), atol=1e-12)
        assert pooled.get_ydata()[-1] == 0

    def test_statistics_observed_among_replicated(self, check):
        panels = figures.predictive_check(check).axes[1:]
        for axes, (name, one) in zip(panels, check.statistics.items(), strict=True):
            assert axes.lines[0].get_xdata()[0] == pytest.approx(one.observed.mean().item())
            assert sum(bar.get_height() for bar in axes.patches) == 80
            p = [one.prior.data_set_p_value, one.posterior.data_set_p_value]
            marks = ["*" if value < 0.025 or value > 0.975 else "" for value in p]
            assert axes.get_title() == f"{name}\np = {p[0]:.3f}{marks[0]} prior, {p[1]:.3f}{marks[1]} posterior"
        assert any("*" in axes.get_title() for axes in panels)

    @pytest.mark.parametrize("count", [1, 3, 5])
    def test_any_number_of_statistics(self, check, count):
        one = next(iter(check.statistics.values()))
        figure = figures.predictive_check(replace(check, statistics={f"$t{i}": one for i in range(count)}))
        assert len(figure.axes) == 1 + count
        for (text, box), (other, other_box) in itertools.combinations(boxes(figure), 2):
            assert not box.overlaps(other_box), (text, other)
