"""What guards the speed: two commits that run in turn, and figures as lines of JSON."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import compare, figures

ROOT = Path(__file__).parents[1]
SCRIPT = """import os
from pathlib import Path
with open({log!r}, "a") as log:
    log.write({name!r})
print('{{"name": "epoch", "value": {value}, "unit": "s"}}')
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    """Two commits of a repository at tmp_path, whose script says that an epoch takes 2 and 3 seconds."""
    git(tmp_path, "init", "--quiet")
    found = []
    for name, value in ("A", 2.0), ("B", 3.0):
        (tmp_path / "script.py").write_text(SCRIPT.format(log=str(tmp_path / "log"), name=name, value=value))
        git(tmp_path, "add", "script.py")
        git(tmp_path, "commit", "--quiet", "--message", name)
        found.append(git(tmp_path, "rev-parse", "HEAD"))
    return found


def test_two_commits_run_in_turn_and_leave_no_worktree(
    commits: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with compare.checked_out(tmp_path, commits) as trees:
        before, after = compare.in_turn(trees, "script.py", rounds=6)
        compare.show("script.py", commits, before, after)
    assert (tmp_path / "log").read_text() == "BA" + "ABBA" * 3
    assert len(git(tmp_path, "worktree", "list").splitlines()) == 1
    output = capfd.readouterr().out
    assert "| epoch | 2 s | 3 s | 1.500 (1.500-1.500) |" in output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    [epoch] = [line for line in lines if line["name"] == "epoch, s: B / A"]
    assert (epoch["value"], epoch["n"], epoch["spread"]) == (1.5, 6, [1.5, 1.5])
    assert epoch["compared"] == commits
    assert {"the command, CPU s: B / A", "peak memory, MB: B / A"} <= {line["name"] for line in lines}


def test_a_command_that_fails_is_not_measured(commits: list[str], tmp_path: Path) -> None:
    with compare.checked_out(tmp_path, commits) as trees, pytest.raises(subprocess.CalledProcessError):
        compare.run(trees[0], "missing.py")
    assert len(git(tmp_path, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("n", [5, 6, 20])
def test_the_interval_covers_the_median_as_often_as_it_says(n: int) -> None:
    """By the binomial distribution: the i-th lowest of n values is below the median unless fewer than i values are."""
    values = np.exp(np.random.default_rng(0).normal(size=n))
    found = compare.ratio([1.0] * n, values.tolist())
    outside = max((i for i in range(n) if binom.cdf(i, n, 0.5) <= 0.025), default=None)
    ends = (0.0, math.inf) if outside is None else (np.sort(values)[outside], np.sort(values)[-1 - outside])
    assert found == pytest.approx((np.median(values) if n % 2 else math.exp(np.median(np.log(values))), *ends))


def test_a_slowdown_of_five_percent_is_seen() -> None:
    rng = np.random.default_rng(0)
    machine = rng.uniform(1, 5, size=20)  # how busy it is changes from pair to pair
    before, after = (machine * speed * rng.lognormal(sigma=0.03, size=20) for speed in (1.0, 1.05))
    assert compare.ratio(before.tolist(), after.tolist()).low > 1
    assert compare.ratio(before.tolist(), (after / 1.05).tolist()).low < 1


def test_a_figure_is_a_line_for_people_and_one_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show("epoch", [1.5, 1.4, 1.9], "s", models=8)
    text, line = capsys.readouterr().out.splitlines()
    assert " ".join(text.split()) == "epoch 1.5 s (1.4 to 1.9, n=3)"
    found = json.loads(line)
    assert {key: found[key] for key in ("name", "value", "unit", "n", "spread", "models")} == {
        "name": "epoch", "value": 1.5, "unit": "s", "n": 3, "spread": [1.4, 1.9], "models": 8,
    }  # fmt: skip
    assert found.keys() >= {"benchmark", "machine", "torch", "date", "commit", "dirty"}
    assert figures.read(f"{text}\n{line}\n") == {("epoch", "s"): 1.5}


def test_the_scripts_say_what_they_do() -> None:
    command = [sys.executable, "-m", "benchmarks.compare", "--help"]
    assert "A B B A" in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
