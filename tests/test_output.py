"""``output.log`` keeps what a run prints, as a terminal shows it."""

import io
import logging
import sys

import pytest

from neuro_lightning.artifacts.output import copy_output


def test_what_a_run_prints_is_kept_in_its_folder_as_a_terminal_shows_it(tmp_path, monkeypatch):
    terminal, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])  # others, of earlier tests, may be closed
    with copy_output(tmp_path):
        print("\x1b[1;32mgreen\x1b[0m table ✓")
        for share in (10, 50):
            sys.stdout.write(f"\r\x1b[2Ktraining {share} %\r")
        sys.stdout.write("\r\x1b[2Ktraining 100 %\r\n")
        print("warning: few trials", file=sys.stderr)
        logging.getLogger("any").warning("logged")
        sys.stdout.write("no end")
        late = sys.stderr
    print("after", file=late)  # by what has kept the stream
    text = (tmp_path / "output.log").read_text()
    assert text == "green table ✓\ntraining 100 %\nwarning: few trials\nlogged\nno end\n"
    assert (sys.stdout, sys.stderr, handler.stream) == (terminal, errors, terminal)
    assert "\x1b[1;32mgreen" in terminal.getvalue() and "\rtraining" not in text
    assert errors.getvalue() == "warning: few trials\nafter\n"
    for error, said in ((SystemExit("error: no"), "error: no\n"), (SystemExit(0), ""), (ValueError("x"), "Traceback")):
        before = (tmp_path / "output.log").read_text()
        with pytest.raises(type(error)), copy_output(tmp_path):
            raise error
        after = (tmp_path / "output.log").read_text()
        assert after.startswith(before + said) and (said or after == before), "a resumed run's output follows"


def test_a_bar_is_one_line_in_the_file(tmp_path, monkeypatch):
    from test_tables import fit

    from neuro_lightning.callbacks.progress import FitProgress

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with copy_output(tmp_path):
        fit(FitProgress(), max_epochs=4)
    lines = (tmp_path / "output.log").read_text().splitlines()
    assert sum("training" in line for line in lines) == 1 and "\x1b" not in "".join(lines), lines
    assert "\x1b[" in terminal.getvalue()
