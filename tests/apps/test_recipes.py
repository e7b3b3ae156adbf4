"""Recipes: every name builds a pair that fits and evaluates."""

import re

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli, recipes
from pyrovae.programs import families, guides, priors

BASE = {
    "prior": "normal",
    "likelihood": None,
    "guide": "normal",
    "network": "mlp",
    "latent": 2,
    "hidden": [8],
    "seed": 0,
}


OF_FRAME = {"columns": {"sugar": "positive", "answer": "ordinal", "part": "proportion"}, "covariates": ["age", "sex"]}


def frame(num_rows=200, *, missing=True):
    """A column of each kind, with two covariates."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    columns = {
        "real": 50 + 7 * rng.randn(num_rows),
        "sugar": np.exp(2 + rng.randn(num_rows)),
        "visits": rng.poisson(30.0, num_rows),
        "colour": rng.choice(["red", "blue", "green"], num_rows),
        "answer": rng.randint(1, 6, num_rows).astype(float),
        "part": rng.uniform(0.05, 0.95, num_rows),
        "smokes": rng.choice([0, 1], num_rows),
        "age": rng.uniform(20, 60, num_rows),
        "sex": rng.choice(["f", "m"], num_rows),
    }
    for name in ("real", "answer", "part") if missing else ():
        columns[name][rng.rand(num_rows) < 0.2] = np.nan
    return pandas.DataFrame(columns)


REAL = ("normal", "low-rank", "laplace", "logistic", "student", "continuous")
INSIDE = ("beta", "log-normal", "gamma")  # likelihoods of values away from an edge


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """Digits as values above 0 and below 1."""
    (rows,) = pv.data.load("digits").train.batch(slice(0, 100))
    path = tmp_path_factory.mktemp("data") / "inside.npy"
    np.save(path, ((rows.float() + 0.5) / 17).numpy())
    return pv.data.load(path)


def digits_for(likelihood):
    if likelihood == "bernoulli":
        return pv.data.load("digits", binarization="static")
    return pv.data.load("digits", divisor=16 if likelihood.startswith(REAL) else None)


def fitted_evidence(recipe, dataset):
    vae = recipes.build(recipes.complete(recipe, dataset), dataset)
    fitted = pv.fit(vae.model, vae.guide, dataset.train[:64], epochs=1)
    report = pv.evaluate(fitted.model, fitted.guide, dataset.test[:10], num_particles=30, method="importance")
    return report.log_evidence


@pytest.mark.parametrize("likelihood", families.FAMILIES)
def test_every_likelihood(likelihood, inside):
    data = inside if likelihood in INSIDE else digits_for(likelihood)
    data = pv.data.load(frame(), **OF_FRAME) if families.FAMILIES[likelihood].of_columns else data
    assert fitted_evidence({**BASE, "likelihood": likelihood}, data).isfinite().all()


def named(prior):
    """With few pseudo-inputs or exemplars, where it has any."""
    return f"{prior}:20" if {"num_pseudo_inputs", "num_exemplars"} & set(priors.PRIORS[prior].takes) else prior


@pytest.mark.parametrize("guide", guides.GUIDES)
def test_every_guide(guide):
    support = guides.GUIDES[guide].support
    prior = next(name for name, choice in priors.PRIORS.items() if choice.support == support)
    assert fitted_evidence({**BASE, "prior": prior, "guide": guide}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("prior", priors.PRIORS)
def test_every_prior(prior):
    support = priors.PRIORS[prior].support
    guide = next(name for name, choice in guides.GUIDES.items() if choice.support == support)
    assert fitted_evidence({**BASE, "prior": named(prior), "guide": guide}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("network", recipes.NETWORKS)
def test_every_network(network):
    assert fitted_evidence({**BASE, "network": network}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("prior", "guide"), [("uniform", "beta"), ("dirichlet", "logistic-normal"), ("logistic-normal", "logistic-normal")]
)
def test_latents_with_edges_are_fitted_to_digits(prior, guide, seed):
    """In float32, where draws once lay on the edge, or were scored at another point than they were drawn from."""
    digits = pv.data.load("digits")
    recipe = {**BASE, "prior": prior, "guide": guide, "latent": 8, "hidden": [50], "seed": seed}
    vae = recipes.build(recipes.complete(recipe, digits), digits)
    history = pv.fit(vae.model, vae.guide, digits.train, epochs=2, seed=seed).history
    assert -700 < history[0]["elbo"] < history[1]["elbo"] < -450


def test_latents_of_unlike_support_are_refused():
    digits = pv.data.load("digits")
    with pytest.raises(pv.InputError, match="prior 'sphere' is over sphere latents, guide 'normal' over real ones"):
        recipes.build(recipes.complete({**BASE, "prior": "sphere"}, digits), digits)


def test_a_guide_without_means_is_refused_to_a_prior_about_them():
    message = (
        "about the means of the guide's distributions, and those of 'iaf' have none; .* normal, low-rank-normal, st"
    )
    with pytest.raises(pv.InputError, match=message):
        recipes.check_support("exemplar", "iaf")


def test_the_natural_likelihood_follows_the_data():
    names = {k: recipes.complete(BASE, digits_for(k))["likelihood"] for k in ("bernoulli", "normal", "poisson")}
    assert names == {"bernoulli": "bernoulli", "normal": "continuous-bernoulli", "poisson": "binomial"}


def test_a_seed_gives_the_weights():
    digits = pv.data.load("digits")
    a, b, c = (recipes.build(recipes.complete({**BASE, "seed": seed}, digits), digits) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize("guide", ["full-normal", "iaf", "student-t"])
@pytest.mark.parametrize("prior", ["vamp:20", "mixture"])
def test_tables_go_with_priors_and_guides(prior, guide):
    data = pv.data.load(frame(), **OF_FRAME)
    assert fitted_evidence({**BASE, "prior": prior, "guide": guide}, data).isfinite().all()


def test_a_table_takes_the_families_of_its_kinds():
    data = pv.data.load(frame(), **OF_FRAME)
    vae = recipes.build(recipes.complete(BASE, data), data)
    assert recipes.likelihood_of(vae) == (
        "mixed(normal(scales learned) x 1, log_normal x 1, negative_binomial x 1, categorical(3) x 1, ordinal(5) x 1, "
        "beta x 1, bernoulli x 1)"
    )
    y = vae.decoder(torch.zeros(1, vae.read_covariates.size + 2))
    assert y.names == list(data.columns.groups())
    assert y.columns == list(data.columns.groups().values())
    counts = y.parts[2].mean.detach()
    assert 15 < float(counts) < 60  # they begin about their mean of 30


def test_a_table_without_gaps_or_covariates_has_one_argument():
    source = frame(missing=False)[["real", "sugar"]]
    data = pv.data.load(source)
    vae = recipes.build(recipes.complete({**BASE, "likelihood": "student-t"}, data), data)
    assert (
        vae.read.missing.numel() == 0 and vae.read_covariates is None and recipes.likelihood_of(vae) == "student_t(5)"
    )


def test_rows_that_a_likelihood_excludes_are_named():
    data = pv.data.load(frame()[["real", "sugar"]], columns={"sugar": "positive"})
    with pytest.raises(
        pv.InputError, match=r"'gamma': values of the frame train are outside .*: \"real\" in \d+ rows, the first"
    ):
        recipes.build(recipes.complete({**BASE, "likelihood": "gamma"}, data), data)
    with pytest.raises(
        pv.InputError, match="likelihood 'mixed' is made of the columns of a table, and digits holds counts"
    ):
        recipes.build(recipes.complete({**BASE, "likelihood": "mixed"}, digits_for("poisson")), digits_for("poisson"))
    whole = pv.data.load(frame()[["real", "visits", "smokes"]])
    with pytest.raises(
        pv.InputError, match=r"'student-t' is a density, and count columns .* \(visits, smokes\): declare"
    ):
        recipes.build(recipes.complete({**BASE, "likelihood": "student-t"}, whole), whole)
    with pytest.raises(pv.InputError, match="network 'conv' is for images"):
        recipes.build(recipes.complete({**BASE, "network": "conv"}, data), data)


def test_images_of_bytes_take_a_likelihood_of_levels(tmp_path):
    grey = np.random.RandomState(0).randint(8, 239, (30, 4, 4))
    for dtype, name in ((np.uint8, "discretised-logistic"), (np.int64, "binomial")):
        np.save(tmp_path / "grey.npy", grey.astype(dtype))
        assert recipes.complete(BASE, pv.data.load(tmp_path / "grey.npy"))["likelihood"] == name
    np.save(tmp_path / "grey.npy", (grey // 16).astype(np.uint8))
    assert recipes.complete(BASE, pv.data.load(tmp_path / "grey.npy"))["likelihood"] == "binomial"


def test_unknown_names_offer_the_nearest():
    with pytest.raises(pv.InputError, match="unknown prior 'mixure': did you mean \"mixture\""):
        recipes.complete({**BASE, "prior": "mixure"}, pv.data.load("digits"))
    with pytest.raises(pv.InputError, match="latent and hidden sizes must be at least 1"):
        recipes.build(recipes.complete({**BASE, "hidden": [0]}, pv.data.load("digits")), pv.data.load("digits"))


def test_all_that_can_be_chosen_is_listed(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for kind, choices in recipes.CHOICES.items():
        section = printed[printed.index(f"{kind}s\n") :]
        for name, choice in choices.items():
            source = getattr(choice, "source", "")
            about = re.escape(choice.about + (f" [{source}]" if source else ""))
            assert re.search(rf"^  {name} +{about}$", section, re.M), (kind, name)


@pytest.mark.parametrize("name", ["mixture:3", "vamp:20", "two-levels", "autoregressive-bernoulli"])
def test_the_seed_reaches_the_weights_of_a_prior(name):
    digits = pv.data.load("digits")
    guide = "bernoulli" if name.endswith("bernoulli") else "normal"
    recipe = {"prior": name, "guide": guide, "likelihood": None, "network": "mlp", "latent": 4, "hidden": [8]}
    built = [recipes.build(recipes.complete({**recipe, "seed": seed}, digits), digits) for seed in (0, 1, 1)]
    first, second, again = (torch.cat([p.detach().flatten() for p in vae.prior.parameters()]) for vae in built)
    assert not torch.equal(first, second) and torch.equal(second, again)


# ---------------------------------------------------------------------------------------- arrays with missing entries


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """Digits, of which a fifth of the pixels is missing."""
    (rows,) = pv.data.load("digits").train.batch(slice(0, 100))
    rows = rows.float().numpy()
    rows[np.random.RandomState(0).rand(*rows.shape) < 0.2] = np.nan
    path = tmp_path_factory.mktemp("data") / "gaps.npy"
    np.save(path, rows)
    return pv.data.load(path)


@pytest.mark.parametrize("choice", [{}, {"network": "conv:4", "prior": "vamp:5"}, {"prior": "exemplar"}], ids=str)
def test_arrays_with_missing_entries_are_masked_and_told_to_the_encoder(gaps, choice):
    assert fitted_evidence({**BASE, **choice}, gaps).isfinite().all()
    vae = recipes.build(recipes.complete({**BASE, **choice}, gaps), gaps)
    assert type(vae.encoder.network).__name__ == "MaskedInput"
    assert recipes.rows_with_missing(gaps)["train"] == len(gaps.train)


@pytest.mark.parametrize("guide", ["full-normal", "iaf"])
def test_labels_make_a_conditional_vae(guide):
    digits = digits_for("binomial")
    recipe = {**recipes.complete({**BASE, "guide": guide}, digits), "labels": True}
    vae = recipes.build(recipe, digits)
    assert isinstance(vae, pv.ConditionalVAE) and recipes.likelihood_of(vae) == "binomial(16)"
    fitted = pv.fit(vae.model, vae.guide, digits.train.with_labels()[:64], epochs=1, progress=False)
    assert pv.sample(fitted.model, digits.test.with_labels()[:3], num_samples=3).values["x"].shape == (3, 8, 8)


@pytest.mark.parametrize(
    "choice", [{"guide": "iaf"}, {"prior": "gamma", "guide": "gamma"}, {"network": "gated"}], ids=str
)
def test_few_labels_make_a_semi_supervised_vae(choice):
    digits = digits_for("binomial")
    vae = recipes.build({**recipes.complete({**BASE, **choice}, digits), "semi_supervised": 20}, digits)
    assert isinstance(vae, pv.SemiSupervisedVAE) and recipes.likelihood_of(vae) == "binomial(16)"
    objective = pv.objectives.SummedELBO()
    train = digits.train.with_labels(20)[:64]
    fitted = pv.fit(vae.model, vae.guide, train, objective=objective, epochs=1, progress=False)
    found = pv.classification(
        fitted.model, fitted.guide, digits.test[:4].with_labels(), num_particles=5, progress=False
    )
    assert found.guide.shape == (4, 10) and found.log_evidence.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), [("prior", "vamp"), ("network", "conv")])
def test_what_cannot_read_labels_is_refused(kind, name):
    digits = digits_for("binomial")
    recipe = {**recipes.complete({**BASE, kind: name}, digits), "labels": True}
    with pytest.raises(pv.InputError, match=f"{kind} '{name}' .*, and --labels conditions on labels: take another"):
        recipes.build(recipe, digits)
