"""A progress bar on a terminal or in a notebook, silence in a pipe; and what an interrupt leaves."""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from tqdm import TqdmWarning

from pyrovae.base.errors import Interrupted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # it asks for ipywidgets, which are a matter of taste
    from tqdm.auto import tqdm


def bar(*, shown: bool, **settings: Any) -> tqdm:
    """A tqdm bar; ``shown=False`` makes it do nothing, as it does where nobody watches."""
    return tqdm(disable=not (shown and (sys.stderr.isatty() or _in_notebook())), **settings)


@contextmanager
def kept_on_interrupt(done: Sized, record: Callable[[], Any]) -> Iterator[None]:
    """Ctrl-C inside, with some of the work ``done``, raises :class:`~pyrovae.Interrupted` with its record."""
    try:
        yield
    except KeyboardInterrupt:
        if not len(done):
            raise
        raise Interrupted(record()) from None


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C inside sets a flag, to be looked at between two steps; a second one interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
