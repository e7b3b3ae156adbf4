"""How the evidence is approached: curves, bounds and their widths, read back from the artists."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples.drawing import QUIET, infinite, whiskers
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures import style as helpers
from pyrovae.reports.figures.bounds import draw_positive


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
