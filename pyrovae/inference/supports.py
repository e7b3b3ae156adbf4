"""A guide must be able to draw all that the prior can: what it leaves out, importance sampling misses in silence."""

from collections.abc import Iterable
from typing import Any

from pyro.poutine import Trace

from pyrovae.base.errors import InputError
from pyrovae.inference.pairs import sites
from pyrovae.inference.structure import Structure, layers, scored, support_of, support_text

NUM_DRAWS = 100  # of the prior, for each datum


def refuse_narrow_guide(model_trace: Trace, guide_trace: Trace, structure: Structure) -> None:
    """Looks, at every site whose two supports differ, whether draws of the prior lie outside the guide's.

    Raises:
        InputError: naming the site, both families, and how many data have such draws.
    """
    prior, drawn = sites(model_trace), sites(guide_trace)
    for name in (name for name in structure.latents if name in drawn):
        fn = prior[name]["fn"]
        ours, theirs = layers(drawn[name]["fn"])[-1], layers(fn)[-1]
        support = support_of(ours)
        if support is None or str(support) == str(support_of(theirs)):
            continue
        missed = ~support.check(fn.sample((NUM_DRAWS,)))
        missed = missed.reshape(NUM_DRAWS, *fn.batch_shape, -1).any(-1)
        if missed.any():
            others = [dim for dim in range(-missed.dim(), 0) if dim != structure.dim]
            by_datum = missed.sum(others) > 0
            raise InputError(
                f"site '{name}': the guide ({type(ours).__name__}, {support_text(ours)}) cannot draw all that the "
                f"prior ({type(theirs).__name__}, {support_text(theirs)}) can: {missed.double().mean():.0%} of the "
                f"prior's draws, for {int(by_datum.sum())} of {len(by_datum)} data, would have an infinite weight, and "
                f"importance sampling misses them without a sign. Give '{name}' the prior's support in the guide"
            )


def refuse_masked(model_trace: Trace, guide_trace: Trace, latents: Iterable[str]) -> None:
    """Demands that all that is drawn at the latent sites counts, in the guide and in the model.

    Raises:
        InputError: naming the site.
    """
    for name in latents:
        found: list[Any] = [trace.nodes[name] for trace in (model_trace, guide_trace)]
        if not all(scored(site, site["value"], 0).all() for site in found):
            raise InputError(f"site '{name}' is masked: what is not scored has no posterior; draw only what counts")
