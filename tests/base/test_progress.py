"""A bar where somebody watches, silence elsewhere."""

import io
import sys

from pyrovae.base import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, **settings):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar(total=3, file=stream, mininterval=0, **settings) as bar:
        bar.update(3)
    return stream.getvalue()


def test_a_terminal_shows_it(monkeypatch):
    assert "3/3" in shown(monkeypatch, Terminal(), shown=True)


def test_a_pipe_stays_clean(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), shown=True) == ""


def test_it_can_be_turned_off(monkeypatch):
    assert shown(monkeypatch, Terminal(), shown=False) == ""
