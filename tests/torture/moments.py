"""A signal at every moment of a command's first three seconds, from the one at which Python itself has begun."""

import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from mnist_exp.system.signals import STOP_SIGNALS

from .forks import Tally

TRAIN = Path(__file__).parents[2] / "train.py"
LONG = ["experiment=digits", "epochs=5000", "plots=false"]
SWEEP = ["-m", "seed=0,1,2"]
FORMS = {
    "alone": [],
    "sweep": SWEEP,
    "joblib": [*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "fused": [*SWEEP, "hydra/launcher=fused"],
}
FIRST, LAST = 0.1, 3.0  # seconds; until our first line runs, Python speaks for itself


def at_every(step: float) -> Tally:
    """SIGINT, SIGTERM and SIGHUP, so many seconds apart: one line, the signal's exit code, and nothing else."""
    tally = Tally("SIGINT, SIGTERM or SIGHUP at every moment of the first three seconds")
    moments = [FIRST + number * step for number in range(int((LAST - FIRST) / step) + 1)]
    for (form, words), number, moment in product(FORMS.items(), STOP_SIGNALS, moments):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(TRAIN), *LONG, *words]
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            time.sleep(moment)
            process.send_signal(number)
            out, err = process.communicate()
        lines = [line for line in out.splitlines() if "interrupted" in line or line.startswith("to resume: ")]
        noise = [word for word in ("Traceback", "Exception ignored", "FakeTensor") if word in out]
        ended = process.returncode == 128 + number and bool(lines) and not err and not noise
        tally.count(ended, True, f"{form}, {number.name} after {moment:.2f} s: {process.returncode} {err[-500:]}")
    return tally
