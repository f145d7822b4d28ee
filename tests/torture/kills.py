"""Signals at random moments: SIGKILL, SIGTERM, SIGINT; and inside the writing of a file."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import learned, metrics

from mnist_exp.store.ledger import Ledger
from mnist_exp.system import files

from .forks import CHANCE, RECIPES, TINY, Tally, folder, run, run_and_signal, undisturbed

EPOCHS = 8
MOST = 4  # times that one run is killed
GRID = ["epochs=4", "optimizer=adam,sgd", "seed=0,1,2"]


def _references() -> dict[int, tuple[list[str], Any, float]]:
    """Each recipe with what it comes to when nothing disturbs it, and how long that takes."""
    found = {}
    for number, recipe in enumerate(RECIPES):
        words = [*TINY, f"epochs={EPOCHS}", "plots=false", *recipe]
        seconds = undisturbed(words, f"outputs/whole/{number}")
        found[number] = (words, learned(Path(f"outputs/whole/{number}")), seconds)
    return found


def _finish(where: str, words: list[str], expected: Any, tally: Tally, what: str) -> None:
    """Resume the run, or begin it where it had not begun, and compare."""
    begun = Path(where, ".hydra", "overrides.yaml").exists()  # the last that Hydra writes before a run begins
    ended = run(f"resume={where}") if begun else run(*words, f"hydra.run.dir={where}-again")
    found = learned(Path(where if begun else f"{where}-again")) if ended.code == 0 else None
    left = [str(path) for path in Path(where).rglob("*.tmp")]
    tally.count(ended.code == 0 and not left, found in (None, expected), f"{what}: {ended} {left}")


def at_random_moments(rounds: int) -> Tally:
    """SIGKILL, up to four times a run, then resumed."""
    tally = Tally("SIGKILL at a random moment, up to 4 times a run")
    with folder():
        references = _references()
        while tally.injected < rounds:
            recipe, (words, expected, seconds) = CHANCE.choice(list(references.items()))
            where, kills = f"outputs/killed/{tally.injected}", []
            command = [*words, f"hydra.run.dir={where}"]
            for _ in range(CHANCE.randint(1, MOST)):
                kills.append(CHANCE.uniform(0, seconds))
                run_and_signal(*command, number=signal.SIGKILL, after=kills[-1])
                if not Path(where, ".hydra", "overrides.yaml").exists():
                    break
                command = [f"resume={where}"]
            _finish(where, words, expected, tally, f"recipe {recipe} after {kills}")
    return tally


class _HalfWritten:
    """A file that takes half of what it is given, and then its process is killed."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> "_HalfWritten":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, content: Any) -> None:
        self.file.write(bytes(content)[: len(content) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def in_a_write(rounds: int) -> Tally:
    """SIGKILL in the n-th file that is written: half of it there, or all of it but not yet under its name."""
    tally = Tally("SIGKILL inside the writing of a checkpoint, a table, a summary")
    with folder():
        references = _references()
        for number in range(rounds):
            recipe, (words, expected, _) = CHANCE.choice(list(references.items()))
            moment, way = CHANCE.randint(1, 2 * EPOCHS + 2), CHANCE.choice(["half", "whole", "renamed"])

            def prepare(moment: int = moment, way: str = way) -> None:
                count, replace, opened = [0], os.replace, open

                def open_it(path: Any, mode: str = "r", **more: Any) -> Any:
                    count[0] += mode == "wb"
                    file = opened(path, mode, **more)
                    return _HalfWritten(file) if mode == "wb" and count[0] == moment and way == "half" else file

                def rename(before: Any, after: Any) -> None:
                    if count[0] == moment and way == "whole":
                        os.kill(os.getpid(), signal.SIGKILL)
                    replace(before, after)
                    if count[0] == moment and way == "renamed":
                        os.kill(os.getpid(), signal.SIGKILL)

                files.open = open_it  # type: ignore[attr-defined]
                os.replace = rename  # type: ignore[assignment]

            where = f"outputs/torn/{number}"
            run(*words, f"hydra.run.dir={where}", prepare=prepare)
            _finish(where, words, expected, tally, f"recipe {recipe}, file {moment} {way}")
    return tally


def asked_to_stop(rounds: int) -> Tally:
    """SIGTERM and SIGINT: exit code 143 and 130, one word about it, and nothing lost."""
    tally = Tally("SIGTERM or SIGINT at a random moment")
    with folder():
        references = _references()
        for count in range(rounds):
            recipe, (words, expected, seconds) = CHANCE.choice(list(references.items()))
            number, where = CHANCE.choice([signal.SIGTERM, signal.SIGINT]), f"outputs/stopped/{count}"
            after = CHANCE.uniform(0, seconds)
            ended = run_and_signal(*words, f"hydra.run.dir={where}", number=number, after=after)
            # Before the run has begun, the signal ends Python as it ends any program.
            fine = ended.code in (0, 128 + number) or (ended.code == -number and not Path(where, "train.log").exists())
            # Where the signal lands in a destructor, Python says so and goes on: the run stops after its epoch.
            if not fine or ("Traceback" in ended.err + ended.out and "Exception ignored" not in ended.err):
                tally.count(False, note=f"recipe {recipe}, {number.name} after {after}: {ended}")
            else:
                _finish(where, words, expected, tally, f"recipe {recipe}, {number.name} after {after}")
    return tally


def sweeps(rounds: int) -> Tally:
    """SIGKILL to a sweep and all its jobs, several times, then resumed: each job completed once, with the same bits."""
    tally = Tally("SIGKILL to a sweep with all its processes, up to 4 times a sweep")
    return _killed_sweeps(rounds, tally, GRID, learned)


def fused_sweeps(rounds: int) -> Tally:
    """The same for fused groups, whose runs may resume in other groups: equal up to rounding."""
    tally = Tally("the same to a fused sweep (equal to 0.1 % of a loss, not to the bit)")
    return _killed_sweeps(rounds, tally, [*GRID, "hydra/launcher=fused"], _Losses)


def sequential_sweeps(rounds: int) -> Tally:
    """The same for sweeps that decide after each round of seeds how to go on: the same jobs under the same numbers."""
    tally = Tally("the same to a sweep with until=decided: the same rounds, and the same bits")
    words = ["epochs=1", "optimizer.lr=0.01,0.0101,0.0001", "hydra.sweeper.until=decided", "hydra.sweeper.max_seeds=7"]
    return _killed_sweeps(rounds, tally, words, learned)


def searches(rounds: int) -> Tally:
    """The same for sweeps after a search, whose jobs are the settings that the search found best."""
    tally = Tally("the same to a search and the sweep after it: the same finalists, and the same bits")
    sampler = "hydra.sweeper.search={sampler:tpe,n_startup_trials:3}"
    words = ["epochs=1", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "seed=0,1", sampler]
    return _killed_sweeps(rounds, tally, [*words, "hydra.sweeper.trials=6", "hydra.sweeper.trial_seeds=[9]"], learned)


class _Losses:
    """The losses of a job, epoch by epoch. Equal to others, but for rounding."""

    def __init__(self, job: Path) -> None:
        self.values = [[float(row["train_loss"]), float(row["val_loss"])] for row in metrics(job)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Losses) and self.values == [pytest.approx(pair, rel=1e-3) for pair in other.values]


def _killed_sweeps(rounds: int, tally: Tally, grid: list[str], come_to: Callable[[Path], Any]) -> Tally:
    words = ["-m", *TINY, *grid]
    with folder():
        whole = run(*words, "hydra.sweep.dir=whole")
        planned = _planned(Path("whole"))
        expected = {job: come_to(Path("whole", str(job))) for job in planned}
        for number in range(rounds):
            where = f"killed-{number}"
            for after in (CHANCE.uniform(0, whole.seconds) for _ in range(CHANCE.randint(1, MOST))):
                run_and_signal(*words, f"hydra.sweep.dir={where}", number=signal.SIGKILL, after=after)
            ended = run(*words, f"hydra.sweep.dir={where}")
            lines = files.unseal_lines(Path(where, "ledger.jsonl").read_bytes().splitlines())
            completed = sorted(line["job"] for line in lines if line.get("status") == "completed")
            fine = ended.code == 0 and completed == [*planned] and _planned(Path(where)) == planned
            found = {job: come_to(Path(where, str(job))) for job in planned} if fine else expected
            tally.count(fine, found == expected, f"{ended} {completed}")
    return tally


def _planned(folder: Path) -> dict[int, tuple[str, ...]]:
    """The overrides of each job of a sweep, by its number."""
    return {number: job.overrides for number, job in Ledger(folder).read()[1].items()}
