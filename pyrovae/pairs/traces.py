"""One run of a pair as two traces: their sample sites, and the log density of one site."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import _context_wrap
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.base.errors import InputError

Program = Callable[..., Any]
Sites = dict[str, Any]  # name -> Pyro's message of a sample site: "fn", "value", "mask", "scale", ...


PER_DATUM = (
    "Each argument is cut into blocks of rows, so the first dimension of each must be the datum; what belongs to all "
    "data (a table, a matrix) is no argument: let the programs hold it"
)
MOVED = "_moved"  # in a site's ``infer``: an auxiliary draw that stands in the density of a latent


class TracePair(NamedTuple):
    """One run of the guide, and of the model on what the guide drew."""

    model: Trace
    guide: Trace

    @property
    def joint(self) -> Sites:
        """The model's sites, in its order."""
        return sites(self.model)

    @property
    def observed(self) -> Sites:
        """Those that have data: the likelihood."""
        return {name: site for name, site in self.joint.items() if site["is_observed"]}

    @property
    def latent(self) -> Sites:
        """The others: the prior."""
        return {name: site for name, site in self.joint.items() if not site["is_observed"]}

    @property
    def drawn(self) -> Sites:
        """The guide's sites, auxiliary ones too."""
        return sites(self.guide)

    @property
    def draws(self) -> dict[str, Tensor]:
        """All values that the guide drew, those of auxiliary draws that stand in the density of a latent too."""
        return {name: site["value"] for name, site in sites(self.guide, moved=True).items()}

    @property
    def every_site(self) -> list[Any]:
        """The sites of the model, then those of the guide."""
        return [*self.joint.values(), *self.drawn.values()]

    def score(self) -> "TracePair":
        """Puts "log_prob" at every site, by its scale and mask, and "score_parts" at those of the guide."""
        self.model.compute_log_prob()
        self.guide.compute_score_parts()
        return self


def plain_traces(model: Program, guide: Program, args: Sequence[Any]) -> TracePair:
    """Runs the guide, and the model on what it drew.

    Raises:
        InputError: without the table of shapes that Pyro appends; for sizes that do not fit a plate, with advice.
    """
    of_guide = _traced("guide", guide, guide, args)
    return TracePair(_traced("model", model, poutine.replay(model, trace=of_guide), args), of_guide)


def _traced(role: str, program: Program, handled: Program, args: Sequence[Any]) -> Trace:
    """The trace of a program, run under a handler."""
    tracer = poutine.trace(handled)
    try:
        return tracer.get_trace(*args)
    except TypeError:
        _check_takes(role, program, args)
        raise
    except IndexError as error:
        raise InputError(
            f"the {role} does not run on a block of {num_rows(args)} rows: {error}. {PER_DATUM}"
        ) from error
    except (ValueError, RuntimeError) as error:
        check_no_subsampling(tracer.trace)  # what else is wrong follows from it
        message = re.split(r"\n\s*Trace Shapes:", str(error))[0].strip()
        if "Shape mismatch inside plate" in message:
            raise InputError(
                f"{message}; does the distribution lack .to_event(n) over a datum's dimensions? (With a parameter for "
                "each datum, give batch_size= the number of data.)"
            ) from error
        if isinstance(error, InputError) or message != str(error).strip():
            raise type(error)(message) from error
        raise


def _check_takes(role: str, program: Program, args: Sequence[Any]) -> None:
    """Raises InputError if a program cannot be called with so many arguments."""
    while getattr(getattr(program, "func", None), "func", None) is _context_wrap:
        program = program.func.args[1]  # type: ignore[attr-defined]  # inside a handler of Pyro's
    signature = inspect.signature(program)
    try:
        signature.bind(*args)
    except TypeError as error:
        names = [one.name for one in signature.parameters.values() if one.default is one.empty]
        raise InputError(
            f"the {role} takes {len(names)} arguments ({', '.join(names)}), the data have {len(args)}: both programs "
            "are called with all tensors of the data; give a tuple of them (labels come with split.with_labels())"
        ) from error


def check_no_subsampling(*traces: Trace) -> None:
    """Raises InputError, naming the plate, if a program draws rows by itself."""
    for trace in traces:
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or not site_is_subsample(site):
                continue
            fn: Any = site["fn"]
            if fn.subsample_size is not None and fn.subsample_size < fn.size:
                raise InputError(
                    f"plate '{name}' draws its own rows (subsample_size={fn.subsample_size} of {fn.size}): "
                    "give the rows as the argument, pyro.plate(name, size, subsample=rows) or pyro.plate(name, len(x))"
                )


def sites_of(program: Program, *args: Any) -> Sites:
    """The sample sites of one run of a program."""
    return sites(_traced("program", program, program, args))


def sites(trace: Trace, *, moved: bool = False) -> Sites:
    """The sample sites of a trace by name, without those that plates, ``pyro.deterministic`` and moves make.

    Args:
        trace: of one run.
        moved: whether to name auxiliary draws that stand in the density of a latent too.
    """
    left_out = {"_deterministic"} if moved else {"_deterministic", MOVED}
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not left_out & (site["infer"] or {}).keys()
    }


def total_log_prob(site: Any) -> Tensor:
    """The sum of a scored site's log density, by its scale and mask: a scalar."""
    return site["log_prob_sum"]


def num_rows(args: Sequence[Any]) -> int:
    """How many data a tuple of arguments holds: the first dimension of its first tensor."""
    for arg in args:
        if isinstance(arg, Tensor) and arg.dim() > 0:
            return len(arg)
    raise InputError("model and guide need a tensor argument whose first dimension is the datum; none was given")


def each_batched(args: Sequence[Any], act: Callable[[Tensor], Tensor]) -> list[Any]:
    """The arguments, changed where their first dimension is the datum."""
    rows = num_rows(args)
    return [act(arg) if isinstance(arg, Tensor) and arg.shape[:1] == (rows,) else arg for arg in args]


def site_log_prob(site: Any) -> Tensor:
    """Log density of a site, of its batch shape: with its mask and without its scale."""
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    mask = site["mask"]
    return log_prob if mask is None else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)
