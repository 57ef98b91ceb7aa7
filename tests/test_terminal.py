"""What commands print: lines of 80 characters, the first before the heavy imports, a word before what takes long."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, TINY, Terminal, command_here

from neuro_lightning.artifacts.lines import WIDTH, announce, error_line, labelled, say, wrapped
from neuro_lightning.artifacts.output import ERASE, JobOutput, print_to_terminal, warn


def test_long_lines_are_wrapped_and_what_is_copied_stays_whole():
    prose = "word " * 40
    assert [len(line) <= WIDTH for line in wrapped(prose).split("\n")] == [True] * 3
    assert wrapped(prose, 4).split("\n    ")[1].startswith("word"), "further lines are indented"
    assert " ".join(wrapped(prose).split()) == prose.strip()
    path = "/a/long/path" * 10
    assert path in wrapped(f"the file {path} is gone").split("\n")
    command = f"python train.py resume={path} trusted=[a]"
    assert wrapped(f"interrupted; resume with: {command}").split("\n") == ["interrupted; resume with:", f"  {command}"]
    assert wrapped(command) == command and wrapped("short\nlines") == "short\nlines"
    assert labelled("W&B", f"offline\n{command}") == f"W&B     offline\n        {command}"
    assert labelled("data", "one\ntwo") == "data    one\n        two"
    assert labelled("starting", "now") == "starting now"
    assert labelled("written", path) == f"written {path}", "a path begins beside its name"
    assert labelled("written", f"{path} again") == f"written {path}\n        again"


def test_an_error_is_one_line_in_a_pipe_and_wrapped_in_a_terminal(monkeypatch):
    text = "no such key; there are " + ", ".join(f"key_{i}" for i in range(40))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert error_line(text) == f"error: {text}"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert max(map(len, error_line(text).split("\n"))) <= WIDTH and error_line(text).split("\n")[1].startswith("  key")


def test_one_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    say("twice")
    announce("reading", "twice")
    assert capsys.readouterr().out == ""


def test_a_job_of_a_sweep_is_the_terminals_last_line_until_it_ends(tmp_path, monkeypatch):
    terminal = Terminal()
    job = JobOutput(tmp_path / "output.log", terminal, "3 of 12  model=gru")
    monkeypatch.setattr(sys, "stdout", job)
    announce("reading", "the data" * 20)
    print_to_terminal("done")
    job.clear_status()  # which is done already
    assert (tmp_path / "output.log").read_text().startswith("reading the data")
    shown, end = terminal.getvalue().split(ERASE)[1:]
    assert shown.startswith("3 of 12  model=gru  reading the data") and len(shown) < WIDTH and end == "done\n"
    terminal.isatty = lambda: False  # a pipe: one line a job
    announce("scoring", "it")
    assert terminal.getvalue().endswith("done\n")


def test_a_warning_in_a_sweep_is_one_line_in_the_terminal_and_whole_in_the_jobs_file(tmp_path, monkeypatch, capsys):
    text = "the figure rates was not drawn: ValueError: " + "too\nmany axes " * 9
    warn(text)
    alone = capsys.readouterr().out.splitlines()
    assert max(map(len, alone)) <= WIDTH and " ".join(" ".join(alone).split()) == " ".join(text.split())
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", JobOutput(tmp_path / "output.log", terminal, "3 of 12"))
    warn(text)
    assert (tmp_path / "output.log").read_text().count("axes") == 9
    (line,) = terminal.getvalue().splitlines()
    assert line.startswith("the figure rates was not drawn: ValueError: too many") and len(line) == WIDTH
    monkeypatch.setenv("RANK", "1")
    warn("twice")
    assert "twice" not in terminal.getvalue()


@pytest.mark.parametrize(("program", "word"), [("train", "model=gru data=lorenz"), ("predict", "ckpt=x")])
def test_the_first_line_comes_before_the_heavy_imports(tmp_path, program, word):
    code = (
        f"import sys; sys.argv = ['{program}', *'{word} hydra.run.dir={tmp_path}'.split()]\n"
        "from neuro_lightning import cli\n"
        "def first(name, text):\n"
        '    sys.exit(f\'{name} {text}: {sorted({"torch", "pandas", "matplotlib"} & set(sys.modules))}\')\n'
        f"cli.announce = first; cli.{program}()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said = f"{program} {word}"
    assert said in re.sub(r"trusted=\S+ ", "", done.stderr) and done.stderr.rstrip().endswith(": []"), done.stderr


def assert_narrow(lines, folder):
    assert [line for line in lines if len(line) > WIDTH and str(folder) not in line] == []


@pytest.mark.slow
def test_runs_sweeps_and_predictions_in_a_pipe(tmp_path):
    run = [word for word in TINY if word != "baselines=null"]
    done = command_here(tmp_path, *run, f"hydra.run.dir={tmp_path / 'run'}")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    typed = " ".join(lines[: lines.index("reading the data")]).split()
    assert typed[0] == "train" and set(run[1:]) <= set(typed), "what was typed, wrapped"
    order = ["reading the data", "model   GRU", "100 %", "scoring the best checkpoint, the smoothing", "Scores on tiny"]
    found = [next(i for i, line in enumerate(lines) if line.startswith(word)) for word in order]
    assert found == sorted(found)
    assert_narrow(lines, tmp_path)
    words = [word for word in TINY if not word.startswith("model")]
    done = command_here(tmp_path, "-m", *words, "model=mean,smoothing", "seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}")
    lines = done.stdout.splitlines()
    jobs = [line for line in lines if line.startswith("job ")]
    assert lines[0] == f"sweep   4 jobs in {Path('s')}" and done.returncode == 0, done.stdout + done.stderr
    assert [re.sub(r"val/\S+ \S+", "SCORE", job).partition(", about")[0].replace(" (best)", "") for job in jobs] == [
        "job 0  model=mean seed=0  SCORE  1 of 4", "job 1  model=mean seed=1  SCORE  2 of 4",
        "job 2  model=smoothing seed=0  SCORE  3 of 4", "job 3  model=smoothing seed=1  SCORE  4 of 4",
    ]  # fmt: skip
    assert ["about" in job for job in jobs] == [True, True, True, False]
    assert "#0" not in done.stdout + done.stderr and "HYDRA" not in done.stdout + done.stderr
    assert_narrow(lines + done.stderr.splitlines(), tmp_path)
    done = command_here(tmp_path, f"ckpt={tmp_path / 'run'}", "trusted=[tiny]", program="predict")
    assert done.returncode == 0 and done.stdout.startswith("predict ckpt="), done.stderr
    assert_narrow(done.stdout.splitlines(), tmp_path)


@pytest.mark.slow
def test_a_sweep_in_a_terminal(tmp_path, monkeypatch):
    """Bars and last lines of jobs come and go; a line a job stays."""
    words = [word for word in TINY if "progress_bar" not in word]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    swept = [*words, "seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}"]
    done = command_here(tmp_path, "-m", *swept, terminal=True)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    lines = [part for line in text.split("\n") for part in line.split("\r")]
    assert_narrow(lines, tmp_path)
    assert any("1 of 2  seed=0  reading the data" in line for line in lines), lines
    assert any(line.startswith("2 of 2  seed=1") and "100%" in line for line in lines), "the bar says which job it is"
    stay = [line for line in lines if line.startswith("job ")]
    assert len(stay) == 2 and stay[0].startswith("job 0  seed=0  val/co_bps"), lines
