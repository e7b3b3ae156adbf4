"""Every figure, whatever it shows: its canvas, its bounds, the settings that it leaves, its file."""

import itertools
import os
import struct
import subprocess
import sys

import matplotlib
import pytest
from examples.drawing import QUIET
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports import figures
from pyrovae.reports.figures.style import SHOWN_DPI

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


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_is_a_figure_on_its_own_canvas_that_notebooks_show(self, every, name):
        assert isinstance(every[name], Figure)
        assert isinstance(every[name].canvas, FigureCanvasAgg)
        picture = every[name]._repr_png_()
        assert picture.startswith(b"\x89PNG")
        for pixels, inches in zip(struct.unpack(">II", picture[16:24]), every[name].get_size_inches(), strict=True):
            assert abs(pixels - SHOWN_DPI * inches) < 1

    def test_nothing_is_cut_off(self, laid_out, name):
        figure, texts = laid_out(name)
        drawn = figure.get_tightbbox().transformed(matplotlib.transforms.Affine2D().scale(figure.dpi))
        width, height = figure.canvas.get_width_height()
        for text, box in [("all", drawn), *texts]:
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text

    def test_texts_do_not_overlap(self, laid_out, name):
        for (text, box), (other, other_box) in itertools.combinations(laid_out(name)[1], 2):
            assert not box.overlaps(other_box), (text, other)


def test_settings_stay_as_they_were(curve):
    before = dict(matplotlib.rcParams)
    figures.convergence(curve)
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported():
    draw = (
        "import sys, pyrovae.posteriors.draws, pyrovae.reports.figures; from pyrovae import figures;"
        "row = dict(epoch=1, elbo=-3., reconstruction=-2., kl_prior=1.);"
        "figures.training_curves([row])._repr_png_();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    assert subprocess.run([sys.executable, "-c", draw], env=environment, timeout=120).returncode == 0


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


class TestDraw:
    def test_a_record_finds_its_figure(
        self, reports, curve, annealed, bounds, gaps, surgery, calibration, plane, check
    ):
        records = [reports["2 latents"], pv.compare(reports), curve, annealed, bounds[6], gaps, surgery, calibration]
        for record in [*records, plane, check]:
            assert isinstance(figures.draw(record), Figure), type(record)
        assert figures.draw(curve).axes[0].get_title() == figures.convergence(curve).axes[0].get_title()
        assert len(figures.draw(curve, annealed=annealed).axes) == 2

    def test_what_has_no_figure_is_refused(self):
        with pytest.raises(InputError, match="there is no figure of a dict"):
            figures.draw({})

    def test_a_refusal_names_what_there_is(self):
        named = r"no figure of a Fit; there are figures of Annealed, .*Report.*; for a fit .* training_curves\(fit"
        with pytest.raises(InputError, match=named):
            figures.draw(pv.Fit(None, None, []))
        assert all(hasattr(figures, name) for name in ("training_curves", "reconstructions", "prior_samples"))
