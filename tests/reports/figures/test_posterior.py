"""One posterior and its guide: contours, points and marginals, read back from the artists."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples.drawing import posterior
from matplotlib.colors import to_hex

import pyrovae as pv
from pyrovae.reports import figures
from pyrovae.reports.figures import style as helpers


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


class TestCompleted:
    def test_columns_show_draws_beside_what_was_observed(self, tmp_path):
        oracle = pv.oracles.ppca(4, 1)
        x, _ = oracle.draw(200, seed=0)
        x[:50, 1], x[:, 3], x[:2, 0] = math.nan, math.nan, math.nan
        record = pv.conditional(oracle.model, oracle.guide, x, num_draws=20, num_particles=200, progress=False)
        figure = figures.draw(record, names=["a", "b", "c", "d"])
        assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b", "d"]
        titles = [axes.get_title() for axes in figure.axes]
        assert titles == ["2 of 200 missing", "50 of 200 missing", "200 of 200 missing"]
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["observed", "draws of what is missing"]
        observed, drawn = (patch.get_data() for patch in figure.axes[1].patches[1::2])
        for (heights, edges, _), values in ((observed, x[50:, 1]), (drawn, record.draws[:, :50, 1].flatten())):
            np.testing.assert_allclose(heights, np.histogram(values, edges, density=True)[0])
        assert len(figure.axes[2].patches) == 2  # nothing was observed
        assert [axes.get_xlabel() for axes in figures.completed_columns(record, most=1).axes] == ["column 4"]

    def test_what_cannot_be_drawn_is_refused(self):
        oracle = pv.oracles.ppca(4, 1)
        x, _ = oracle.draw(5, seed=0)
        record = pv.conditional(oracle.model, oracle.guide, x, num_draws=2, num_particles=30, progress=False)
        with pytest.raises(pv.InputError, match="nothing is missing"):
            figures.draw(record)
        with pytest.raises(pv.InputError, match="expected one for each of 4 columns, got 1"):
            figures.draw(record, names=["a"])


def test_information_is_drawn_with_its_errors_the_most_first():
    oracle = pv.oracles.missing_entries(4, 1)
    how = {"num_draws": 20, "num_particles": 50, "method": "importance", "progress": False}
    names = ["one", "two", "three", "four"]
    x = torch.zeros(1, 4).double()
    record = pv.information(oracle.complete.model, oracle.guide, x, about="four", names=names, **how)
    (axes,) = figures.draw(record).axes
    found = record.numbers()["candidates"]
    ranked = sorted(found, key=lambda name: -found[name]["mean"])
    assert [label.get_text() for label in axes.get_yticklabels()] == ranked
    bars, errors = [bar.get_width() for bar in axes.patches], axes.collections[0].get_segments()
    assert bars == pytest.approx([found[name]["mean"] for name in ranked])
    assert [end[0] - start[0] for start, end in errors] == pytest.approx([4 * found[name]["mc_se"] for name in ranked])
    assert axes.get_xlabel() == "nats about four, 2 MC SE"
