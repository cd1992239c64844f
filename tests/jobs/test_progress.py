"""A bar in a file is lines, none of them twice; a terminal gets one that is drawn over itself."""

import io

import pytest

from gracelib.jobs import progress


@pytest.mark.parametrize("terminal", [False, True])
def test_a_file_gets_lines_and_none_twice(terminal, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(progress.sys, "stderr", stream)
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.0)
    with progress.Bar(total=4, desc="gradients", unit="response") as bar:
        for share in (0.25, 0.25, 0.5, 0, 0, 3):
            bar.update(share)
            bar.refresh()
    written = stream.getvalue()
    assert ("\r" in written) == terminal
    if terminal:
        return
    *lines, last = written.split("\n")
    assert last == "" and len(set(lines)) == len(lines) == 5
    assert lines[0].startswith("gradients:   0%") and "| 4/4 responses, " in lines[-1] and "about " in lines[-1]


def test_a_quick_bar_in_a_file_is_its_first_and_last_line(monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    stream = progress.sys.stderr
    assert list(progress.Bar(range(500), desc="scores", unit="teacher")) == [*range(500)]
    assert len(stream.getvalue().strip().split("\n")) == 2
