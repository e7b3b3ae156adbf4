"""Several sites and plates, covariates and labels, parameters for each datum, autoguides, scales; and global latents."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import autoguide
from strangers.stranger import BY_DENSITIES, BY_WEIGHTS, Stranger, line, noise, refuse, square, summed
from torch import nn

REALS = noise(51, 6)
TABLE = noise(52, 6, 3)
COVARIATE = noise(53, 6)
ALL = (*BY_WEIGHTS, *BY_DENSITIES)
ROWS = ("row", "batch", "each datum", "every datum", "own parameter", "per datum", "per-datum", "local", "size", "data")


def normal(value, loc, scale):
    return dist.Normal(loc, scale).log_prob(value)


def conjugate_elbo(x, loc, scale):
    """Of N(loc, scale) for z ~ N(0, 1) and x ~ N(z, 1)."""
    x, loc, scale = x.double(), torch.as_tensor(loc).double(), torch.as_tensor(scale).double()
    kl = torch.distributions.kl_divergence(dist.Normal(loc, scale), dist.Normal(0.0, 1.0))
    return normal(x, loc, 1.0) - scale**2 / 2 - kl


def line_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def line_evidence(x):
    return normal(x.double(), 0.0, 2**0.5)


def nested_plates():
    """A latent for each cell of a table, its columns in an inner plate."""

    def model(x):
        with pyro.plate("columns", 3, dim=-1), pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor([0.25, 0.5, 0.75]))
        with pyro.plate("data", len(x), dim=-2), pyro.plate("columns", 3, dim=-1):
            pyro.sample("z", dist.Normal(slope * x, 0.75))

    loc = TABLE * torch.tensor([0.25, 0.5, 0.75])
    return Stranger(
        model,
        guide,
        (TABLE,),
        lambda x: line_evidence(x).sum(-1),
        elbo=conjugate_elbo(TABLE, loc, 0.75).sum(-1),
        guide_mean={"z": loc},
        plate="data",
        exact=False,
    )


def level_and_cells():
    """Two levels: a datum's own, and one for each of its cells; both drawn by the guide, in another order."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            level = pyro.sample("level", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("cells", 3, dim=-1):
                z = pyro.sample("z", dist.Normal(level, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.75))
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("cells", 3, dim=-1):
                z = pyro.sample("z", dist.Normal(0.5 * x, 1.0))
            pyro.sample("level", dist.Normal(0.75 * z.mean(-1, keepdim=True), width))

    covariance = torch.ones(3, 3, dtype=torch.float64) + 2 * torch.eye(3, dtype=torch.float64)
    return Stranger(
        model,
        guide,
        (TABLE,),
        lambda x: dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x.double()),
        guide_mean={"z": 0.5 * TABLE, "level": 0.375 * TABLE.mean(-1, keepdim=True)},
        plate="data",
        exact=False,
    )


def slope_and_intercept():
    """Two latents and a covariate; two-dimensional quadrature."""

    def model(x, u):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.ones(()), 0.5))
            pyro.sample("x", dist.Normal(a + b * u, 0.75), obs=x)

    def guide(x, u):
        pull = pyro.param("pull", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(1 + 0.25 * u * (x - u), 0.5))
            pyro.sample("a", dist.Normal(pull * (x - b * u), 0.75))

    def joint(z, x, u):
        a, b = z[:, :1], z[:, 1:]
        return normal(a, 0.0, 1.0) + normal(b, 1.0, 0.5) + normal(x, a + b * u, 0.75)

    def density(z, x, u):
        a, b = z[:, :1], z[:, 1:]
        return normal(b, 1 + 0.25 * u * (x - u), 0.5) + normal(a, 0.5 * (x - b * u), 0.75)

    return summed(
        model,
        guide,
        (REALS, COVARIATE),
        square(line(-7, 7, 301), line(-3.5, 5.5, 301)),
        joint,
        density,
        lambda z: {"a": z[:, 0], "b": z[:, 1]},
        exact=False,
    )


def label_and_features():
    """Two observed sites, a class and numbers; one latent explains both."""
    labels = torch.tensor([0, 2, 1, 2, 0, 1])
    scores = torch.tensor([-1.0, 0.0, 1.0])

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 3]).to_event(1), obs=x)
            pyro.sample("y", dist.Categorical(logits=z[..., None] * scores), obs=y)

    def guide(x, y):
        pull = pyro.param("pull", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pull * (x.sum(-1) + y - 1), 0.625))

    def joint(z, x, y):
        classes = dist.Categorical(logits=z[:, None, None] * scores).log_prob(y)
        return normal(z[:, None], 0.0, 1.0) + normal(x, z[:, None, None], 1.0).sum(-1) + classes

    return summed(
        model,
        guide,
        (TABLE, labels),
        line(-8, 8),
        joint,
        lambda z, x, y: normal(z[:, None], 0.25 * (x.sum(-1) + y - 1), 0.625),
        lambda z: {"z": z},
        exact=False,
        skipped=("predictive_check",),
    )


def label_as_a_covariate():
    """Whole numbers look up the rows of an embedding."""
    labels = torch.tensor([0, 2, 1, 2, 0, 1])
    embedding = nn.Embedding(3, 1)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[-1.0], [0.5], [2.0]]))

    def model(x, y):
        pyro.module("embedding", embedding)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(embedding(y).squeeze(-1), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, y):
        pull = pyro.param("pull", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x + pull * y, 0.75))

    def log_evidence(x, y):
        return normal(x.double(), torch.tensor([-1.0, 0.5, 2.0]).double()[y], 2**0.5)

    return Stranger(
        model,
        guide,
        (REALS, labels),
        log_evidence,
        guide_mean={"z": 0.5 * REALS + 0.25 * labels},
        exact=False,
        refused=refuse("z", "prior", "label", "covariate", "same for all", by=("surgery",), or_right=True),
    )


def tempered_pair():
    """Scales belong to a loss: they are no part of log p(x)."""

    @poutine.scale(scale=0.1)
    def model(x):
        line_model(x)

    @poutine.scale(scale=0.1)
    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, width))

    return Stranger(
        model, guide, (REALS,), line_evidence, elbo=conjugate_elbo(REALS, REALS / 2, 0.875), guide_mean={"z": REALS / 2}
    )


def unscaled_plate():
    """``pyro.plate(size, subsample=)`` says that the rows are some of many."""

    def model(x):
        with pyro.plate("data", 600, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        with pyro.plate("data", 600, subsample=x):
            pyro.sample("z", dist.Normal(x / 2, width))

    return Stranger(model, guide, (REALS,), line_evidence, elbo=conjugate_elbo(REALS, REALS / 2, 0.875))


def no_latent():
    """Nothing to infer: log p(x) is the likelihood."""

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    others = ("annealed", "bidirectional", "gaps", "surgery", "calibrate", "posterior", "reference")
    return Stranger(
        model,
        lambda x: None,
        (REALS,),
        lambda x: normal(x.double(), 0.25, 1.0),
        elbo=normal(REALS.double(), 0.25, 1.0),
        refused=refuse(None, "no latent", "nothing to", "without latents", "latent site", by=others),
        skipped=("posterior",),
    )


# ------------------------------------------------------------------------------------------ parameters for each datum

BY_PARTS = ("blocks", "bidirectional", "calibrate", "reference")  # these run other rows than those of the parameters


def own_parameters():
    """No encoder: a location and a width for each datum, far from the same for all."""
    locs, widths = REALS / 2 + torch.tensor([0.5, -0.5] * 3), torch.tensor([0.625, 0.75, 1.0] * 2)

    def guide(x):
        loc = pyro.param("locs", lambda: locs.clone())
        width = pyro.param("widths", lambda: widths.clone(), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, width))

    return Stranger(
        line_model,
        guide,
        (REALS,),
        line_evidence,
        elbo=conjugate_elbo(REALS, locs, widths),
        guide_mean={"z": locs},
        refused=refuse(None, *ROWS, by=BY_PARTS) | refuse(None, *ROWS, by=("surgery", "gaps"), or_right=True),
        exact=False,
    )


def own_exact_parameters():
    """Two latents of a parameter each for each datum, which are the posterior."""
    half = 0.5**0.5

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(torch.stack([a, b], -1), 1.0).to_event(1), obs=x)

    def guide(x):
        locs = pyro.param("locs", lambda: TABLE[:, :2] / 2)
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(locs[:, 0], half))
            pyro.sample("b", dist.Normal(locs[:, 1], half))

    return Stranger(
        model,
        guide,
        (TABLE[:, :2].contiguous(),),
        lambda x: line_evidence(x).sum(-1),
        elbo=line_evidence(TABLE[:, :2]).sum(-1),
        guide_mean={"a": TABLE[:, 0] / 2, "b": TABLE[:, 1] / 2},
        refused=refuse(None, *ROWS, by=BY_PARTS) | refuse(None, *ROWS, by=("surgery", "gaps"), or_right=True),
        exact=True,
    )


def rows_found_by_number():
    """Parameters for each datum, found by the datum's number, which is a covariate: any rows in any order will do."""
    locs = REALS / 2 + torch.tensor([0.5, -0.5] * 3)

    def model(x, row):
        line_model(x)

    def guide(x, row):
        loc = pyro.param("locs", lambda: locs.clone())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[row], 0.75))

    return Stranger(
        model,
        guide,
        (REALS, torch.arange(6)),
        lambda x, row: line_evidence(x),
        elbo=conjugate_elbo(REALS, locs, 0.75),
        guide_mean={"z": locs},
        exact=False,
    )


def auto_normal():
    """Pyro's own mean-field guide of local latents: a location and a width for each datum."""
    with pyro.get_param_store().scope():
        guide = autoguide.AutoNormal(
            line_model, init_loc_fn=autoguide.init_to_value(values={"z": REALS / 2}), init_scale=0.75
        )
        guide(REALS)
    return Stranger(
        line_model,
        guide,
        (REALS,),
        line_evidence,
        elbo=conjugate_elbo(REALS, REALS / 2, 0.75),
        guide_mean={"z": REALS / 2},
        refused=refuse(None, *ROWS, by=BY_PARTS)
        | refuse(None, *ROWS, *("AutoNormal", "auxiliary"), by=("surgery", "gaps", "annealed"), or_right=True),
        exact=False,
    )


def auto_guide(kind, site, *causes, by=ALL):
    with pyro.get_param_store().scope():
        guide = kind(line_model)
        guide(REALS)
    return Stranger(
        line_model,
        guide,
        (REALS,),
        refused=refuse(site, *causes, by=by),
        skipped=("calibrate", "posterior", "predictive_check", "reference"),
    )


def auto_diagonal():
    """One vector for all data: its weight is that of the whole batch."""
    return auto_guide(autoguide.AutoDiagonalNormal, "_AutoDiagonalNormal_latent", "plate", "outside", "shared", "batch")


def auto_multivariate():
    return auto_guide(autoguide.AutoMultivariateNormal, "_AutoMultivariateNormal_latent", "plate", "outside", "shared")


def auto_delta():
    """A point has no density."""
    return auto_guide(autoguide.AutoDelta, None, "point", "Delta", "density", "rows")


def auto_low_rank():
    return auto_guide(
        autoguide.AutoLowRankMultivariateNormal, "_AutoLowRankMultivariateNormal_latent", "plate", "outside", "shared"
    )


# -------------------------------------------------------------------------------------------------- no evidence by row


def nothing(model, guide, site, *causes, data=(REALS,)):
    skipped = ("calibrate", "posterior", "predictive_check", "reference")
    return Stranger(model, guide, data, refused=refuse(site, *causes, by=ALL), skipped=skipped)


def global_slope():
    """A latent that all data share."""

    def model(x):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(slope, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        pyro.sample("slope", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, width))

    return nothing(model, guide, "slope", "plate", "outside", "shared")


def forgotten_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            e = pyro.sample("e", dist.Gamma(torch.ones(()), 1.0))
            pyro.sample("x", dist.Normal(z, e), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, width))

    return nothing(model, guide, "e", "not in the guide")


def plate_of_its_own_rows():
    def model(x):
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        width = pyro.param("width", torch.tensor(0.875))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("z", dist.Normal(x[rows] / 2, width))

    return nothing(model, guide, ("data", "x"), "subsample", "own rows", "computed from the arguments")


PROGRAMS = {
    f.__name__: f
    for f in (
        nested_plates,
        level_and_cells,
        slope_and_intercept,
        label_and_features,
        label_as_a_covariate,
        tempered_pair,
        unscaled_plate,
        no_latent,
        own_parameters,
        own_exact_parameters,
        rows_found_by_number,
        auto_normal,
        auto_diagonal,
        auto_multivariate,
        auto_low_rank,
        auto_delta,
        global_slope,
        forgotten_site,
        plate_of_its_own_rows,
    )
}
