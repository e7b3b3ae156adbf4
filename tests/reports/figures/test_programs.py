"""Figures show what they are given: geometry and labels are read back from the artists."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.records import with_columns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures import images
from pyrovae.reports.figures import style as helpers


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


@pytest.fixture(scope="module")
def fits(digits):
    """Number of latents -> a fit of two epochs."""

    def fit(num_latents):
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(num_latents),
            decoder=pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(num_latents, 20, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(digits.shape, 20, seed=1)),
        )
        return pv.fit(vae.model, vae.guide, digits.train[:200], valid=digits.valid[:50], epochs=2, progress=False)

    return {num_latents: fit(num_latents) for num_latents in (1, 2, 4)}


@pytest.fixture(scope="module")
def reports(fits, digits):
    return {
        f"{num_latents} latents": pv.evaluate(fit.model, fit.guide, digits.test[:40], num_particles=50, progress=False)
        for num_latents, fit in fits.items()
    }


@pytest.fixture(scope="module")
def every(fits, reports, digits):
    """Every figure once."""
    fit, test = fits[2], digits.test[:30]
    pair = (fit.model, fit.guide, test)
    return {
        "training_curves": figures.training_curves(fit.history),
        "reconstructions": figures.reconstructions(*pair),
        "prior_samples": figures.prior_samples(fit.model, test, num=10),
        "latent_means": figures.latent_means(*pair),
        "manifold": figures.manifold(fit.model, test, num=5),
        "interpolation": figures.interpolation(*pair, pairs=2, steps=3),
        "account": figures.account(reports),
        "evidence_histogram": figures.evidence_histogram(reports["2 latents"]),
        "comparison": figures.comparison(pv.compare(reports)),
    }


NAMES = (
    "training_curves",
    "reconstructions",
    "prior_samples",
    "latent_means",
    "manifold",
    "interpolation",
    "account",
    "evidence_histogram",
    "comparison",
)


def text_boxes(figure):
    """The texts written into the axes and where they stand, in pixels."""
    figure.canvas.draw()
    return [(text.get_text(), text.get_window_extent()) for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_is_a_figure_on_its_own_canvas(self, every, name):
        assert isinstance(every[name], Figure)
        assert isinstance(every[name].canvas, FigureCanvasAgg)

    def test_notebooks_show_it(self, every, name):
        assert every[name]._repr_png_().startswith(b"\x89PNG")

    def test_nothing_is_cut_off(self, every, name):
        boxes = [box for _, box in text_boxes(every[name])]
        drawn = every[name].get_tightbbox().transformed(matplotlib.transforms.Affine2D().scale(every[name].dpi))
        width, height = every[name].canvas.get_width_height()
        for box in [drawn, *boxes]:
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1


def test_settings_stay_as_they_were(fits):
    before = dict(matplotlib.rcParams)
    figures.training_curves(fits[1].history)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("module", ["pyrovae.reports.figures", "pyrovae.posteriors.draws"])
def test_pyplot_is_never_imported(module):
    draw = (
        f"import sys, {module}; from pyrovae import figures;"
        "row = dict(epoch=1, elbo=-3., reconstruction=-2., kl_prior=1.);"
        "figures.training_curves([row])._repr_png_();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    assert subprocess.run([sys.executable, "-c", draw], env=environment, timeout=120).returncode == 0


class TestTrainingCurves:
    def row(self, epoch, **more):
        return {"epoch": epoch, "elbo": -100.0 - 1000 / epoch**3, "reconstruction": -90.0, "kl_prior": 10.0, **more}

    def labels(self, axes):
        return [line.get_label() for line in axes.lines]

    def test_training_and_validation(self, fits):
        figure = figures.training_curves(fits[2].history)
        assert [axes.get_title() for axes in figure.axes] == ["ELBO", "reconstruction", "KL(q ‖ prior)"]
        assert [self.labels(axes) for axes in figure.axes] == [["training", "validation"]] * 3
        drawn = figure.axes[0].lines[1].get_ydata()
        assert list(drawn) == [row["valid_elbo"] for row in fits[2].history]

    def test_objective_and_best_epoch_where_there_are_any(self):
        history = [self.row(epoch, objective=-80.0) for epoch in range(1, 6)]
        figure = figures.training_curves(history, best_epoch=4)
        assert self.labels(figure.axes[0]) == ["training", "objective", "best epoch, 4"]
        assert self.labels(figure.axes[1]) == ["training", "best epoch, 4"]

    def test_objective_that_is_the_elbo_is_not_drawn(self):
        history = [{**self.row(epoch), "objective": self.row(epoch)["elbo"]} for epoch in range(1, 6)]
        assert self.labels(figures.training_curves(history).axes[0]) == ["training"]

    def test_axes_fit_the_later_epochs_and_say_so(self):
        history = [self.row(epoch) for epoch in range(1, 51)]
        axes = figures.training_curves(history).axes[0]
        low, high = axes.get_ylim()
        assert history[4]["elbo"] < low < history[5]["elbo"] < history[-1]["elbo"] < high
        assert axes.get_ylabel() == "nats per datum\n(axes fit epochs 6 to 50)"

    def test_no_epochs_are_refused(self):
        with pytest.raises(InputError, match="at least one epoch"):
            figures.training_curves([])


class TestImages:
    def test_reconstructions(self, every):
        (axes,) = every["reconstructions"].axes
        assert len(axes.images) == 1
        assert axes.images[0].get_extent() == [0, 10, 2, 0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["data", "mean of p(x|z)"]

    def test_prior_samples(self, every, fits, digits):
        assert every["prior_samples"].axes[0].images[0].get_extent() == [0, 4, 3, 0]
        draws = figures.prior_samples(fits[2].model, digits.test, num=4, draws=True)
        assert draws.axes[0].get_title().startswith("draws")

    def test_manifold_places_z(self, fits, digits):
        figure = figures.manifold(fits[2].model, digits.test, num=3)
        (axes,) = figure.axes
        assert [label.get_text() for label in axes.get_xticklabels()] == ["−2.05", "0.00", "2.05"]
        assert list(axes.get_yticks()) == [2.5, 1.5, 0.5]  # rows count downwards, z[1] upwards
        low_right = pv.decode(fits[2].model, digits.test, {"z": torch.tensor([[2.05, -2.05]])})
        shown = axes.images[0].get_array()
        size, scale = len(shown) // 3, (len(shown) // 3 - 2) // 8
        tile = shown[2 * size + 1 : 3 * size - 1 : scale, 2 * size + 1 : 3 * size - 1 : scale, 0]
        mean = low_right.means["x"][0]
        assert np.corrcoef(tile.ravel(), -mean.flatten().numpy())[0, 1] > 0.9999

    def test_interpolation(self, every):
        (axes,) = every["interpolation"].axes
        assert len(axes.images) == 3
        assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "0", "0.5", "1", "x′"]

    def test_colour_images(self):
        shape = (3, 6, 8)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            decoder=pv.Conditional(pv.families.normal(scale=1.0), shape, pv.networks.mlp(2, 5, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(shape, 5, seed=1)),
        )
        red = torch.zeros(2, *shape)
        red[:, 0] = 1.0
        shown = figures.reconstructions(vae.model, vae.guide, red).axes[0].images[0].get_array()
        assert shown[1, 1].tolist() == [1.0, 0.0, 0.0]

    def test_ink_is_dark_and_missing_pixels_show(self):
        image = torch.tensor([[0.0, 16.0], [8.0, math.nan]])[None, None]
        _, axes = images.grid_figure(image)
        images.show_grid(axes, image, images.range_of(image))
        shown = axes.images[0].get_array()
        corners = [shown[1, 1], shown[1, -2], shown[-2, 1]]
        assert [corner.tolist() for corner in corners] == [[1.0] * 3, [0.0] * 3, [0.5] * 3]
        assert shown[-2, -2].tolist() == pytest.approx(matplotlib.colors.to_rgb(helpers.MISSING))

    def test_data_that_are_no_images_are_refused(self):
        oracle = pv.oracles.ppca(5, 2)
        x, _ = oracle.draw(6, seed=0)
        with pytest.raises(InputError, match=r"expected images, \(H, W\) or .* site 'x' has shape \(5,\)"):
            figures.reconstructions(oracle.model, oracle.guide, x)
        with pytest.raises(InputError, match="expected images"):
            figures.manifold(oracle.model, x)
        with pytest.raises(InputError, match="expected images"):
            figures.interpolation(oracle.model, oracle.guide, x)

    def test_unknown_site_is_refused(self, fits, digits):
        with pytest.raises(InputError, match="site 'y' is not observed in the model"):
            figures.prior_samples(fits[2].model, digits.test, site="y")

    def test_several_image_sites_must_be_named(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))[..., None, None]
                for name in ("left", "right"):
                    pyro.sample(name, dist.Normal(z.expand(-1, 3, 3), 1.0).to_event(2), obs=x)

        x = torch.zeros(2, 3, 3)
        with pytest.raises(InputError, match=r"several observed sites hold images, .* with site="):
            figures.prior_samples(model, x)
        assert isinstance(figures.prior_samples(model, x, num=2, site="left"), Figure)

    def test_manifold_needs_a_plane(self, fits, digits):
        with pytest.raises(InputError, match=r"one latent site of event shape \(2,\), got .*'z': \(4,\)"):
            figures.manifold(fits[4].model, digits.test)

    def test_a_line_needs_two_data(self, fits, digits):
        with pytest.raises(InputError, match="a line needs two data and two steps, got 1 data"):
            figures.interpolation(fits[2].model, fits[2].guide, digits.test[:1])


class TestLatentMeans:
    def test_two_latents_stand_where_they_are(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test[:30]).axes[0]
        drawn = np.concatenate([points.get_offsets() for points in axes.collections])
        means = pv.posterior(fits[2].model, fits[2].guide, digits.test[:30]).means["z"][0].double().numpy()
        order = np.argsort(digits.test.labels[:30].numpy(), kind="stable")
        np.testing.assert_allclose(drawn, means[order], rtol=1e-5)
        assert axes.get_xlabel() == "posterior mean of z[0]"

    def test_legend_names_the_classes(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test).axes[0]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(i) for i in range(10)]

    def test_one_colour_without_labels(self, fits, digits):
        axes = figures.latent_means(fits[2].model, fits[2].guide, digits.test.x[:30]).axes[0]
        assert axes.get_legend() is None and len(axes.collections) == 1

    def test_principal_components_of_more_latents(self, fits, digits):
        axes = figures.latent_means(fits[4].model, fits[4].guide, digits.test[:30]).axes[0]
        assert "principal component 1 of 4 latents" in axes.get_xlabel() and "% of variance" in axes.get_xlabel()
        drawn = np.concatenate([points.get_offsets() for points in axes.collections])
        means = pv.posterior(fits[4].model, fits[4].guide, digits.test[:30]).means["z"][0].double()
        exact = torch.linalg.eigvalsh(torch.cov(means.T))[-2:].flip(0)
        np.testing.assert_allclose(drawn.var(0, ddof=1), exact.numpy(), rtol=1e-5)

    def test_one_latent_is_a_strip(self, fits, digits):
        axes = figures.latent_means(fits[1].model, fits[1].guide, digits.test[:30]).axes[0]
        assert axes.get_xlabel() == "posterior mean of z" and len(axes.get_yticks()) == 0

    def test_two_data_have_no_principal_components(self, fits, digits):
        with pytest.raises(InputError, match="at least three data, got 2"):
            figures.latent_means(fits[4].model, fits[4].guide, digits.test[:2])

    def test_classes_have_no_posterior_mean(self):
        def model(x):
            with pyro.plate("data", len(x)):
                k = pyro.sample("k", dist.Categorical(torch.ones(2)))
                pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("k", dist.Categorical(torch.ones(2)))

        with pytest.raises(InputError, match="site 'k' holds whole numbers"):
            figures.latent_means(model, guide, torch.ones(4))


SUMS = ("reconstruction", "elbo", "log_evidence")


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
        far = with_columns(reports["2 latents"], **{n: getattr(reports["2 latents"], n) - 4000 for n in SUMS})
        boxes = text_boxes(figures.account({"a": far, "a much longer name": far}))
        for i, (text, box) in enumerate(boxes):
            assert not any(box.overlaps(other) for _, other in boxes[i + 1 :]), text

    def test_zero_is_in_sight_or_said_to_be_cut(self, reports):
        report = with_columns(reports["2 latents"], **{n: getattr(reports["2 latents"], n) - 4000 for n in SUMS})
        bars = figures.account(report).axes[1]
        assert bars.get_xlim()[1] < 0 and "beyond the right edge" in bars.get_xlabel()
        up = with_columns(report, **{n: getattr(report, n) + 9000 for n in SUMS})
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
        impossible = with_columns(report, log_evidence=torch.full_like(report.log_evidence, -math.inf))
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
        right = figures.evidence_histogram(with_columns(report, pareto_k=k)).axes[1]
        assert right.get_title().endswith(": 0 of 40\n3 exact, 2 undefined")
        none = figures.evidence_histogram(with_columns(report, pareto_k=torch.full_like(k, math.nan))).axes[1]
        assert none.texts[0].get_text() == "no finite k-hat"

    def test_comparison(self, every, reports):
        table = pv.compare(reports)
        (axes,) = every["comparison"].axes
        assert [label.get_text() for label in axes.get_yticklabels()] == [row.name for row in table.rows]
        whiskers = [container.lines[2][0].get_segments()[0][:, 0] for container in axes.containers]
        for row, (low, high) in zip(table.rows, whiskers, strict=True):
            assert (low + high) / 2 == pytest.approx(row.difference)
            assert high - low == pytest.approx(4 * row.difference_se)

    def test_a_comparison_tells_what_casts_doubt(self, reports, tmp_path):
        healthy = {name: with_columns(r, pareto_k=torch.zeros(len(r)).double()) for name, r in reports.items()}
        bad = torch.where(torch.arange(40) < 39, 2.0, 0.0).double()
        unreliable = healthy | {"1 latents": with_columns(reports["1 latents"], pareto_k=bad)}
        clean, told = (pv.compare(named) for named in (healthy, unreliable))
        figure = figures.comparison(told)
        texts = {row.name: text.get_text() for row, text in zip(told.rows, figure.axes[0].texts, strict=True)}
        assert {name for name, text in texts.items() if "k-hat bad 98%" in text} == {"1 latents"}
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


MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


class TestSave:
    @pytest.mark.parametrize("suffix", MAGIC)
    def test_suffix_decides_and_bytes_repeat(self, every, tmp_path, suffix):
        paths = [tmp_path / "new" / f"{i}{suffix}" for i in (1, 2)]
        for path in paths:
            figures.save(every["training_curves"], path)
        assert paths[0].read_bytes().startswith(MAGIC[suffix])
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert sorted(paths[0].parent.iterdir()) == paths

    def test_png_has_150_dots_per_inch(self, every, tmp_path):
        figures.save(every["training_curves"], tmp_path / "a.png")
        height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
        assert (width, height) == (9 * 150, 3.2 * 150)

    def test_failure_leaves_the_old_file_and_nothing_else(self, every, tmp_path, monkeypatch):
        path = tmp_path / "a.png"
        path.write_bytes(b"old")

        def fail(stream, **options):
            stream.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(every["account"], "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            figures.save(every["account"], path)
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

    def test_other_suffixes_are_refused(self, every, tmp_path):
        with pytest.raises(InputError, match=r"expected one of the suffixes .png, .svg, .pdf, got '.jpg'"):
            figures.save(every["account"], tmp_path / "a.jpg")
