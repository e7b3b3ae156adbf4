r"""What the two terms of the ELBO do to codes: fits to either of them alone and to both, by the same numbers.

.. math:: \mathrm{KL}(q(z) \,\|\, p(z)), \quad q(z) = \frac1N \sum_n q(z \mid x_n); \qquad
    \frac1N \sum_n [y_n = y_{\mathrm{nn}(n)}]; \qquad \log p(x)

How far codes are from the prior, whether neighbours are alike (leave one out, by the nearest mean), and the evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record, mean_and_se, number
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import Split, as_split
from pyrovae.diagnostics.codes.geometry import alike
from pyrovae.diagnostics.surgery import Surgery, surgery
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.report import Report
from pyrovae.posteriors.draws import posterior, sample
from pyrovae.posteriors.means import as_vectors, posterior_means


@dataclass(frozen=True, eq=False, repr=False)
class LatentPanels(Record):
    """F fits on N data side by side; tensors are float64, on the CPU.

    Attributes:
        names: of the fits.
        means: name -> posterior means, all latents side by side, (N, D).
        draws: name -> one draw of the guide for each datum, (N, D).
        prior: name -> draws of the prior, (N, D).
        labels: (N,), NaN where there are none.
        alike: name -> whether the nearest other mean is of the same label, (N,), 0 or 1; NaN without labels.
        surgeries: name -> the KL to the prior, taken apart.
        reports: name -> the account of log p(x).
    """

    names: list[str]
    means: dict[str, Tensor]
    draws: dict[str, Tensor]
    prior: dict[str, Tensor]
    labels: Tensor
    alike: dict[str, Tensor]
    surgeries: dict[str, Surgery]
    reports: dict[str, Report]
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"LatentPanels({', '.join(self.names)}; N = {len(self)})"

    def row_names(self) -> list[str]:
        return self.names

    def table(self) -> dict[str, Tensor]:
        """One row for each fit: its numbers with their standard errors, nats per datum."""
        rows = [_row(self.surgeries[name], self.alike[name], self.reports[name]) for name in self.names]
        return {column: torch.tensor([row[column] for row in rows], dtype=torch.float64) for column in rows[0]}

    def numbers(self) -> dict[str, Any]:
        """The table, fit by fit."""
        rows = {name: {key: number(value) for key, value in row.items()} for name, row in self.named_rows().items()}
        return {"num_data": len(self), "fits": rows}

    def lines(self) -> list[str | TextTable]:
        width = max(10, *map(len, self.names)) + 2
        columns = [("fit", f"<{width}", ""), *((head, pad, form) for _, head, pad, form in _SHOWN)]
        table = self.table()
        rows = list(zip(self.names, *(table[name].tolist() for name, *_ in _SHOWN), strict=True))
        told = ", ".join(name for name in self.names if self.surgeries[name].saturated)
        ceiling = f"{told}: the mutual information is at its ceiling log N, and the marginal KL too high"
        return [
            f"{self.protocol}",
            f"N = {len(self)} data; nats per datum; SE over data; neighbours: of the same label, leave one out",
            "",
            TextTable(columns, rows),
            *[ceiling] * bool(told),
        ]


_SHOWN: list[tuple[str, str, str, str]] = [
    ("marginal_kl", "KL(q(z)||p(z))", ">15", ".3f"),
    ("se_marginal_kl", "SE", ">8", ".3f"),
    ("neighbours", "neighbours", ">12", ".1%"),
    ("se_neighbours", "SE", ">7", ".1%"),
    ("log_evidence", "log p(x)", ">11", ".2f"),
    ("se_log_evidence", "SE", ">7", ".2f"),
    ("mc_se_log_evidence", "MC SE", ">8", ".3f"),
    ("unreliable", "unreliable", ">12", ".0%"),
    ("reconstruction", "E log p(x|z)", ">14", ".2f"),
    ("kl_prior", "KL(q||p)", ">10", ".2f"),
]


def _row(parts: Surgery, same: Tensor, report: Report) -> dict[str, float]:
    neighbours, evidence = mean_and_se(same), mean_and_se(report.log_evidence, report.mc_se_log_evidence)
    undefined = float("nan")
    return {
        "marginal_kl": parts.marginal_kl.mean,
        "se_marginal_kl": parts.marginal_kl.data_se,
        "neighbours": undefined if neighbours["mean"] is None else neighbours["mean"],
        "se_neighbours": undefined if neighbours["data_se"] is None else neighbours["data_se"],
        "log_evidence": float(report.log_evidence.mean()),
        "se_log_evidence": undefined if evidence["data_se"] is None else evidence["data_se"],
        "mc_se_log_evidence": undefined if evidence["mc_se"] is None else evidence["mc_se"],
        "unreliable": report.fraction_unreliable,
        "reconstruction": float(report.reconstruction.mean()),
        "kl_prior": float(report.kl_prior.mean()),
    }


@checked
def latent_panels(
    fits: Mapping,
    data: Any,
    *,
    num_particles: int = 1000,
    budget: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LatentPanels:
    """How the codes of several fits lie, with the numbers of each: of either term of the ELBO alone, say, and of both.

    Args:
        fits: name -> anything with a ``model`` and a ``guide``: a :class:`~pyrovae.Fit`, a VAE.
        data: a Split, whose labels tell neighbours, a tensor (N, ...) or a tuple of tensors.
        num_particles: K, of :func:`~pyrovae.evaluate`, which certifies log p(x) where it can.
        budget: decoder passes for each datum at most, likewise; None sets no limit.
        seed: of all draws.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`LatentPanels`, which ``figures.latent_panels`` draws.

    Raises:
        InputError: for no fit, latents that are whole numbers, and a pair that has no evidence, as an autoencoder.

    References:
        Hoffman and Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence lower bound,
        NIPS workshop on advances in approximate Bayesian inference.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(30, seed=0)
        >>> found = latent_panels({"exact": oracle}, x, num_particles=50, progress=False)
        >>> abs(found.reports["exact"].log_evidence - oracle.log_evidence(x)).max() < 1e-10
        tensor(True)
    """
    if not fits:
        raise InputError("expected fits by name, each with a model and a guide, got none")
    split = as_split(data).drawn(seed)
    quiet: dict[str, Any] = {"seed": seed, "progress": progress}
    pairs = {name: (fit.model, fit.guide) for name, fit in fits.items()}
    of_evidence = {"num_particles": num_particles, "budget": budget, **quiet}
    reports = {name: evaluate(*pair, split, **of_evidence) for name, pair in pairs.items()}
    means = {name: as_vectors(posterior_means(*pair, split, seed)).double() for name, pair in pairs.items()}
    labels = torch.full((len(split),), torch.nan) if split.labels is None else split.labels.cpu()
    return LatentPanels(
        names=list(pairs),
        means=means,
        draws={name: _drawn(*pair, split, seed) for name, pair in pairs.items()},
        prior={name: _prior(*pair, split, seed) for name, pair in pairs.items()},
        labels=labels.double(),
        alike={name: alike(each, labels) + 0 * labels.double() for name, each in means.items()},
        surgeries={name: surgery(*pair, split, **quiet) for name, pair in pairs.items()},
        reports=reports,
        protocol=split.protocol,
    )


def _drawn(model: Any, guide: Any, split: Split, seed: int) -> Tensor:
    """One draw z ~ q(z|x) of each datum, (N, D)."""
    values = posterior(model, guide, split, seed=seed).values
    return as_vectors({name: value[0] for name, value in values.items()}).double()


def _prior(model: Any, guide: Any, split: Split, seed: int) -> Tensor:
    """As many draws z ~ p(z), (N, D)."""
    latents = posterior(model, guide, split[:1], seed=seed).values
    values = sample(model, split, num_samples=len(split), seed=seed).values
    return as_vectors({name: values[name] for name in latents}).double()
