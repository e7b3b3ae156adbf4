"""What a fit must remember to go on as if it had never stopped, and its way into a run folder and back."""

import csv
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.base import storage
from pyrovae.base.errors import InputError
from pyrovae.data.split import Split
from pyrovae.pairs.graphs.graph import place_of
from pyrovae.training.optimizers import Joint, state_of, torch_optimizers

# What may differ when a fit is resumed: how long it goes on, and where and how it runs.
_FREE_SETTINGS = ("epochs", "device", "compile")
_ABSENT = {"precision": "float32"}  # what a run from before a setting was made with


@dataclass
class Progress:
    """Where a fit stands: whole epochs done, steps done of the next one, and what early stopping has seen."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0  # spent so far on the epoch that is not done
    sums: list[float] = field(default_factory=list)  # of its logged terms
    history: list[dict[str, float]] = field(default_factory=list)
    best_elbo: float | None = None
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False
    interrupted: bool = False


def weights(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Every tensor that a fit may change, by name: unconstrained parameters, and the modules' buffers."""
    parameters = dict(pyro.get_param_store().named_parameters())
    known = {id(parameter) for parameter in parameters.values()}
    others = {
        f"modules/{i}/{name}": value
        for i, module in enumerate(modules)
        for name, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor) and id(value) not in known
    }
    return {**parameters, **others}


def set_weights(modules: Sequence[nn.Module], values: Mapping[str, Tensor], source: str = "the run") -> None:
    """Copies stored values into the pair's own tensors.

    Raises:
        InputError: naming the tensor, if the two do not fit together.
    """
    own = weights(modules)
    for name in sorted(own.keys() ^ values.keys()):
        where = "the programs have no such parameter" if name in values else "it is not stored there"
        raise InputError(f"{source} does not fit these programs: {name.replace('$$$', '.')}: {where}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != values[name].shape or tensor.dtype != values[name].dtype:
                raise InputError(
                    f"{source} does not fit these programs: {name.replace('$$$', '.')} is "
                    f"{tensor.dtype} {tuple(tensor.shape)} in the programs, {values[name].dtype} "
                    f"{tuple(values[name].shape)} there"
                )
            tensor.copy_(values[name])


def save(
    folder: Path,
    state: Progress,
    settings: Mapping[str, Any],
    record: Mapping[str, Any],
    modules: Sequence[nn.Module],
    optimizer: PyroOptim,
) -> None:
    """Writes a checkpoint: the folder then holds this state, whole."""
    tensors = {f"weights/{name}": value for name, value in weights(modules).items()}
    tensors |= {f"best/{name}": value for name, value in state.best_weights.items()}
    tensors["rng/torch"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["rng/cuda"] = torch.cuda.get_rng_state(settings["device"])
    optimizer_state = storage.flatten(state_of(optimizer), tensors, "optimizer")
    progress = {name: value for name, value in vars(state).items() if name not in ("history", "best_weights")}
    content = {
        "kind": "fit",
        "settings": dict(settings),
        "record": dict(record),
        "progress": progress,
        "optimizer": optimizer_state,
        "versions": versions(),
    }
    unshared = {name: value.clone() for name, value in tensors.items()}
    storage.write(
        folder,
        content,
        {"weights.safetensors": storage.pack(unshared), "history.csv": history_csv(state.history).encode()},
    )


def restore(
    folder: Path,
    settings: Mapping[str, Any],
    modules: Sequence[nn.Module],
    optimizer: PyroOptim,
    parameters: list[Tensor],
) -> Progress:
    """Puts weights, optimizer and random state back as :func:`save` found them; ``parameters`` are those it steps.

    Raises:
        InputError: if the run is damaged, is of other programs, or was made with other settings.
    """
    content, files = storage.read(folder)
    check_settings(folder, content, settings)
    tensors = storage.unpack(files["weights.safetensors"], f"{folder}: weights")
    set_weights(modules, part(tensors, "weights/"), str(folder))
    restore_optimizer(optimizer, storage.unflatten(content["optimizer"], tensors), parameters)
    torch.set_rng_state(tensors["rng/torch"])
    if "rng/cuda" in tensors and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(tensors["rng/cuda"], settings["device"])
    history, best = read_history(files["history.csv"].decode()), part(tensors, "best/")
    return Progress(**content["progress"] | {"interrupted": False}, history=history, best_weights=best)


def restore_optimizer(optimizer: PyroOptim, state: dict, parameters: list[Tensor]) -> None:
    """Puts back what its ``get_state`` gave; torch's own objects are made now, for Pyro ignores a state later."""
    if not state:
        return
    if isinstance(optimizer, Joint) != ("param_groups" in state):
        kinds = "a PyroOptim", "a function parameters -> optimizer"
        given, before = kinds if not isinstance(optimizer, Joint) else reversed(kinds)
        raise InputError(f"was fitted with {before} as its optimizer, not {given}; resume it as it was")
    optimizer.set_state(state)
    torch_optimizers(optimizer, parameters)


def check_settings(folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises InputError, naming it, if a setting that decides the weights differs from the stored one."""
    stored = content["settings"]
    for name, value in settings.items():
        if name not in _FREE_SETTINGS and stored.get(name, _ABSENT.get(name)) != value:
            raise InputError(f"{folder}: was fitted with {name} = {stored.get(name)}, not {value}; resume it as it was")


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def history_csv(history: Sequence[Mapping[str, float]]) -> str:
    """A history as CSV; numbers read back exactly."""
    if not history:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: repr(value) for name, value in row.items()} for row in history)
    return stream.getvalue()


def read_history(text: str) -> list[dict[str, float]]:
    """The inverse of :func:`history_csv`."""
    rows = csv.DictReader(text.splitlines())
    return [{name: int(value) if name == "epoch" else float(value) for name, value in row.items()} for row in rows]


def versions() -> dict[str, str]:
    """Versions of what a fit rests on."""
    names = ("pyrovae", "pyro-ppl", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def describe_objective(objective: ELBO) -> str:
    """An objective by its class and its plain attributes, but for the plate depth that it guesses by itself."""
    values = {name: value for name, value in vars(objective).items() if isinstance(value, int | float | str)}
    values.pop("max_plate_nesting", None)
    return f"{type(objective).__name__}({', '.join(f'{name}={value}' for name, value in sorted(values.items()))})"


def describe_data(train: Split, valid: Split | None) -> dict[str, Any]:
    """What a checkpoint must say of the data: their shapes and their protocols."""
    return {
        "num_rows": len(train),
        "arguments": [[list(t.shape[1:]), str(t.dtype).removeprefix("torch.")] for t in train.columns],
        "protocol": train.protocol.to_dict(),
        "valid_protocol": valid.protocol.to_dict() if valid else None,
    }


# ------------------------------------------------------------------------------------------------------ in memory


def rng_state() -> list[Tensor]:
    """Torch's random state, on the CPU and on each CUDA device."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def set_rng_state(state: Sequence[Tensor]) -> None:
    """Makes it what :func:`rng_state` gave."""
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])


class Snapshot(AbstractContextManager):
    """Copies of tensors, and torch's random state on every device; as a context it is returned to at the end.

    Args:
        tensors: those that may change; memory that comes twice is kept once, and what no operation can write to (an
            expanded tensor) not at all.

    Example:
        >>> value = torch.ones(2)
        >>> with Snapshot([value]):
        ...     first = value.add_(torch.rand(2)).tolist()
        >>> value.tolist(), first == (value + torch.rand(2)).tolist()
        ([1.0, 1.0], True)
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list({place_of(tensor): tensor for tensor in tensors if _is_writable(tensor)}.values())
        self.values = [torch.empty_like(tensor) for tensor in self.tensors]
        self.save()

    def save(self) -> None:
        """Takes it anew."""
        _copy(self.tensors, self.values)
        self.noise = rng_state()

    def restore(self) -> None:
        """Makes everything as it was, in place."""
        _copy(self.values, self.tensors)
        set_rng_state(self.noise)

    def __exit__(self, *error: Any) -> None:
        self.restore()


def _is_writable(tensor: Tensor) -> bool:
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
