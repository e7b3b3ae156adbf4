"""The gap and the KL to the prior taken apart: bars, numbers and dimensions, read back from the artists."""

import math
from dataclasses import replace

import numpy as np
import pytest
from examples.drawing import QUIET

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures


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
        return {bar.get_gid().split("/")[-1]: (bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches}

    def test_parts_of_the_rate(self, surgery):
        axes = figures.anatomy(surgery).axes[1]
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

    def test_means_and_errors_are_written(self, surgery):
        texts = {text.get_text() for text in figures.anatomy(surgery).axes[2].texts}
        for name in ("kl_prior", "mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl"):
            estimate = getattr(surgery, name)
            assert texts >= {f"{estimate.mean:.2f}".replace("-", "−"), f"{estimate.mc_se:.3f}"}, name

    def test_ceiling_of_the_mutual_information(self, surgery):
        figure = figures.anatomy(surgery)
        (ceiling,) = [line for line in figure.axes[1].lines if line.get_linestyle() == "--"]
        assert ceiling.get_xdata() == pytest.approx([math.log(12)] * 2)
        assert figure.axes[1].get_xlim()[1] > math.log(12)
        assert any("at most log N = 2.48" in text.get_text() for text in figure.axes[2].texts)
        full = surgery.mutual_information._replace(mean=0.96 * math.log(12))
        reached = figures.anatomy(replace(surgery, mutual_information=full))
        assert reached._supxlabel.get_text().startswith("hatched: the mutual information is at its ceiling log N")
        hatched = {bar.get_gid().partition("/")[2] for bar in reached.axes[1].patches if bar.get_hatch()}
        assert hatched == {"mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl"}
        assert not any(bar.get_hatch() for bar in figure.axes[1].patches)

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
        axes = figures.anatomy(replace(surgery, dimensions=dimensions)).axes[3]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["z[3]", "z[0]", "z[2]", "z[1]"]
        points = self.points(axes)
        assert list(points) == ["active: 2", "inactive: 1", "collapsed: 1"]
        assert points["active: 2"].tolist() == [[1, 1.5], [2, 0.5]]
        assert points["inactive: 1"].tolist() == [[3, 0.2]]
        assert points["collapsed: 1"].tolist() == [[4, -1e-4]]
        assert axes.get_title() == "2 of 4 dimensions are active\n(Var E[z_j|x] > 0.01)"
        whole = figures.anatomy(replace(surgery, dimensions=dimensions * 10)).axes[3]
        assert whole.get_xlabel() == "rank of the dimension"

    def test_undivided_pair_says_why(self, undivided):
        figure = figures.anatomy(undivided)
        _, left, _, right = figure.axes
        assert list(self.spans(left)) == ["kl_prior", "mutual_information", "marginal_kl"]
        assert undivided.reason in figure._supxlabel.get_text()
        assert right.get_ylabel() == "Var E[z_j|x]"
        variances = sorted((d.mean_variance for d in undivided.dimensions), reverse=True)
        np.testing.assert_allclose(self.points(right)["active: 2"][:, 1], variances)
