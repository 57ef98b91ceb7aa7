"""A SLURM of one machine for tests: sbatch, srun, scontrol and sacct, as far as submitit and Lightning use them.

``install(folder)`` puts the four commands there. Jobs and arrays run at once, each with as many tasks as its script
asks for; a job that ``scontrol requeue`` names runs again when it has ended, with a higher ``SLURM_RESTART_COUNT``.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "sacct")


def install(folder: Path) -> dict[str, str]:
    """Write the commands; what the environment must hold to find them."""
    folder.mkdir()
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


def flags(script: Path) -> dict[str, str]:
    """The ``#SBATCH`` lines of a script."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.M)
    return {name: value.strip("'") for name, value in found}


def sbatch(path: str) -> None:
    state, script = Path(os.environ["FAKE_SLURM"]), Path(path)
    asked = flags(script)
    number = 1000 * (1 + len(list(state.glob("submitted-*"))))
    (state / f"submitted-{number}.sh").write_text(script.read_text())
    array = [int(i) for i in asked["array"].split("%")[0].split("-")] if "array" in asked else None
    for task in range(array[0], array[1] + 1) if array else [None]:
        own = {
            "SLURM_JOB_ID": str(number + (task or 0)), "SLURM_JOB_NAME": asked["job-name"],
            "SLURM_NTASKS": asked["ntasks-per-node"], "SLURM_NTASKS_PER_NODE": asked["ntasks-per-node"],
            "SLURM_JOB_NUM_NODES": "1", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
            "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NODELIST": "127.0.0.1",
        }  # fmt: skip
        if task is not None:
            own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
        command = [sys.executable, __file__, "run", str(state / f"submitted-{number}.sh")]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(command, env={**os.environ, **own}, start_new_session=True, **quiet)
    print(f"Submitted batch job {number}")


def run(script: str) -> None:
    state, job = Path(os.environ["FAKE_SLURM"]), os.environ["SLURM_JOB_ID"]
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    again = state / f"requeue-{name}"
    for count in range(5):
        (state / f"group-{name}").write_text(str(os.getpgid(0)))
        restarts = {"SLURM_RESTART_COUNT": str(count)} if count else {}
        subprocess.run(["bash", script], env={**os.environ, **restarts}, check=False)
        if not again.exists():
            break
        again.rename(state / f"requeued-{name}-{count}")
    (state / f"group-{name}").unlink()


def srun(*arguments: str) -> None:
    words, files = list(arguments), {}
    while words[0].startswith("--"):
        word = words.pop(0)
        if word in ("--output", "--error"):
            files[word] = words.pop(0)
    names = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        outputs = []
        for kind in ("--output", "--error"):
            path = files[kind].replace("%t", str(rank))
            for short, long in names.items():
                path = path.replace(short, os.environ.get(long, ""))
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            outputs.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        tasks.append(subprocess.Popen(words, env={**os.environ, **own}, stdout=outputs[0], stderr=outputs[1]))
    state = Path(os.environ["FAKE_SLURM"])
    (state / f"tasks-{os.environ['SLURM_JOB_ID']}").write_text(" ".join(str(task.pid) for task in tasks))
    while all(task.poll() in (None, 0) for task in tasks) and any(task.poll() is None for task in tasks):
        time.sleep(0.1)
    for task in tasks:  # --kill-on-bad-exit
        if task.poll() is None:
            task.kill()
    sys.exit(max(abs(task.wait()) for task in tasks))


def scontrol(what: str, job: str) -> None:
    assert what == "requeue"
    (Path(os.environ["FAKE_SLURM"]) / f"requeue-{job}").touch()


def sacct(*arguments: str) -> None:
    print("JobID|State|NodeList")
    for i, word in enumerate(arguments):
        if word == "-j":
            print(f"{arguments[i + 1]}|RUNNING|localhost")


if __name__ == "__main__":
    {"sbatch": sbatch, "run": run, "srun": srun, "scontrol": scontrol, "sacct": sacct}[sys.argv[1]](*sys.argv[2:])
