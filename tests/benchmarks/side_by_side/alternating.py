"""Contenders take turns, one round each, in an order that moves on by one each time.

What else the machine does then falls on all of them alike, and the ratio of two times of one round is cleaner than
either time; what is reported is the median of these ratios and the middle half of them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from side_by_side.problems import Problem

FOLDER = Path(__file__).parents[1]


class Middle(NamedTuple):
    """A median between the quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Middle":
        """Of one number or more."""
        return cls(*statistics.quantiles(values, method="inclusive")) if len(values) > 1 else cls(*values * 3)


@dataclass
class Outcome:
    """What became of a contender: its times, or why there are none."""

    seconds: list[float] = field(default_factory=list)  # for one unit of work, round by round
    value: float | None = None  # what the last round found, if anything
    start: float | None = None  # seconds to the end of the first round, imports and compilation included
    versions: dict[str, str] = field(default_factory=dict)
    absent: str | None = None

    def over(self, other: "Outcome") -> Middle | None:
        """The ratios of the times of equal rounds; None where a contender is absent."""
        if self.absent or other.absent:
            return None
        return Middle.of([a / b for a, b in zip(self.seconds, other.seconds, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Worker:
    """A contender's process, its errors written to a file that the caller keeps."""

    def __init__(self, contender: str, problem: Problem, device: str, threads: int, errors: TextIO) -> None:
        spec = {"contender": contender, "problem": asdict(problem), "device": device, "threads": threads}
        command = [sys.executable, "-m", "side_by_side.worker", json.dumps(spec)]
        environment = os.environ | _alike(device, threads)
        self.process = subprocess.Popen(
            command, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        self.outcome, self.errors = Outcome(), errors

    def start(self) -> None:
        """Waits for the end of the first round, compilation and all."""
        self._read()  # the versions
        if first := self._read():
            self.outcome.start = first["seconds"]

    def round(self, *, counts: bool) -> None:
        """Runs one round; unless it is to warm up, its time is kept."""
        if self.outcome.absent:
            return
        with suppress(BrokenPipeError):  # it died since; there is no reply then
            print("round", file=self.process.stdin, flush=True)
        reply = self._read()
        if reply and counts:
            self.outcome.seconds.append(reply["seconds"] / reply["units"])
            self.outcome.value = reply["value"]

    def _read(self) -> dict[str, Any] | None:
        """One reply; None from a contender that is not there, or no longer."""
        if self.outcome.absent:
            return None
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"absent": f"failed: {self._last_words()}"}
        self.outcome.absent = reply.get("absent")
        self.outcome.versions |= reply.get("versions", {})
        return None if self.outcome.absent else reply

    def _last_words(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().strip()
        print(text, file=sys.stderr)
        return text.splitlines()[-1] if text else f"exit status {self.process.returncode}"

    def close(self) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def alternate(
    contenders: Mapping[str, tuple[str, Problem]],
    *,
    device: str = "cpu",
    rounds: int,
    warm_up: int = 2,
    threads: int | None = None,
) -> dict[str, Outcome]:
    """Times contenders side by side.

    Args:
        contenders: what to call it -> its "module:function" and its problem.
        device: "cpu" or "cuda".
        rounds: that count, each of each contender.
        warm_up: rounds before these, beside the first, in which contenders compile.
        threads: of each contender; None is one for each core.
    """
    with ExitStack() as stack:
        workers = {}
        for name, (contender, problem) in contenders.items():
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            workers[name] = Worker(contender, problem, device, threads or cores(), errors)
            stack.callback(workers[name].close)
            workers[name].start()
            print(f"  {name}: {_started(workers[name].outcome)}", file=sys.stderr, flush=True)
        turns = list(workers.values())
        for number in range(warm_up + rounds):
            for worker in turns[number % len(turns) :] + turns[: number % len(turns)]:
                worker.round(counts=number >= warm_up)
        return {name: worker.outcome for name, worker in workers.items()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _alike(device: str, threads: int) -> dict[str, str]:
    """What makes every library take as many threads, the same precision and no more memory than it needs."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    path = os.pathsep.join(filter(None, [str(FOLDER), str(FOLDER.parents[1]), os.environ.get("PYTHONPATH")]))
    jax = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return limits | jax | {"PYTHONPATH": path, "NVIDIA_TF32_OVERRIDE": "0"}


def _started(outcome: Outcome) -> str:
    return outcome.absent or f"first round after {outcome.start:.1f} s"
