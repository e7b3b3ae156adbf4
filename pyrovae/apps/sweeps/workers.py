"""The fits of a sweep in several processes, one thread each: what they leave are runs, which the sweep then reads."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from pyrovae.apps.sweeps.fits import Fits, StaleRun
from pyrovae.apps.sweeps.grid import Combination
from pyrovae.base.errors import InputError


def in_processes(
    fits: Fits, todo: Sequence[tuple[Combination, int]], num_workers: int, say: Callable[[str], None]
) -> None:
    """Makes the fits that are not kept yet, so many at a time.

    Args:
        fits: how they are made; they are kept in its folder.
        todo: combinations with seeds.
        num_workers: processes.
        say: is told of each that ended.

    Raises:
        StaleRun: if a folder holds another fit.
        KeyboardInterrupt: after Ctrl-C, once the fits that ran are kept.
    """
    left = [(combination, seed) for combination, seed in todo if not fits.is_done(combination, seed)]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its threads
    with ProcessPoolExecutor(num_workers, context, _begin) as pool:
        running = {pool.submit(_one, fits, *each): each for each in left}
        try:
            for number, ended in enumerate(as_completed(running)):
                combination, seed = running[ended]
                say(f"[{number + 1}/{len(left)}] {combination.name}, seed {seed}: {ended.result()}")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _one(fits: Fits, combination: Combination, seed: int) -> str:
    """Makes a fit, and says how it ended; the sweep meets what failed again, as it reads the runs."""
    try:
        found = fits.measure(combination, seed)
    except StaleRun:
        raise
    except (InputError, FloatingPointError) as error:
        return str(error)
    return f"fitted in {found.seconds:.0f} s"
