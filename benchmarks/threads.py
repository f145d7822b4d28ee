"""Steps of the default run with one thread and with two, by how long a waiting thread of OpenMP spins.

    python -m benchmarks.threads [--busy 1] [--rounds 15] [--steps 50] [overrides of the run, key=value ...]

GOMP_SPINCOUNT is read when libgomp is loaded, so each setting has a process of its own. They take turns, and the others
sleep meanwhile. `--busy` processes compute beside them. Prints seconds per step, CPU seconds per step, and each
setting's seconds as a multiple of one thread's, round by round.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from benchmarks import figures

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "1 thread": (1, {}),
    "2 threads": (2, {}),
    **{f"2 threads, GOMP_SPINCOUNT={n}": (2, {"GOMP_SPINCOUNT": str(n)}) for n in (0, 300, 1_000, 3_000, 10_000)},
}
BUSY = "while True: pass"


def train(steps: int, overrides: list[str]) -> None:
    """Take so many steps whenever a line comes in, and answer with the seconds and CPU seconds per step."""
    from hydra import compose, initialize_config_dir

    from benchmarks.epoch import Learner
    from mnist_exp import build

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["device=cpu", f"data.root={ROOT / 'data'}", *overrides])
    build.setup_torch(cfg)
    data = build.split(cfg, build.source(cfg), build.device(cfg))
    learner, batches = Learner(cfg, data), list(data.train[: steps * cfg.data.batch_size])
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for number in range(steps):
            learner.step(*batches[number % len(batches)])
        print(json.dumps([(time.perf_counter() - start) / steps, (time.process_time() - cpu) / steps]), flush=True)


def started(name: str, options: argparse.Namespace, stack: ExitStack) -> "subprocess.Popen[str]":
    """Start the process of a setting, which ends with the block."""
    threads, environment = SETTINGS[name]
    command = [sys.executable, "-m", "benchmarks.threads", "--train", "--steps", str(options.steps)]
    process = subprocess.Popen(
        [*command, *options.overrides, f"threads={threads}"],
        cwd=ROOT, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def measured(process: "subprocess.Popen[str]") -> list[float]:
    """Have a process take its steps."""
    inlet, outlet = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    inlet.write("\n")
    inlet.flush()
    return cast(list[float], json.loads(outlet.readline()))


def main() -> None:
    """Time the settings in turn, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.train:
        train(options.steps, options.overrides)
        return
    with ExitStack() as stack:
        for _ in range(options.busy):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(busy.kill)
        processes = {name: started(name, options, stack) for name in SETTINGS}
        rounds = [{name: measured(process) for name, process in processes.items()} for _ in range(options.rounds + 1)][
            1:
        ]  # the first round warms up
    load = os.getloadavg()[0]
    for name in SETTINGS:
        facts = {"busy": options.busy, "load": load}
        figures.show(name, [1000 * each[name][0] for each in rounds], "ms", **facts)
        figures.show(name, [1000 * each[name][1] for each in rounds], "CPU ms", **facts)
        figures.show(f"{name} / 1 thread", [each[name][0] / each["1 thread"][0] for each in rounds], "", **facts)


if __name__ == "__main__":
    main()
