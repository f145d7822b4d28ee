"""Whether a commit is slower than another: both run in turn on this machine, A B B A, and each pair gives a ratio.

    python -m benchmarks.compare A B [--command "train.py experiment=digits plots=false"] [--rounds 20]

A and B are commits, each of which is checked out into a temporary worktree. A command is what Python runs there, and
may be given several times. The first pair warms up. For the seconds, the CPU seconds and the peak memory of a command,
and for each figure that it prints as a line of JSON, a row of a table in Markdown says the medians, and the median of
B / A with its 95 % interval, which holds for any distribution (from the order statistics; at least 6 pairs).

A busy machine changes seconds more than CPU seconds. 20 pairs show a difference of 5 % where the pairs' ratios have a
standard deviation of up to about 7 %. Data is not checked out: say data.root=FOLDER with an absolute path.
"""

import argparse
import math
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from scipy.stats import quantile_test

from benchmarks import figures

ROOT = Path(__file__).parents[1]
DEFAULT = "train.py experiment=digits plots=false"
Measured = dict[tuple[str, str], float]  # by name and unit


class Ratio(NamedTuple):
    """The median of the pairs' ratios, and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return after / before; one value each per pair, positive."""
    logs = [math.log(b / a) for a, b in zip(before, after, strict=True)]
    low, high = quantile_test(logs, p=0.5).confidence_interval(0.95)
    # Too few pairs have no interval.
    low, high = (limit if math.isfinite(limit) else end for limit, end in ((low, -math.inf), (high, math.inf)))
    return Ratio(*(math.exp(value) for value in (median(logs), low, high)))


@contextmanager
def checked_out(repository: Path, commits: Sequence[str]) -> Iterator[list[Path]]:
    """Check out commits into temporary worktrees for the block.

    Raises:
        CalledProcessError: There is no such commit.
    """
    with tempfile.TemporaryDirectory() as parent:
        trees = [Path(parent) / f"{number}" for number in range(len(commits))]
        try:
            for tree, commit in zip(trees, commits, strict=True):
                _git(repository, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield trees
        finally:
            for tree in trees:
                if tree.exists():
                    _git(repository, "worktree", "remove", "--force", str(tree))


def _git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repository), *arguments], check=True)


def run(tree: Path, command: str) -> Measured:
    """Run a command of Python in a worktree, and return what it cost and the figures that it printed.

    Raises:
        CalledProcessError: It fails.
    """
    arguments = [sys.executable, *shlex.split(command)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            arguments, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments, text)
    return _cost(seconds, usage) | figures.read(text)


def _cost(seconds: float, usage: resource.struct_rusage) -> Measured:
    """Return what a process cost, with the children that it waited for."""
    cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return {("the command", "s"): seconds, ("the command", "CPU s"): cpu, ("peak memory", "MB"): memory}


def in_turn(trees: Sequence[Path], command: str, rounds: int) -> tuple[list[Measured], list[Measured]]:
    """Run a command in both trees in turn, and return what each run measured; the pair that warms up does not count."""
    before, after = trees
    found: dict[Path, list[Measured]] = {before: [], after: []}
    for number in range(rounds + 1):
        for tree in (before, after) if number % 2 else (after, before):
            found[tree].append(run(tree, command))
    return found[before][1:], found[after][1:]


def show(command: str, commits: Sequence[str], before: Sequence[Measured], after: Sequence[Measured]) -> None:
    """Print a row for each figure that every run has, and their lines of JSON."""
    print(f"\n| `python {command}`, {len(before)} pairs | A | B | B / A (95 % interval) |\n|---|---|---|---|")
    shared = [key for key in before[0] if all(measured.get(key, 0) > 0 for measured in (*before, *after))]
    ratios = {key: ratio(*([each[key] for each in runs] for runs in (before, after))) for key in shared}
    for (name, unit), (value, low, high) in ratios.items():
        a, b = (f"{median(each[name, unit] for each in runs):.3g} {unit}" for runs in (before, after))
        print(f"| {name} | {a} | {b} | {value:.3f} ({low:.3f}-{high:.3f}) |")
    print()
    for (name, unit), (value, low, high) in ratios.items():
        figures.line(f"{name}, {unit}: B / A", value, "", len(before), (low, high), command=command, compared=commits)


def main() -> None:
    """Compare two commits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="A", help="a commit")
    parser.add_argument("after", metavar="B", help="another commit")
    parser.add_argument("--command", action="append", dest="commands", help=f"what Python runs; default: {DEFAULT}")
    parser.add_argument("--rounds", type=int, default=20, help="pairs, 6 or more; default: 20")
    options = parser.parse_args()
    if options.rounds < 6:
        parser.error(f"--rounds {options.rounds}: must be 6 or more, or there is no interval")
    commits = [options.before, options.after]
    for commit in commits:
        if subprocess.run(
            ["git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True
        ).returncode:
            parser.error(f"{commit}: no such commit")
    with checked_out(ROOT, commits) as trees:
        for command in options.commands or [DEFAULT]:
            show(command, commits, *in_turn(trees, command, options.rounds))


if __name__ == "__main__":
    main()
