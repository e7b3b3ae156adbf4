"""The data sets by name, each with what a fit of it is like, and what may be asked of one; read when it is loaded."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrovae.base.errors import InputError, nearest

_READERS = "pyrovae.data.published_files"
BINARIZATIONS = ("none", "dynamic", "static", "threshold")
PARTS = ("train", "valid", "test")
SPLITS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class FitDefaults:
    """What a fit of a data set is like where nothing else is said; each field is the setting of that name."""

    latent: int = 10
    hidden: tuple[int, ...] = (200,)
    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    kl_warmup: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, fit for JSON."""
        return asdict(self) | {"hidden": list(self.hidden)}


@dataclass(frozen=True)
class NamedSet:
    """An entry of ``DATASETS``: everything that is known of a set.

    Attributes:
        about: what it is, in one line.
        path: of the function that reads it, (name, options) -> source rows of the parts "train", "valid" and "test".
        fit: what a fit of it is like where nothing else is said.
        binarization: the usual one.
        divisor: the usual one of rows that are not binarized; one more of those that are dequantized, unless it is 1.
        probability: the value that means probability 1, by which rows to binarize are divided.
        fixed: whether the rows come binarized, so that nothing is divided or drawn.
    """

    about: str
    path: str
    fit: FitDefaults = FitDefaults()
    binarization: str = "none"
    divisor: float = 1.0
    probability: float = 1.0
    fixed: bool = False


@dataclass(frozen=True)
class Options:
    """The options of :func:`~pyrovae.data.load`, which says what each of them means.

    Raises:
        InputError: for an option that no data set could have.
    """

    binarization: str | None
    divisor: float | None
    seed: int
    data_dir: str | Path | None
    download: bool
    splits: tuple[float, float, float]
    mmap: bool | None
    dequantize: bool = False

    def __post_init__(self) -> None:
        given, divisor, seed, splits = self.binarization, self.divisor, self.seed, self.splits
        if given is not None and given not in BINARIZATIONS:
            hint = nearest(str(given), BINARIZATIONS) or " choose one of them"
            raise InputError(f"expected binarization one of {', '.join(BINARIZATIONS)}, got {given!r};{hint}")
        if self.dequantize and given not in (None, "none"):
            raise InputError(f'expected no binarization of what is dequantized, got "{given}"; leave out one of them')
        if divisor is not None and not 0 < divisor < math.inf:
            raise InputError(f"expected a finite divisor > 0, got {divisor}; give the value that becomes 1")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise InputError(f"expected an integer seed from 0 to 2**32 - 1, got {seed!r}; give another")
        if len(splits) != 3 or not (min(splits) > 0 and abs(sum(splits) - 1) < 1e-6):
            raise InputError(f"expected three positive fractions with the sum 1 as splits, got {splits}; e.g. {SPLITS}")


DIGITS_FIT = FitDefaults(latent=16, epochs=300, batch_size=64, lr=2e-3, kl_warmup=30.0)
MNIST_FIT = FitDefaults(latent=50, hidden=(400, 400), lr=2e-3, kl_warmup=10.0)
GREY = (f"{_READERS}:read_grey_images", MNIST_FIT, "dynamic", 255.0, 255.0)
DATASETS = {
    "digits": NamedSet(
        "scikit-learn's 8x8 digits, counts 0 to 16: 1,197 / 300 / 300; needs no network",
        f"{_READERS}:read_digits",
        DIGITS_FIT,
        probability=16.0,
    ),
    "colour-digits": NamedSet(
        "made of digits: each drawn in a hue, by its class and a seeded draw; 3x8x8, counts 0 to 16; needs no network",
        f"{_READERS}:read_colour_digits",
        DIGITS_FIT,
        probability=16.0,
    ),
    "mnist": NamedSet("28x28 digits, grey: 50,000 / 10,000 / 10,000", *GREY),
    "fashion-mnist": NamedSet("28x28 clothes, grey: 50,000 / 10,000 / 10,000", *GREY),
    "mnist-static": NamedSet(
        "28x28 digits as Larochelle binarized them once, test rows sorted by class; never downloaded",
        f"{_READERS}:read_static_mnist",
        MNIST_FIT,
        binarization="static",
        fixed=True,
    ),
}


def existing(source: str | Path) -> Path:
    """The path of data that are no named set.

    Raises:
        InputError: where nothing is there; offers the nearest name.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    hint = nearest(str(source), DATASETS) or " check the name or the path"
    raise InputError(
        f'expected one of {", ".join(DATASETS)}, or an existing file or folder, got "{source}", '
        f"which is not there;{hint}"
    )
