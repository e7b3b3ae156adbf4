"""A page in a headless Chromium: what it asks for, what it complains of, what becomes of it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--no-first-run", "--disable-sync", "--disable-default-apps", "--enable-logging=stderr"),
)


class Opened(NamedTuple):
    """What came of opening a page."""

    dom: str
    requests: set[str]  # addresses, without what is behind a question mark
    complaints: list[str]  # of the console


def chromium() -> str:
    """The browser's name; skips the test where there is none."""
    found = next((name for name in PROGRAMS if shutil.which(name)), None)
    if found is None:
        pytest.skip(f"no browser to open a page in: install one of {', '.join(PROGRAMS)}")
    return found


def opened(path: Path, folder: Path, *more: str) -> Opened:
    """Opens a page; requests that the browser makes for a blank one too are its own, and left out."""
    blank = folder / "blank.html"
    blank.write_text("<!DOCTYPE html><title>blank</title><link rel='icon' href='data:,'>")
    _, own, _ = _open(blank, folder, "blank")
    dom, asked, complaints = _open(path, folder, "page", *more)
    return Opened(dom, asked - own, complaints)


def _open(path: Path, folder: Path, name: str, *more: str) -> tuple[str, set[str], list[str]]:
    log = folder / f"{name}-net.json"
    places = (f"--user-data-dir={folder / f'{name}-profile'}", f"--log-net-log={log}")
    words = [chromium(), *FLAGS, *places, *more, "--dump-dom", path.resolve().as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    text = log.read_text()
    json.loads(text)  # whole
    asked = {one.partition("?")[0] for one in re.findall(r'"url":"((?:https?|wss?)[^"]*)"', text)}
    return done.stdout, asked, re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
