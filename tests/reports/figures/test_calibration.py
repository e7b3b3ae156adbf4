"""Ranks of true latents and replicated data: curves, bands and verdicts, read back from the artists."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples.drawing import boxes

from pyrovae.reports import figures
from pyrovae.reports.figures import style as helpers


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
