"""Many runs in one process, many processes at once, and the same bits from the same command."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers.run_folders import learned

from .forks import ROOT, TINY, TRAIN, Tally, folder, run, start, wait

EARLY = 10  # jobs, after which a process has what it needs


def leaks(count: int) -> Tally:
    """A sweep of so many jobs in one process: its memory and its open files at the end are those after job 10."""
    tally = Tally(f"a sweep of {count} jobs in one process: memory and open files grow by less than 5 %")
    with folder():
        words = ["-m", *TINY, "epochs=1", f"seed=range(0,{count})", "hydra.sweep.dir=it"]
        command = (
            f"from mnist_exp.sweep import jobs; jobs.CAN_FORK = False; import sys; sys.argv = ['train.py', *{words}]; "
        )
        command += f"import runpy; runpy.run_path({TRAIN!r}, run_name='__main__')"
        process = subprocess.Popen(
            [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
        )
        seen = {}
        for moment in (EARLY, count - 1):
            while process.poll() is None and len(list(Path("it").glob("*/summary.json"))) < moment:
                time.sleep(0.01)
            memory = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
            seen[moment] = memory, min(_open_files(process.pid) for _ in range(20))  # those that stay open
        code = process.wait()
        for what, early, late in zip(("MB", "open files"), *seen.values(), strict=True):
            print(f"  {what}: {early} after job {EARLY}, {late} after job {count - 1}", flush=True)
            tally.count(code == 0 and late <= 1.05 * early, note=f"{what}: {seen}, {code}")
    return tally


def _open_files(pid: int) -> int:
    time.sleep(0.001)
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def crowd() -> Tally:
    """Two sweeps and four runs begin at once, with one data folder that is empty."""
    tally = Tally("two sweeps and four runs at once, sharing a data folder that starts empty")
    small = ["data.root=shared", "epochs=1", "model.hidden_layers=[16]"]
    with folder():
        words = [*(["-m", *small, "seed=0,1", f"hydra.sweep.dir=sweep-{each}"] for each in range(2)),
                 *([*small, "plots=false", f"hydra.run.dir=run-{each}"] for each in range(4))]  # fmt: skip
        pids = [start(*them, name=f"they-{each}") for each, them in enumerate(words)]
        ended = [wait(pid, limit=500, name=f"they-{each}") for each, pid in enumerate(pids)]
        results = [Path("sweep-0/0"), Path("sweep-1/0"), *(Path(f"run-{each}") for each in range(4))]
        for end, result in zip(ended, results, strict=True):
            tally.count(end.code == 0, end.code != 0 or learned(result) == learned(results[0]), str(end))
        left = [path.name for path in Path("shared").rglob("*.tmp")]
        tally.count(not left, note=f"left behind: {left}")
    return tally


def bits() -> Tally:
    """The default run twice, and alone and in a sweep, with 1 and 2 threads."""
    tally = Tally("the default run on MNIST: twice, and alone and in a sweep, with 1 and 2 threads")
    with folder():
        if (ROOT / "data").exists():
            shutil.copytree(ROOT / "data", "data")
        for threads in (1, 2):
            words = [f"threads={threads}"]
            for where in ("once", "again"):
                run(*words, f"hydra.run.dir={where}-{threads}", limit=300)
            run("-m", *words, f"hydra.sweep.dir=sweep-{threads}", limit=300)
            first = learned(Path(f"once-{threads}"))
            for other in (f"again-{threads}", f"sweep-{threads}/0"):
                tally.count(True, learned(Path(other)) == first, other)
    return tally
