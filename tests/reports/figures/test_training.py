"""The curves of a fit."""

import pytest

from pyrovae.base.errors import InputError
from pyrovae.reports import figures


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
