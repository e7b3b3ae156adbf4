"""Every notebook run as it stands, in a kernel: its outputs written into it, its numbers held against those kept.

``notebooks/numbers.json`` holds, for each notebook, expressions of its variables, an expression of their standard error,
and what both were worth: a number that is more than two of its errors away fails. ``--keep`` writes today's values there.

    python tests/benchmarks/notebooks.py [02 10] [--keep]
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
RESULTS = Path(__file__).parent / "results" / "notebooks.md"
NUMBERS = FOLDER / "numbers.json"
TEXTS = sorted(FOLDER.glob("[0-9]*.py"))
# Standard errors that a number may be off.
MOST = 2
HEAD = """# The notebooks, run in full

Made by `make notebooks`; each in a kernel of its own, one after the other. Numbers: held against those kept in
`notebooks/numbers.json`, each within two of its standard errors.

| notebook | seconds | numbers held |
| --- | --- | --- |"""


def run(text, kept):
    """The notebook executed, the seconds that took, and the numbers ``kept``: what they are worth now, and their errors."""
    notebook = jupytext.read(text)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    started = time.perf_counter()
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
        seconds = time.perf_counter() - started
        return notebook, seconds, {code: (_value(client, code), _value(client, kept[code]["error"])) for code in kept}


def _value(client, code):
    """What an expression is worth in a notebook that has run."""
    cell = nbformat.v4.new_code_cell(f"print(float({code}))")
    client.nb.cells.append(cell)
    try:
        client.execute_cell(cell, len(client.nb.cells) - 1)
    finally:
        client.nb.cells.pop()
    return float(cell.outputs[0]["text"])


def drift(value, kept):
    """How many of its errors a number is away from the one kept."""
    return abs(value - kept["value"]) / kept["se"]


def write(notebook, path):
    """The notebook with its outputs, without what differs from run to run."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, path)


def held(name, values, kept):
    """The numbers of a notebook that drifted, each printed beside the one kept."""
    failed = []
    for code, (value, _) in values.items():
        away = drift(value, kept[code])
        print(f"{name}: {code} = {value:.4f}, kept {kept[code]['value']:.4f}, {away:.1f} SE away")
        if not away <= MOST:
            failed.append(f"{name}: {code}")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=[""], help="beginnings of their names; all of them unless given")
    parser.add_argument("--keep", action="store_true", help="write today's values into numbers.json")
    options = parser.parse_args()
    os.environ.pop("MPLBACKEND", None)  # by which a notebook would show no figure
    numbers = json.loads(NUMBERS.read_text())
    rows, failed = [], []
    for text in (text for text in TEXTS if text.stem.startswith(tuple(options.which))):
        kept = numbers.setdefault(text.stem, {})
        notebook, seconds, values = run(text, kept)
        write(notebook, text.with_suffix(".ipynb"))
        failed += [] if options.keep else held(text.stem, values, kept)
        rows.append(f"| {text.stem} | {seconds:.0f} | {len(values)} |")
        print(f"{text.stem}: {seconds:.0f} s", flush=True)
        for code, (value, error) in values.items() if options.keep else ():
            kept[code] |= {"value": round(value, 6), "se": round(error, 6)}
    if options.keep:
        NUMBERS.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    if len(rows) == len(TEXTS):
        RESULTS.write_text("\n".join([HEAD, *rows, ""]))
    if failed:
        sys.exit("numbers that drifted: " + "; ".join(failed))


if __name__ == "__main__":
    main()
