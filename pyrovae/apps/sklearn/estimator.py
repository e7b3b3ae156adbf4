"""The estimator: a variational autoencoder with scikit-learn's methods, each with the meaning that its own have there.

``score_samples`` is log p(x) of each row, as of ``GaussianMixture``; ``transform`` the posterior mean, as of
``FactorAnalysis``; so that a pipeline, a grid search or a cross-validation sets them side by side on one metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

import pyrovae as pv
from pyrovae.apps.sklearn import codes, programs, rows, scores
from pyrovae.apps.sklearn.rows import Array
from pyrovae.base.errors import InputError
from pyrovae.data.split import Split
from pyrovae.data.tables.names import Declared
from pyrovae.data.tables.reading import Table
from pyrovae.evidence.report import Report
from pyrovae.pairs.traces import Program

MISSING = ("error", "observed")


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A variational autoencoder with scikit-learn's interface: fit, score, transform, sample; and evidence.

    Args:
        n_components: dimensions of z (the command line's ``--latent``).
        prior, likelihood, guide, network, objective: names as of the command line, with their numbers: "vamp:50".
            ``pyrovae list`` prints them. ``likelihood=None`` follows the kinds of columns: real ones are normal.
        hidden_layer_sizes: widths of the hidden layers of the encoder (``--hidden``).
        max_iter: epochs (``--epochs``).
        batch_size: rows in a step.
        learning_rate: of Adam (``--lr``).
        schedule: of the learning rate: "cosine" or "constant".
        kl_warmup: epochs for the weight of the KL to reach 1.
        n_iter_no_change: epochs without a better validation ELBO before the fit ends, with the best weights
            (``--patience``). None trains on all rows, to the end.
        validation_fraction: rows set aside for that.
        columns: kinds of columns: a dict, column or pattern -> kind or levels, or the command line's text
            ("quality:ordinal"); one kind for all columns ("count"); "found" as :func:`pyrovae.data.load` tells them.
            Of what is not said, numbers are real; text and categories of a frame are told by themselves. Columns are
            called as in the frame, else x0, x1, ...
        standardize: whether real columns are standard scores inside; their log Jacobian is part of every score. None
            is where the likelihood is a density on the real line. False leaves numbers as they are found, and
            ``likelihood=None`` then is the natural one: Bernoulli for zeros and ones, binomial for counts.
        missing: "error" refuses NaN; "observed" leaves missing entries out of the likelihood and tells the encoder
            which they are, so that a row has the density of its observed entries.
        n_particles: K, draws for each row (``--particles``).
        method: how log p(x) is found, as of :func:`pyrovae.evaluate`: "auto" climbs to better proposals where the
            encoder's draws do not vouch for themselves, and anneals what none of these vouches for, row by row (a
            fraction of a second each); "adaptive" leaves out the last, "importance" both.
        random_state: of weights, order and noise (``--seed``): a number, a ``RandomState``, or None for NumPy's.
        device: "cpu", "cuda", or "auto".
        verbose: whether a fit shows a bar.

    Attributes:
        n_features_in_: columns of X; ``feature_names_in_`` their names, of a frame.
        n_iter_: epochs that were run.
        history_: a row for each, as of :class:`pyrovae.Fit`: ELBO, reconstruction and KL in nats, of standard scores.
        likelihood_: p(x|z), with its constants.
        columns_: what each column is, with its scale; None where numbers are taken as they are found.
        vae_: the module, with ``model`` and ``guide``; ``pair`` and ``split(X)`` go into every other function:
            ``pv.gaps(*estimator.pair, estimator.split(X))``.

    Scores are log densities in nats **in the unit of X as given** (log masses of counts and classes). The number of a
    row depends on that row alone: all rows share their noise, in double precision, so that neither order nor neighbours
    matter. Monte-Carlo errors of rows are then not independent, and that of ``score`` may be as large as that of one
    row; :meth:`evidence` draws each row's noise by itself and states every error.

    A constant column is refused, as no density has a scale for it: put ``VarianceThreshold()`` before. A pickle holds
    the training rows, of which some priors are made.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.decomposition import PCA, FactorAnalysis
        >>> from sklearn.mixture import GaussianMixture
        >>> from sklearn.model_selection import KFold, cross_val_score
        >>> X, halves = load_wine().data, KFold(2, shuffle=True, random_state=0)
        >>> vae = VAE(4, max_iter=100, n_particles=100, method="adaptive")
        >>> every = [PCA(4), FactorAnalysis(4), GaussianMixture(random_state=0), vae]
        >>> nats = {type(one).__name__: cross_val_score(one, X, cv=halves).mean() for one in every}
        >>> sorted(nats, key=nats.get)
        ['PCA', 'FactorAnalysis', 'GaussianMixture', 'VAE']
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        prior: str = "normal",
        likelihood: str | None = None,
        guide: str = "normal",
        network: str = "mlp",
        hidden_layer_sizes: Sequence[int] = (50,),
        objective: str = "elbo",
        max_iter: int = 300,
        batch_size: int = 50,
        learning_rate: float = 0.01,
        schedule: str = "cosine",
        kl_warmup: float = 0.0,
        n_iter_no_change: int | None = None,
        validation_fraction: float = 0.1,
        columns: Mapping[str, Declared] | str | None = None,
        standardize: bool | None = None,
        missing: str = "error",
        n_particles: int = 500,
        method: str = "auto",
        random_state: Any = 0,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.prior = prior
        self.likelihood = likelihood
        self.guide = guide
        self.network = network
        self.hidden_layer_sizes = hidden_layer_sizes
        self.objective = objective
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.kl_warmup = kl_warmup
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.columns = columns
        self.standardize = standardize
        self.missing = missing
        self.n_particles = n_particles
        self.method = method
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits prior, decoder and encoder to rows X (N, D); y is not used.

        Raises:
            InputError: naming the parameter, the column or the row.
        """
        if self.missing not in MISSING:
            raise InputError(f"missing is one of {', '.join(MISSING)}, got {self.missing!r}")
        table, _ = self._table(X, reset=True)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        record = programs.record_of(self.get_params(deep=False), self._seed)
        about = {name: getattr(self, name) for name in ("likelihood", "columns", "standardize")}
        self._dataset = rows.dataset_of(table, self._parts(len(table.rows)), **about)
        self.vae_, self._recipe = programs.build(record, self._dataset)
        self.history_ = programs.fitted(
            self.vae_, self._dataset, record, device=self.device, progress=bool(self.verbose)
        ).history
        self.n_iter_, self._n_features_out = len(self.history_), codes.width(self.vae_)
        self.likelihood_, self.columns_ = pv.recipes.likelihood_of(self.vae_), self._dataset.columns
        return self

    def transform(self, X: Any) -> Array:
        """The posterior means of rows (N, D), those of the guide q(z|x): (N, latents)."""
        split, dtype = self._rows(X)
        return codes.latent_means(self.vae_, split, self._seed).numpy().astype(dtype)

    def inverse_transform(self, Z: Any) -> Array:
        """The decoder's means of codes (N, latents), in the unit of X: (N, D).

        Of an ordinal or a categorical column the most probable value.
        """
        check_is_fitted(self)
        values = check_array(Z, dtype=[np.float64, np.float32], input_name="Z")
        if values.shape[1] != self._n_features_out:
            raise InputError(f"expected codes of {self._n_features_out} numbers each, got {values.shape[1]}")
        return rows.in_unit(codes.row_means(self.vae_, torch.from_numpy(np.array(values))), self._dataset)

    def score_samples(self, X: Any) -> Array:
        """log p(x) of each row (N, D) in the unit of X, by the route that vouches for it: (N,) nats.

        Warns:
            UntrustedEvidence: if nothing vouches for more than 5 % of the rows.
        """
        split, _ = self._rows(X)
        plan = scores.plan_of(self.n_particles, self._seed, self.method)
        return scores.log_evidence(self.vae_, split, plan, progress=bool(self.verbose)).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`score_samples`, nats for each row; y is not used."""
        return float(self.score_samples(X).mean())

    def elbo(self, X: Any) -> Array:
        """The ELBO of each row (N, D) in the unit of X, below log p(x) by what the encoder misses: (N,) nats."""
        split, _ = self._rows(X)
        return scores.elbo(self.vae_, split, scores.plan_of(self.n_particles, self._seed, "importance")).numpy()

    def evidence(self, X: Any, **options: Any) -> Report:
        """The account of log p(x) of rows (N, D): its errors, its parts, its routes, k-hat.

        Its nats are those of standard scores, as its summary says; it states those in the unit of X beside them.

        Args:
            X: rows.
            options: of :func:`pyrovae.evaluate`.
        """
        split, _ = self._rows(X)
        how = {"num_particles": self.n_particles, "method": self.method, "seed": self._seed}
        return pv.evaluate(*self.pair, split, **{**how, "progress": bool(self.verbose), **options})

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Array:
        """Rows that the model draws, in the unit of X: (n_samples, D).

        Args:
            n_samples: how many.
            random_state: of the draws; None is that of the fit, so that each call gives the same.
        """
        check_is_fitted(self)
        seed = self._seed if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        return rows.in_unit(codes.simulated(self.vae_, self._dataset, n_samples, seed), self._dataset)

    @property
    def pair(self) -> tuple[Program, Program]:
        """The programs, (model, guide), as every function of pyrovae takes them."""
        check_is_fitted(self)
        return self.vae_.model, self.vae_.guide

    def split(self, X: Any) -> Split:
        """Rows as the programs take them, with their protocol."""
        return self._rows(X)[0]

    # ------------------------------------------------------------------------------------------------ inside

    def _rows(self, X: Any) -> tuple[Split, Any]:
        """Later rows as the programs take them, and the dtype in which codes go back."""
        check_is_fitted(self)
        table, dtype = self._table(X, reset=False)
        return rows.later(table, self._dataset), dtype

    def _table(self, X: Any, *, reset: bool) -> tuple[Table, Any]:
        """X as a table, checked as scikit-learn checks it, and the dtype of its numbers."""
        observed, least = self.missing == "observed", 2 if reset else 1
        if (table := rows.unlike_numbers(X)) is not None:
            validate_data(self, X, reset=reset, skip_check_array=True)
            if rows.any_missing(table) and not observed:
                raise InputError("X contains NaN or other missing cells: missing='observed' leaves them out")
            return table, np.float64
        finite: bool | str = "allow-nan" if observed else True
        numbers = {"dtype": [np.float64, np.float32], "ensure_all_finite": finite, "ensure_min_samples": least}
        values = validate_data(self, X, reset=reset, **numbers)
        return rows.table_of(values, getattr(self, "feature_names_in_", None)), values.dtype

    def _parts(self, num_rows: int) -> dict[str, Array]:
        """The rows that train, and those that tell when to end; a single row stands for parts that are not used."""
        order = np.arange(num_rows)
        if self.n_iter_no_change is None:
            return {"train": order, "valid": order[:1], "test": order[:1]}
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction must be between 0 and 1, got {self.validation_fraction}")
        order = np.random.RandomState(self._seed).permutation(num_rows)
        held_out = min(max(1, round(self.validation_fraction * num_rows)), num_rows - 1)
        return {"train": np.sort(order[held_out:]), "valid": np.sort(order[:held_out]), "test": order[:1]}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "observed"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "vae_" in state:  # programs are functions, which no pickle holds; their weights are arrays
            state["vae_"] = programs.weights_of(self.vae_)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "vae_" in state:
            self.vae_ = programs.restored(self._recipe, self._dataset, state["vae_"])
