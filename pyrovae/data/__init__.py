"""Rows and how they came to be: data sets by name or from files, as splits with their protocol.

To add a set: its function in ``datasets.py``, and its line in ``DATASETS``.
"""

from dataclasses import dataclass
from typing import Any

from pyrovae.base.choices import handed_on, resolve

_PATHS = {
    "Dataset": f"{__name__}.split:Dataset",
    "Protocol": f"{__name__}.protocol:Protocol",
    "Split": f"{__name__}.split:Split",
    "as_split": f"{__name__}.split:as_split",
    "load": f"{__name__}.datasets:load",
}


@dataclass(frozen=True)
class Source:
    """A set of data, and what a fit of it takes where nothing is said: the settings of a fit by their names.

    Args:
        about: one line on its rows.
        path: of the function that loads it.
    """

    about: str
    path: str
    latent: int = 10
    hidden: tuple[int, ...] = (200,)
    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-3
    kl_warmup: float = 0.0

    def __call__(self, **options: Any) -> Any:
        return resolve(self.path)(**options)


_MNIST_LIKE: dict[str, Any] = {"latent": 50, "hidden": (400, 400), "lr": 2e-3, "kl_warmup": 10.0}
DATASETS = {
    "digits": Source(
        "scikit-learn's 8x8 digits, counts 0 to 16",
        f"{__name__}.datasets:digits",
        latent=16,
        epochs=300,
        batch_size=64,
        lr=2e-3,
        kl_warmup=30.0,
    ),
    "mnist": Source("28x28 digits, grey", f"{__name__}.datasets:mnist", **_MNIST_LIKE),
    "fashion-mnist": Source("28x28 clothes, grey", f"{__name__}.datasets:fashion_mnist", **_MNIST_LIKE),
    "mnist-static": Source("28x28 digits, bits drawn once", f"{__name__}.datasets:mnist_static", **_MNIST_LIKE),
}
OWN_FILES = Source("your own .npy, .npz, .csv or folder, by its path", f"{__name__}.datasets:load")
__all__ = ["DATASETS", "OWN_FILES", "Source", *_PATHS]
__getattr__ = handed_on(__name__, _PATHS)
