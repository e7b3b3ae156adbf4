"""Rows that lean on each other through their batch: in the model there is no log p(x) of a row; in the guide there is."""

import pyro
import pyro.distributions as dist
import torch
from strangers.stranger import BY_DENSITIES, BY_WEIGHTS, Stranger, noise, refuse
from torch import nn

X = noise(61, 6, 2)
ROWS = ("other row", "rows", "neighbour", "batch", "other data", "other datum", "lean")


def pair(through, guided=lambda x: x / 2):
    """``through`` is what happens to z, (..., N, 2), on its way to x."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(through(z), 1.0).to_event(1), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.75))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(guided(x), width).to_event(1))

    return model, guide


def in_model(through, site="x"):
    """No number is right."""
    skipped = ("posterior", "predictive_check", "reference")
    refused = refuse(site, *ROWS, by=(*BY_WEIGHTS, *BY_DENSITIES, "calibrate"))
    return Stranger(*pair(through), (X,), refused=refused, skipped=skipped)


def scaled_by_the_batch():
    return in_model(lambda z: z / (0.5 + z.std(-2, keepdim=True)))


def attention_over_rows():
    """Each row's mean is a mixture of all rows'."""

    def attend(z):
        scores = z @ z.transpose(-1, -2)
        return scores.softmax(-1) @ z

    return in_model(attend)


def running_sum_over_rows():
    return in_model(lambda z: z.cumsum(-2))


def neighbour_in_the_batch():
    return in_model(lambda z: 0.5 * z + 0.5 * z.roll(1, -2))


def batch_norm_of_the_batch():
    """Batch norm that keeps no running statistics, in the decoder."""
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    return in_model(lambda z: norm(z.reshape(-1, 2)).reshape(z.shape))


def smooth_over_rows():
    """A Gaussian process over rows, by a factor of its covariance."""

    def smooth(z):
        place = torch.arange(z.shape[-2], dtype=z.dtype)
        kernel = torch.exp(-((place[:, None] - place) ** 2) / 4) + 0.1 * torch.eye(len(place))
        return torch.linalg.cholesky(kernel) @ z

    return in_model(smooth)


def ranked_rows():
    """Each row's latent is replaced by its rank in the batch."""
    return in_model(lambda z: z.argsort(-2).argsort(-2).to(z.dtype) / z.shape[-2])


def in_guide(guided):
    """Any guide gives log p(x), one that reads the whole batch, too; what it gives in parts is its own affair."""
    refused = refuse("z", *ROWS, or_right=True) | refuse("z", *ROWS, by=("calibrate", "reference"), or_right=True)
    return Stranger(
        *pair(lambda z: z, guided),
        (X,),
        lambda x: dist.Normal(0.0, 2**0.5).log_prob(x.double()).sum(-1),
        refused=refused,
        posterior_mean={"z": X / 2},
        exact=False,
    )


def guide_of_centred_data():
    return in_guide(lambda x: (x - x.mean(0)) / 2)


def guide_by_attention():
    return in_guide(lambda x: (x @ x.T).softmax(-1) @ x / 2)


PROGRAMS = {
    f.__name__: f
    for f in (
        guide_of_centred_data,
        guide_by_attention,
        scaled_by_the_batch,
        attention_over_rows,
        running_sum_over_rows,
        neighbour_in_the_batch,
        batch_norm_of_the_batch,
        smooth_over_rows,
        ranked_rows,
    )
}
