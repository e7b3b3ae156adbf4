"""One run of a pair as two traces: their sample sites, and the log density of one site."""

import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Sequence, Set
from types import FrameType
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import _context_wrap
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.base import memory
from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory

Program = Callable[..., Any]
Sites = dict[str, Any]  # name -> Pyro's message of a sample site: "fn", "value", "mask", "scale", ...


PER_DATUM = (
    "Each argument is cut into blocks of rows, so the first dimension of each must be the datum; what belongs to all "
    "data (a table, a matrix) is no argument: let the programs hold it"
)
GIVEN = "_given"  # in a site's ``infer``: what the model observes there, where a harmless value stands for it
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
    def auxiliary(self) -> list[str]:
        """The names of those that the model does not know."""
        latent = self.latent
        return [name for name in self.drawn if name not in latent]

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
    of_guide = traced("guide", guide, guide, args)
    return TracePair(traced("model", model, poutine.replay(model, trace=of_guide), args), of_guide)


def traces_apart(model: Program, guide: Program, args: Sequence[Any]) -> TracePair:
    """Runs the guide, and the model on copies of what it drew: no gradient goes from the one to the other."""
    of_guide = traced("guide", guide, guide, args)
    copies = of_guide.copy()
    for name, site in sites(of_guide, moved=True).items():
        value = site["value"]
        copies.nodes[name] = {**site, "value": value.detach().requires_grad_(value.requires_grad)}
    return TracePair(traced("model", model, poutine.replay(model, trace=copies), args), of_guide)


def traced(role: str, program: Program, handled: Program, args: Sequence[Any]) -> Trace:
    """The trace of a program, run under a handler; of a guide that runs the model (a messenger) what it draws."""
    tracer = poutine.trace(handled)
    try:
        trace = tracer.get_trace(*args)
    except TypeError:
        _check_takes(role, program, args)
        raise
    except IndexError as error:
        raise InputError(
            f"the {role} does not run on a block of {num_rows(args)} rows: {error}. {PER_DATUM}"
        ) from error
    except (ValueError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) and '"forward"' in str(error):
            its = f"the method of {type(program).__name__} that is the program, as vae.{role}"
            raise InputError(f"the {role} is a module without forward: give {its}") from error
        check_no_subsampling(tracer.trace)  # what else is wrong follows from it
        message = re.split(r"\n\s*Trace Shapes:", str(error))[0].strip()
        if isinstance(error, InputError):
            raise type(error)(message) from error
        if reason := None if out_of_memory(error) else _reason(role, error, message, tracer.trace, args):
            raise InputError(reason) from error
        if message != str(error).strip():
            raise type(error)(message) from error
        raise
    if isinstance(_inside_handlers(program), GuideMessenger):
        for name in [name for name, site in sites(trace, moved=True).items() if site["is_observed"]]:
            trace.remove_node(name)
    return trace


def _inside_handlers(program: Any) -> Any:
    """What handlers, Pyro's and ours, are around."""
    while True:
        if getattr(getattr(program, "func", None), "func", None) is _context_wrap:
            program = program.func.args[1]
        elif (inner := getattr(program, "__wrapped__", None)) is None:
            return program
        else:
            program = inner


# How torch and Pyro tell of two sizes that do not fit.
_CLASHES = (
    r"\((\d+)\) must match .*?\((\d+)\)",
    r", (\d+) vs (\d+)",
    r"Inside pyro\.plate\(.*?, (\d+), .*invalid shape of pyro\.param.*torch\.Size\(\[(\d+)",
)


# How torch tells of tensors that do not go together.
_SHAPES = r"shapes cannot be multiplied|must match the size|number of sizes provided|is invalid for input of size"


def _reason(role: str, error: Exception, message: str, trace: Trace, args: Sequence[Any]) -> str | None:
    """Why a run failed, in words; None where that is plain from its message or not known."""
    clash = next(filter(None, (re.search(words, message) for words in _CLASHES)), None)
    if clash and (own := own_rows(role, trace, {int(size) for size in clash.groups()}, num_rows(args), message)):
        return own
    if "Shape mismatch inside plate" in message:
        return (
            f"{message}; does the distribution lack .to_event(n) over a datum's dimensions? (With a parameter for "
            "each datum, give batch_size= the number of data.)"
        )
    site = site_at(traceback.walk_tb(error.__traceback__))
    if site is None and re.search(_SHAPES, message):
        shapes = [str(tuple(arg.shape)) for arg in args if isinstance(arg, Tensor)]
        return (
            f"the {role} does not run on data of shape {', '.join(shapes)}: {first_line(error)}. The first dimension "
            "of the data is the datum, the others are what the programs take"
        )
    if site is None or site["is_observed"]:
        return None
    return (
        f"site '{site['name']}' of the {role}: {family(site['fn'])} cannot be drawn from ({first_line(error)}); look "
        "at its parameters there, or take another family"
    )


def own_rows(role: str, trace: Trace, sizes: Set[int], rows: int, named: str = "") -> str | None:
    """Says that programs have a parameter for each of the rows that they were made with, where one shows it.

    Args:
        role: of the program.
        trace: of it, as far as it came.
        sizes: that did not fit together, that of the rows perhaps among them.
        rows: of the data that it was run on.
        named: text that may name a parameter which is not in the trace yet.
    """
    known: dict[str, Any] = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "param"}
    known |= {name: value for name, value in pyro.get_param_store().items() if f"pyro.param({name}," in named}
    others = sizes - {rows}
    size = min(others) if len(others) == 1 else None
    name = next((name for name, value in known.items() if size in value.shape), None)
    if name is None:
        return None
    return (
        f"the {role} has a parameter ('{name}') for each of {size} rows, but was run on {rows}: it knows the rows that "
        f"it was made with and no others. Give all of them in one block (batch_size={size}); other rows, and data "
        "simulated from the model, need programs that read each row by itself, an encoder, or parameters that all rows "
        "share"
    )


def site_at(frames: Iterable[tuple[FrameType, int]]) -> Any:
    """The message of the innermost sample site that Pyro is at in these frames; None where it is at none."""
    messages = [frame.f_locals.get("initial_msg") for frame, _ in frames if frame.f_code.co_name == "apply_stack"]
    found = [message for message in messages if message and message["type"] == "sample"]
    return found[-1] if found else None


def _check_takes(role: str, program: Program, args: Sequence[Any]) -> None:
    """Raises InputError if a program cannot be called with so many arguments."""
    signature = inspect.signature(_inside_handlers(program))
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


def sites_of(program: Program, *args: Any, role: str = "program") -> Sites:
    """The sample sites of one run of a program, which errors call by its role."""
    return sites(traced(role, program, program, args))


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
        if isinstance(arg, Tensor) and arg.dim() > 0 and len(arg) > 0:
            return len(arg)
    raise InputError("model and guide need a tensor argument whose first dimension is the datum; none was given")


def each_batched(args: Sequence[Any], act: Callable[[Tensor], Tensor]) -> list[Any]:
    """The arguments, changed where their first dimension is the datum."""
    rows = num_rows(args)
    return [act(arg) if isinstance(arg, Tensor) and arg.shape[:1] == (rows,) else arg for arg in args]


def joined_rows(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The arguments for the rows of several batches."""
    first, *_ = parts
    batched = [isinstance(arg, Tensor) and arg.shape[:1] == (num_rows(first),) for arg in first]
    alike = zip(batched, zip(*parts, strict=True), strict=True)
    return [torch.cat(each) if is_batched else each[0] for is_batched, each in alike]


def family(fn: Any) -> str:
    """The name of a distribution inside wrappers that leave its values as they are."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    return type(fn).__name__


def site_log_prob(site: Any) -> Tensor:
    """Log density of a site, of its batch shape: with its mask and without its scale."""
    fn, mask = site["fn"], site["mask"]
    try:
        log_prob = fn.log_prob(site["value"], *site["args"], **site["kwargs"])
    except (AssertionError, NotImplementedError) as error:
        raise InputError(
            f"site '{site['name']}': {family(fn)} has no log density at values of shape {tuple(site['value'].shape)} "
            f"({first_line(error)}). Take a family that scores a batch of data, MixtureSameFamily for a mixture"
        ) from error
    return log_prob if mask is None else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)


def row_growth(model: Program, guide: Program, args: Sequence[Any], enough: int = -1) -> int:
    """Bytes that one run of a pair takes for one more row, by its first two; 0 where it cannot be run on so few.

    Where those two take no more than ``enough`` bytes in all, that is given back, a bound.
    """

    store = pyro.get_param_store()

    def run(rows: int) -> None:
        with store.scope(store.get_state()):  # parameters that are made of so few rows are forgotten
            found = plain_traces(model, guide, each_batched(args, lambda arg: arg[:rows]))
        for site in found.every_site:
            site_log_prob(site)

    try:
        with pyro.validation_enabled(False):
            return memory.Growth(run)(enough)
    except Exception as error:  # the look at the whole batch says what is wrong
        if out_of_memory(error):
            raise
        return 0
