"""The command fit: its settings, each argument beside its default, and what is done with them."""

import math
import sys
import time
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyrovae as pv
from pyrovae.apps.arguments import Action
from pyrovae.apps.recipes import CHOICES, check_support, choose, likelihood_of, rows_with_missing
from pyrovae.base.choices import parsed
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.data.named import BINARIZATIONS, DATASETS, FitDefaults, existing
from pyrovae.data.tables.names import IGNORED, KINDS, check_kinds, parse_columns


class Setting(NamedTuple):
    """A setting of a fit, kept in its run.

    In its help, ``{names}`` is what can be chosen, ``{default}`` its default, and ``{of_data}`` that of each data set.
    """

    default: Any  # None: none, or as a fit of the data is: a field of this name of ``FitDefaults``
    about: str
    argument: Mapping[str, Any] = {}  # how argparse reads it


SETTINGS = {
    "data": Setting("digits", "{names}, or a path [{default}]"),
    "binarization": Setting(None, "none, dynamic, static or threshold [the set's own]"),
    "divisor": Setting(None, "divide the data by this; the protocol keeps the Jacobian", {"type": float}),
    "dequantize": Setting(None, "add uniform noise to whole numbers, for a density of them", {"action": "store_true"}),
    "columns": Setting(
        None,
        f"of a table: name:kind,...; kinds are {', '.join(KINDS)}, {IGNORED}; a name may be a pattern; name:low<high "
        "are the levels of an ordinal one [what is plain]",
    ),
    "covariates": Setting(None, "of a table: columns that both programs are conditioned on, set apart by commas"),
    "standardize": Setting(None, "real columns of a table as standard scores [yes]", {"action": BooleanOptionalAction}),
    "group": Setting(None, "column of a table: no value of it is in two parts"),
    "time": Setting(None, "column of a table: the earliest rows train, the latest test"),
    "labels": Setting(
        False, "condition on the labels, p(x | y); your programs get them as second argument", {"action": "store_true"}
    ),
    "semi_supervised": Setting(
        None,
        "observe the class of N training data, as many of each class, drawn by --seed, and sum that of all others out; "
        "your programs get labels as second argument, -1 where unknown",
        {"type": int, "metavar": "N"},
    ),
    "classifier_weight": Setting(
        500.0,
        "of --semi-supervised: alpha, of the mean log q(y | x) of labelled data beside the ELBO [{default:g}]",
        {"type": float, "metavar": "ALPHA"},
    ),
    "prior": Setting("normal", "{names} [{default}]"),
    "likelihood": Setting(None, "{names} [natural]"),
    "guide": Setting("normal", "{names} [{default}]"),
    "network": Setting("mlp", "{names} [{default}]"),
    "latent": Setting(None, "dimensions of z [{of_data}]", {"type": int}),
    "hidden": Setting(None, "widths of the hidden layers of the encoder [{of_data}]", {"type": int, "nargs": "*"}),
    "from": Setting(None, "begin with the weights of this run, and with its settings", {"metavar": "RUN"}),
    "only": Setting(None, "guide: train the guide for the model as it is, that of --from"),
    "objective": Setting("elbo", "{names} [{default}; summed of --semi-supervised]"),
    "epochs": Setting(None, "passes over the training data [{of_data}]", {"type": int}),
    "batch_size": Setting(None, "data in a step [{of_data}]", {"type": int}),
    "lr": Setting(None, "learning rate of Adam [{of_data}]", {"type": float}),
    "schedule": Setting("cosine", "of the learning rate: cosine or constant [{default}]"),
    "kl_warmup": Setting(
        None, "epochs for the KL's weight to reach 1 [{of_data}]", {"type": float, "metavar": "EPOCHS"}
    ),
    "patience": Setting(None, "end after so many epochs without a better validation ELBO", {"type": int}),
    "precision": Setting("float32", "of the networks' products: float32 or bfloat16 [{default}]"),
    "seed": Setting(0, "of weights, order and noise [{default}]", {"type": int}),
}
OF_THE_VAE = ("prior", "likelihood", "guide", "network", "latent", "hidden")  # which a user's own file replaces
OF_THE_TABLE = ("columns", "covariates", "standardize", "group", "time")
# What a fit that begins with a run takes over from it.
OF_THE_RUN = ("data", "binarization", "divisor", "dequantize", "labels", "semi_supervised", *OF_THE_TABLE, *OF_THE_VAE)
COMPILE: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
}


def fit(p: ArgumentParser) -> Action:
    """Fit a VAE, or your own pair of programs, and keep it as a run.

    example:
      pyrovae fit --data digits --latent 8 --out runs/digits
      pyrovae fit --data mnist --prior mixture:50 --network gated:300,300 --epochs 50 --out runs/mnist
      pyrovae fit --data wine.csv --columns quality:ordinal --out runs/wine
      pyrovae fit --data digits --labels --out runs/given-label
      pyrovae fit --data digits --semi-supervised 100 --out runs/few-labels
      pyrovae fit my_programs.py --data digits --epochs 20 --out runs/mine
      pyrovae fit --resume --out runs/mnist
      pyrovae fit --from runs/mnist --only guide --objective half-asleep --out runs/mnist-refit
    Numbers behind a name are its own; `pyrovae list prior` says which a prior takes, and so for the other names.
    The step is compiled on CUDA, and on the CPU from 6,000 steps on: 5 to 20 seconds once, one or two afterwards.
    """
    help = "defines model and guide, or build() returning them; with model alone, encoder_for writes the guide"
    p.add_argument("program", nargs="?", metavar="FILE.py", help=help)
    for name, setting in SETTINGS.items():
        p.add_argument(f"--{name.replace('_', '-')}", default=None, help=_help(name, setting), **setting.argument)
    p.add_argument("--data-dir", help="where the files of named data sets lie [PYROVAE_DATA]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto: cuda where there is one]")
    p.add_argument("--compile", default="auto", help="the training step: auto, yes or no [auto: where it is repaid]")
    p.add_argument("--out", required=True, metavar="RUN", help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from what RUN holds, as it was begun")
    return _fit


def _help(name: str, setting: Setting) -> str:
    names, other = CHOICES.get("data set" if name == "data" else name, ()), FitDefaults().to_dict().get(name)
    of_data = {source: entry.fit.to_dict().get(name) for source, entry in DATASETS.items()}
    told = [f"{source} {value}" for source, value in of_data.items() if value != other] + [f"else {other}"]
    return setting.about.format(names=", ".join(names), default=setting.default, of_data=", ".join(told))


def record(**given: Any) -> dict[str, Any]:
    """A full record of a fit as plain values: what is given, else what suits the data.

    Raises:
        InputError: for a name that is not there, a rate or a warm-up that cannot be.
    """
    given = {name: value for name, value in given.items() if value is not None}
    source = given.get("data", SETTINGS["data"].default)
    if source not in DATASETS:  # so that the run is brought back from another folder
        given = {"data_at": str(Path(source).expanduser().resolve()), **given}
    of_data = DATASETS[source].fit if source in DATASETS else FitDefaults()
    if "semi_supervised" in given:
        given = {"objective": "summed", **given}
    settings = _filled({**of_data.to_dict(), **given})
    _check_names(settings)
    if "kl_warmup" not in given and not parsed(settings["objective"], CHOICES["objective"])[0].takes_warmup:
        settings["kl_warmup"] = 0.0
    if not settings["lr"] > 0:
        raise InputError(f"--lr must be positive, got {settings['lr']}")
    if settings["kl_warmup"] < 0:
        raise InputError(f"--kl-warmup must not be negative, got {settings['kl_warmup']}")
    _check_classes(settings)
    return settings


def _check_names(settings: Mapping[str, Any]) -> None:
    """Raises InputError for a name that is not there; where it is None there is none to check."""
    for kind, choices in {**CHOICES, "schedule": SCHEDULES}.items():
        if settings.get(kind) is not None:
            choose(kind, settings[kind], choices)


def _check_classes(settings: Mapping[str, Any]) -> None:
    """Raises InputError where classes are to be given and to be summed out, or a weight is that of no classifier."""
    if settings["semi_supervised"] is None:
        if settings["classifier_weight"] != SETTINGS["classifier_weight"].default:
            raise InputError("--classifier-weight belongs to --semi-supervised N: give both or neither")
    elif settings["labels"]:
        raise InputError("--labels conditions on the class and --semi-supervised sums it out: give one of them")
    elif not settings["classifier_weight"] >= 0:
        raise InputError(f"--classifier-weight must not be negative, got {settings['classifier_weight']}")


def training(record: Mapping[str, Any], train: Any = None) -> dict[str, Any]:
    """The arguments of :func:`pyrovae.fit` that a record decides.

    Args:
        record: of the fit.
        train: the data that it trains on, whose labelled ones the classifier of a semi-supervised fit looks at.
    """
    from pyrovae.training.optimizers import adam

    record = _filled(record)
    same = {
        name: record[name] for name in ("only", "kl_warmup", "epochs", "batch_size", "patience", "precision", "seed")
    }
    choice, of_objective = parsed(record["objective"], CHOICES["objective"])
    objective, schedule = choice(**of_objective), SCHEDULES[record["schedule"]]
    if record["semi_supervised"] is not None and record["classifier_weight"]:
        options = {"weight": record["classifier_weight"], "batch_size": record["batch_size"]}
        objective = pv.objectives.Classifying(objective, train, **options)
    return {"objective": objective, "optimizer": adam(record["lr"]), "schedule": schedule, **same}


def _filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what a run of long ago may lack."""
    return {**{name: setting.default for name, setting in SETTINGS.items()}, **record}


def _fit(given: Namespace) -> int:
    _check_before_all(given)
    from pyrovae.apps import loading

    record = _record_to_fit(given)
    dataset = loading.dataset_of(record, given.data_dir)
    model, guide, record = loading.pair_of(record, dataset, given.program)
    print(_about(dataset, model, record))
    if record["from"] and not given.resume:
        begun = pv.runs.load(record["from"], model, guide)
        model, guide = begun.model, begun.guide
    train = loading.train_of(dataset, record)
    fitted = pv.fit(
        model,
        guide,
        train,
        valid=loading.split_of(dataset, "valid", record),
        **training(record, train),
        device=given.device,
        compile=COMPILE[given.compile],
        out=given.out,
        resume=given.resume,
        callback=None if sys.stderr.isatty() else _narrator(record["epochs"]),
        record=record,
    )
    return _tell(fitted, given.out, given.program)


def _about(dataset: Any, model: Any, record: Mapping[str, Any]) -> str:
    """What is fitted: the data, and the likelihood that was chosen by name or by the kind of data."""
    lines = [str(dataset)]
    if record["program"] is None:
        from pyrovae.pairs.context import modules_of

        lines.append(f"likelihood {record['likelihood']}: {likelihood_of(modules_of(model)[0])}")
        if any((missing := rows_with_missing(dataset)).values()):
            found = ", ".join(f"{count} of {name}" for name, count in missing.items())
            lines.append(f"rows with missing values: {found}; left out of the likelihood, and told to the encoder")
    if record["kl_warmup"] > record["epochs"]:
        lines.append(f"the KL warms up for {record['kl_warmup']:g} epochs, which this fit does not reach")
    return "\n".join(lines)


def _check_before_all(given: Namespace) -> None:
    """Raises InputError for what is wrong with the names alone, before anything is imported that takes seconds."""
    _check_names(vars(given))
    choose("choice of --compile", given.compile, COMPILE)
    counts = {name: getattr(given, name) for name in ("epochs", "batch_size")}
    check_at_least_one(**{name: count for name, count in counts.items() if count is not None})
    if given.binarization is not None:
        choose("binarization", given.binarization, BINARIZATIONS)
    if given.data is not None and given.data not in DATASETS:
        existing(given.data)
    if given.columns is not None:
        check_kinds(parse_columns(given.columns))
    if not (given.program or given.resume or getattr(given, "from")):
        check_support(*(getattr(given, kind) or SETTINGS[kind].default for kind in ("prior", "guide")))


def _record_to_fit(given: Namespace) -> dict[str, Any]:
    """The record of a new run, or of the run to be resumed."""
    from pyrovae.apps.loading import check_program
    from pyrovae.base import storage

    settings = {name: getattr(given, name) for name in SETTINGS}
    if not storage.holds_run(given.out):
        if given.resume:
            raise InputError(f"{given.out}: holds no run to resume; leave --resume out to begin one")
        if settings["from"]:
            return _record_from(settings, given.program)
        if settings["only"] and not given.program:
            raise InputError("--only guide takes a model that was fitted: give its run, --from RUN")
        used = [name for name in OF_THE_VAE if settings[name] is not None]
        if given.program and used:
            raise InputError(f"--{used[0]} is of the built-in VAE; {given.program} says it by itself")
        return record(**settings)
    if not given.resume:
        raise InputError(f"{given.out}: already holds a run; use --resume to go on, or another --out")
    stored = _filled(pv.runs.recorded(given.out))
    check_program(given.out, stored, given.program)
    for name, value in settings.items():
        if value is not None and value != stored[name] and name != "epochs":
            raise InputError(f"{given.out}: was begun with --{name.replace('_', '-')} {stored[name]}, not {value}")
    return stored if given.epochs is None else {**stored, "epochs": given.epochs}


def _record_from(settings: Mapping[str, Any], program: str | None) -> dict[str, Any]:
    """The record of a run that begins with the weights of another: its settings, but for what is given."""
    from pyrovae.apps.loading import check_program

    run = settings["from"]
    stored = _filled(pv.runs.recorded(run))
    check_program(run, stored, program)
    given = {name: value for name, value in settings.items() if value is not None}
    kept = OF_THE_RUN if stored["semi_supervised"] is None else (*OF_THE_RUN, "seed")  # which draws the labels
    for name in kept:
        if name in given and given[name] != stored[name]:
            was = f"was fitted with --{name.replace('_', '-')} {stored[name]}"
            raise InputError(f"{run}: {was}, as is what begins with it: leave it out")
    return record(**{**stored, "kl_warmup": 0.0, **given})


def _tell(fitted: Any, run: str, program: str | None) -> int:
    if fitted.history:
        last = fitted.history[-1]
        best = f"; the weights are those of epoch {fitted.best_epoch}" if fitted.best_epoch else ""
        print(
            f"{run}: {last['epoch']} epochs, ELBO {last['elbo']:.3f} on the training data, "
            f"{last['valid_elbo']:.3f} on the validation data (nats per datum){best}"
        )
    again, of = (f"{program} ", f" --program {program}") if program else ("", "")
    if fitted.interrupted:
        print(f"interrupted; the run is saved: go on with pyrovae fit {again}--resume --out {run}", file=sys.stderr)
        return 130
    print(f"next: pyrovae evaluate {run}{of}")
    return 0


def _narrator(epochs: int) -> Callable[[int, Any], None]:
    """A callback that prints a line now and then, where there is no terminal for a progress bar."""
    told = time.monotonic()

    def tell(epoch: int, fitted: Any) -> None:
        nonlocal told
        if time.monotonic() - told > 10 and epoch < epochs:
            told, row = time.monotonic(), fitted.history[-1]
            print(f"epoch {epoch}/{epochs}: ELBO {row['elbo']:.2f}, validation {row['valid_elbo']:.2f}", flush=True)

    return tell
