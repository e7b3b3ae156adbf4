"""A report's account and its per-datum evidence, and comparisons: read back from the artists."""

import math
from dataclasses import replace

import pytest
import torch
from examples.drawing import text_boxes

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures

SUMS = ("reconstruction", "elbo", "log_evidence")


def changed(report, **columns):
    """The report with other columns."""
    return replace(report, columns=report.columns | columns)


class TestAccount:
    def spans(self, figure):
        """gid -> (start, end) of a bar."""
        return {bar.get_gid(): (bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[1].patches}

    def test_bars_end_at_the_means(self, every, reports):
        spans = self.spans(every["account"])
        assert len(spans) == 5 * len(reports)
        for name, report in reports.items():
            reconstruction, elbo, evidence = (
                getattr(report, quantity).mean().item() for quantity in ("reconstruction", "elbo", "log_evidence")
            )
            assert spans[f"{name}/reconstruction"] == pytest.approx((0, reconstruction))
            assert spans[f"{name}/kl_prior"] == pytest.approx((reconstruction, elbo))
            assert spans[f"{name}/elbo"] == pytest.approx((0, elbo))
            assert spans[f"{name}/kl_posterior"] == pytest.approx((elbo, evidence))
            assert spans[f"{name}/log_evidence"] == pytest.approx((0, evidence))

    def test_means_and_errors_are_written(self, reports):
        report = reports["2 latents"]
        texts = {text.get_text() for text in figures.account(report).axes[2].texts}
        for name, values in report.to_dict().items():
            if name in ("reconstruction", "elbo", "log_evidence", "kl_prior", "kl_posterior"):
                written = [f"{values['mean']:.2f}", f"{values['mc_se']:.4f}", f"{values['data_se']:.2f}"]
                assert texts >= {number.replace("-", "−") for number in written}

    def test_numbers_do_not_overlap(self, reports):
        far = changed(reports["2 latents"], **{n: getattr(reports["2 latents"], n) - 4000 for n in SUMS})
        boxes = text_boxes(figures.account({"a": far, "a much longer name": far}))
        for i, (text, box) in enumerate(boxes):
            assert not any(box.overlaps(other) for _, other in boxes[i + 1 :]), text

    def test_zero_is_in_sight_or_said_to_be_cut(self, reports):
        report = changed(reports["2 latents"], **{n: getattr(reports["2 latents"], n) - 4000 for n in SUMS})
        bars = figures.account(report).axes[1]
        assert bars.get_xlim()[1] < 0 and "beyond the right edge" in bars.get_xlabel()
        up = changed(report, **{n: getattr(report, n) + 9000 for n in SUMS})
        assert "beyond the left edge" in figures.account(up).axes[1].get_xlabel()
        oracle = pv.oracles.ppca(5, 2)
        x, _ = oracle.draw(20, seed=0)
        exact = pv.evaluate(oracle.model, oracle.guide, x, num_particles=50, progress=False)
        near = figures.account(exact).axes[1]
        assert near.get_xlim()[1] > 0 and near.get_xlabel() == "nats per datum"

    def test_one_report_is_headed_by_its_data(self, reports):
        assert figures.account(reports["2 latents"]).axes[0].texts[0].get_text() == "digits test"

    def test_one_particle_has_no_errors(self, fits, digits):
        report = pv.evaluate(fits[2].model, fits[2].guide, digits.test[:5], num_particles=1, progress=False)
        assert "–" in {text.get_text() for text in figures.account(report).axes[2].texts}

    def test_what_cannot_be_drawn_is_refused(self, reports):
        report = reports["2 latents"]
        with pytest.raises(InputError, match="got an empty one"):
            figures.account({})
        impossible = changed(report, log_evidence=torch.full_like(report.log_evidence, -math.inf))
        with pytest.raises(InputError, match="report 'a': the mean of log_evidence is not finite"):
            figures.account({"a": impossible})


class TestReports:
    def test_evidence_histogram(self, reports):
        report = reports["2 latents"]
        left, right = figures.evidence_histogram(report).axes
        assert sum(bar.get_height() for bar in left.patches) == len(report)
        assert left.lines[0].get_xdata()[0] == pytest.approx(report.log_evidence.mean().item())
        assert right.get_title().startswith(f"k-hat above {pv.estimators.pareto_k_threshold(50):.2f}: ")

    def test_exact_and_undefined_are_counted(self, reports):
        report = reports["2 latents"]
        k = torch.tensor([-math.inf] * 3 + [math.nan] * 2 + [0.1] * 35, dtype=torch.float64)
        right = figures.evidence_histogram(changed(report, pareto_k=k)).axes[1]
        assert right.get_title().endswith(": 0 of 40\n3 exact, 2 undefined")
        none = figures.evidence_histogram(changed(report, pareto_k=torch.full_like(k, math.nan))).axes[1]
        assert none.texts[0].get_text() == "no finite k-hat"

    def test_comparison(self, every, reports):
        table = pv.compare(reports)
        (axes,) = every["comparison"].axes
        assert [label.get_text() for label in axes.get_yticklabels()] == [row.name for row in table.rows]
        whiskers = [container.lines[2][0].get_segments()[0][:, 0] for container in axes.containers]
        for row, (low, high) in zip(table.rows, whiskers, strict=True):
            assert (low + high) / 2 == pytest.approx(row.difference)
            assert high - low == pytest.approx(4 * row.difference_se)

    def test_over_seeds(self, reports):
        table = pv.compare_seeds({name: [report, report] for name, report in reports.items()})
        (axes,) = figures.draw(table).axes
        assert [label.get_text() for label in axes.get_yticklabels()] == table.row_names()
        dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        assert [tuple(xs) for xs in dots] == [table.by_seed[name] for name in table.row_names()]
        means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
        assert means == pytest.approx([row.log_evidence for row in table.rows])
        assert axes.texts[0].get_text() == "highest"

    def test_a_comparison_tells_what_casts_doubt(self, reports, tmp_path):
        healthy = {name: changed(r, pareto_k=torch.zeros(len(r)).double()) for name, r in reports.items()}
        bad = torch.where(torch.arange(40) < 39, 2.0, 0.0).double()
        doubtful = healthy | {"1 latents": changed(reports["1 latents"], pareto_k=bad)}
        clean, told = (pv.compare(named) for named in (healthy, doubtful))
        figure = figures.comparison(told)
        texts = {row.name: text.get_text() for row, text in zip(told.rows, figure.axes[0].texts, strict=True)}
        assert {name for name, text in texts.items() if "unreliable 98%" in text} == {"1 latents"}
        assert figure.get_supxlabel() == "\n".join(told.warnings()) != ""
        assert figures.comparison(clean).get_supxlabel() == ""
        assert not any("k-hat" in text.get_text() for text in figures.comparison(clean).axes[0].texts)
        width, _ = figure.canvas.get_width_height()
        for box in (figure._supxlabel.get_window_extent(), *(box for _, box in text_boxes(figure))):
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1

    def test_the_account_of_a_mixture_says_so(self, reports):
        report = reports["2 latents"]
        texts = [
            [t.get_text() for t in figures.account(r).axes[0].texts] for r in (report, replace(report, defensive=0.1))
        ]
        assert "= ELBO of the mixture" not in texts[0] and "= ELBO of the mixture" in texts[1]
        assert "+ KL(mixture ‖ posterior)" in texts[1] and not any("q" in text for text in texts[1][2:])


def test_routes_start_short_and_end_at_the_evidence():
    oracle = pv.oracles.ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(60, seed=1)
    report = pv.evaluate(oracle.model, oracle.mean_field_guide(0.6), x, progress=False)
    figure = figures.routes(report)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    taken = {name: found for name, found in report.routes().items() if name != "encoder"}
    assert [label.split(":")[0] for label in labels] == list(taken)
    lines = [line for line in axes.lines if line.get_label() in labels]
    for line, (name, found) in zip(lines, taken.items(), strict=True):
        short = report.log_evidence - report.columns["log_evidence_importance"]
        of_route = short[torch.tensor([route == name for route in report.route])]
        assert line.get_xdata().tolist() == [1000, found["cost"]]
        assert line.get_ydata().tolist() == pytest.approx([float(of_route.quantile(0.5)), 0.0])
    exact = pv.evaluate(oracle.model, oracle.guide, x, progress=False)
    with pytest.raises(InputError, match="all data stayed at the encoder"):
        figures.routes(exact)
    with pytest.raises(InputError, match=r"those of a report of evaluate\(\); Comparison goes to figures.draw"):
        figures.routes(pv.compare({"mean field": report, "exact": exact}))
