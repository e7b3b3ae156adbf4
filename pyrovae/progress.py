"""A progress bar on a terminal or in a notebook, silence in a pipe."""

import sys
import warnings
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # it asks for ipywidgets, which are a matter of taste
    from tqdm.auto import tqdm


def bar(*, shown: bool, **settings: Any) -> tqdm:
    """A tqdm bar; ``shown=False`` makes it do nothing, as it does where nobody watches."""
    return tqdm(disable=not (shown and (sys.stderr.isatty() or _in_notebook())), **settings)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
