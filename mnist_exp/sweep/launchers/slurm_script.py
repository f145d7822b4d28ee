"""The two batch scripts of hydra/launcher=slurm: of the tasks that train a sweep, and of the job that closes it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from mnist_exp.sweep.launchers.workers import HandOver

SCRIPTS, TASKS, CLOSING = "slurm", "tasks.sh", "closing.sh"  # in the folder of the sweep
WARNING = 120  # seconds before the time limit; less for short tasks

TASKS_SCRIPT = """\
#!/bin/bash
# Tasks that train the jobs of a sweep of mnist_exp. Each takes batches of jobs from the sweep's folder.
# hydra/launcher=slurm wrote this script. By hand: sbatch {script}
{options}

python=({python})
{setup}
# By srun, because Slurm warns the steps of a job before a preemption and before the time limit, but not its script.
srun --ntasks=1{step} "${{python[@]}}" -m mnist_exp work {folder} --minutes {minutes}
code=$?

# More than 128: a signal ended the worker. Its runs have kept their last epochs, and go on when the task is requeued.
# Slurm would count a task that ends before its grace time as failed; therefore it asks for the requeue by itself.
# A task that is cancelled is no longer RUNNING. One that is killed again and again (137) may lack memory.
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
if ((code > 128 && (code != 137 || ${{SLURM_RESTART_COUNT:-0}} < 3))); then
    for _ in {{1..20}}; do
        if state=$(squeue --noheader --jobs="$task" --format=%T); then
            [ "$state" = RUNNING ] || break
            scontrol requeue "$task" && sleep 600
        fi
        sleep 10  # Slurm's controller is away
    done
fi
exit $code
"""

CLOSING_SCRIPT = """\
#!/bin/bash
# Closes a sweep of mnist_exp when its tasks have ended: writes the report, or goes on with what follows.
# hydra/launcher=slurm wrote this script. By hand: sbatch {script}
{options}

python=({python})
{setup}
"${{python[@]}}" -m mnist_exp work {folder} --close
"""


def scripts(hand_over: HandOver) -> dict[str, str]:
    """Return the two batch scripts by their names."""
    conf, folder = hand_over.launcher, hand_over.folder
    logs = str(folder / SCRIPTS).replace("%", "%%")
    common = {
        "job-name": "mnist_exp",
        "time": conf["time"],
        "partition": conf["partition"],
        "account": conf["account"],
        "qos": conf["qos"],
        "constraint": conf["constraint"],
        "chdir": os.getcwd(),
        "export": "ALL",
        "open-mode": "append",
        "requeue": True,
    }
    of_tasks = {
        "array": f"0-{tasks(hand_over) - 1}",
        "ntasks": 1,
        "cpus-per-task": conf["cpus_per_task"],
        "mem": f"{conf['mem_gb'] * 1024:.0f}M" if conf["mem_gb"] else None,
        "gres": f"gpu:{conf['gpus_per_task']}" if conf["gpus_per_task"] else None,
        "signal": f"USR1@{min(WARNING, conf['time'] * 60 // 4)}",
        "output": f"{logs}/%A_%a.log",
    }
    words = {
        "folder": shlex.quote(str(folder)),
        "python": shlex.quote(sys.executable),
        "setup": "".join(f"{line}\n" for line in conf["setup"]),
    }
    cpus = conf["cpus_per_task"]
    return {
        TASKS: TASKS_SCRIPT.format(
            **words,
            script=shlex.quote(str(folder / SCRIPTS / TASKS)),
            options=_options(common | of_tasks | conf["sbatch"]),
            step=f" --cpus-per-task={cpus}" if cpus else "",  # since 22.05 a step does not inherit it
            minutes=conf["time"],
        ),
        CLOSING: CLOSING_SCRIPT.format(
            **words,
            script=shlex.quote(str(folder / SCRIPTS / CLOSING)),
            options=_options(common | {"output": f"{logs}/%j_closing.log"} | conf["sbatch"]),
        ),
    }


def _options(options: Mapping[str, Any]) -> str:
    """Return one line per option of sbatch. An option without a value is True; None leaves it out."""
    given = {name: value for name, value in options.items() if value not in (None, False)}
    return "\n".join(
        f"#SBATCH --{name}" + ("" if value is True else f"={shlex.quote(str(value))}") for name, value in given.items()
    )


def tasks(hand_over: HandOver) -> int:
    """Return the number of tasks: more than batches would find nothing to do."""
    return max(1, min(int(hand_over.launcher["tasks"]), hand_over.batches))
