"""The fits of a sweep in several processes, one thread each: what they leave are runs, which the sweep then reads."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import Connection
from typing import Any

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
        KeyboardInterrupt: after Ctrl-C, once the fits that ran are kept: each ends with the step that it is at.
    """
    left = [(combination, seed) for combination, seed in todo if not fits.is_done(combination, seed)]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its threads
    watched, held = context.Pipe(duplex=False)
    with held, ProcessPoolExecutor(num_workers, context, _begin, (watched,)) as pool:
        running = {pool.submit(_one, fits, *each): each for each in left}
        try:
            for number, ended in enumerate(as_completed(running)):
                combination, seed = running[ended]
                say(f"[{number + 1}/{len(left)}] {combination.name}, seed {seed}: {ended.result()}")
        except BaseException:
            held.close()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Worker:
    """What a process knows of itself: whether it is at a fit, and whether it is to begin no other."""

    is_fitting = False
    is_stopped = False


def _begin(watched: Connection) -> None:
    """Sets a worker up: on its own with Ctrl-C, of which it hears by the end of a pipe, as of the end of the sweep."""
    import torch

    torch.set_num_threads(1)
    os.setpgrp()  # not the terminal's: it would interrupt a fit that is told to end a second time, and so at once
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def _watch(watched: Connection) -> None:
    """Interrupts this process, and the compilers that it runs, once the other end of a pipe is closed."""
    try:
        watched.recv_bytes()
    except EOFError:
        _Worker.is_stopped = True
        os.killpg(os.getpgrp(), signal.SIGINT)


def _interrupt(number: int, frame: Any) -> None:
    if _Worker.is_fitting:
        raise KeyboardInterrupt


def _one(fits: Fits, combination: Combination, seed: int) -> str:
    """Makes a fit, and says how it ended; the sweep meets what failed again, as it reads the runs."""
    _Worker.is_fitting = True
    try:
        if _Worker.is_stopped:  # it was handed over before the others were taken back
            raise KeyboardInterrupt
        found = fits.measure(combination, seed)
    except StaleRun:
        raise
    except (InputError, FloatingPointError) as error:
        return str(error)
    finally:
        _Worker.is_fitting = False
    return f"fitted in {found.seconds:.0f} s"
