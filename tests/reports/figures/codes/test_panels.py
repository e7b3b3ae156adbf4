"""Panels: draws where they are, over the prior, with their numbers."""

import numpy as np
from examples.drawing import assert_legible
from examples.fits_of_codes import DIGITS, panels, vae

import pyrovae as pv


def test_a_panel_for_each_fit_with_its_numbers():
    record = panels()
    figure = pv.figures.draw(record)
    assert [axes.get_title() for axes in figure.axes] == record.names
    drawn = np.concatenate([points.get_offsets() for points in figure.axes[2].collections[1:]])
    assert sorted(drawn[:, 0].tolist()) == sorted(record.draws["both"][:, 0].tolist())
    told = figure.axes[2].get_xlabel()
    row = record.named_rows()["both"]
    assert f"neighbours alike {row['neighbours']:.1%}" in told
    assert f"log p(x) {row['log_evidence']:.1f}".replace("-", "−") in told
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(digit) for digit in range(10)]


def test_fits_are_measured_on_the_way():
    figure = pv.figures.latent_panels({"VAE": vae()}, DIGITS.test[:30], num_particles=50, progress=False)
    assert len(figure.axes) == 1 and "KL(q(z) ‖ p(z))" in figure.axes[0].get_xlabel()


def test_one_latent_and_many():
    for num in (1, 3):
        oracle = pv.oracles.ppca(5, num)
        record = pv.latent_panels({"exact": oracle}, oracle.draw(30, seed=0)[0], num_particles=50, progress=False)
        (axes,) = pv.figures.latent_panels(record).axes
        assert axes.get_xlabel().startswith("latent 1" if num == 1 else "principal component 1")
        assert "neighbours" not in axes.get_xlabel()


def test_it_is_legible():
    assert_legible(pv.figures.latent_panels(panels()))
