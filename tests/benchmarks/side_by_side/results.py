"""What a benchmark leaves: a Markdown table, the same numbers as JSON, and a figure; and on which machine."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side.alternating import FOLDER, Middle, Outcome, cores

FOLDER_OF_RESULTS = FOLDER / "results"


class Unit(NamedTuple):
    """What times are given in."""

    name: str
    per_second: float


MILLISECONDS = Unit("ms per step", 1e3)
MICROSECONDS = Unit("µs per step", 1e6)
PER_PASS = Unit("µs per decoder pass", 1e6)


class Column(NamedTuple):
    """A column of ratios: a row's time over that of ``other``, or the other way round."""

    title: str
    other: str
    inverse: bool = False


def table(outcomes: Mapping[str, Outcome], unit: Unit, columns: Sequence[Column], value: str) -> str:
    """Markdown: a row for each contender, medians with the middle half in brackets."""
    titles = ["contender", unit.name, *(column.title for column in columns), value, "first round after"]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    lines += [_row(name, outcomes, unit, columns) for name in outcomes]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(name: str, outcomes: Mapping[str, Outcome], unit: Unit, columns: Sequence[Column]) -> list[str]:
    outcome = outcomes[name]
    if outcome.absent:
        return [name, outcome.absent, *["–"] * (len(columns) + 2)]
    times = Middle.of([seconds * unit.per_second for seconds in outcome.seconds])
    ratios = [_ratio(outcome, outcomes[column.other], column.inverse) for column in columns]
    found = "–" if outcome.value is None else f"{outcome.value:.2f}"
    return [name, text(times), *map(text, ratios), found, f"{outcome.start:.1f} s"]


def _ratio(outcome: Outcome, other: Outcome, inverse: bool) -> Middle | None:
    return other.over(outcome) if inverse else outcome.over(other)


def text(middle: Middle | None) -> str:
    """``median (low to high)``."""
    if middle is None:
        return "–"
    low, median, high = map(number, middle)
    return f"{median} ({low} to {high})"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def seconds_text(seconds: float) -> str:
    """A time to three digits, in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


# ------------------------------------------------------------------------------------------------- the machine


def machine(device: str, threads: int | None = None) -> dict[str, Any]:
    """Processor and cores, never a name; the accelerator where one was used."""
    found = {"processor": _processor(), "cores": cores(), "python": platform.python_version()}
    if threads:
        found["threads"] = threads
    return found if device == "cpu" else found | {"accelerator": _accelerator()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _accelerator() -> str:
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def versions(*groups: Mapping[str, Outcome]) -> dict[str, str]:
    """The libraries of all contenders."""
    found: dict[str, str] = {}
    for outcomes in groups:
        for outcome in outcomes.values():
            found |= outcome.versions
    return found


# --------------------------------------------------------------------------------------------------- the files


def write(name: str, markdown: str, numbers: Mapping[str, Any], figure: Any, out: str | Path | None = None) -> None:
    """Prints the table and writes ``name.md``, ``name.json`` and ``name.png``."""
    from pyrovae.reports import figures

    folder = Path(out or FOLDER_OF_RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown + "\n")
    (folder / f"{name}.json").write_text(json.dumps(rounded(numbers), indent=1) + "\n")
    figures.save(figure, folder / f"{name}.png")
    print(markdown, f"\n(written to {folder / name}.md, .json, .png)\n", flush=True)


def rounded(value: Any) -> Any:
    """Floats to six digits: no clock knows more."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def account_of(machine: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Two lines under a table: where it was taken, and with what."""
    parts = [f"{machine['processor']}, {machine['cores']} cores"]
    parts += [f"{machine['threads']} threads"] if "threads" in machine else []
    parts += [machine["accelerator"]] if "accelerator" in machine else []
    libraries = {"Python": machine["python"], **versions}
    return f"Machine: {'; '.join(parts)}.\n{', '.join(f'{name} {version}' for name, version in libraries.items())}."
