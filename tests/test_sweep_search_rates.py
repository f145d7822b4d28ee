"""The learning-rate search before a sweep: its trials, its choices, and what stops it."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned
from helpers.sweeps import sweep

from mnist_exp.report import figures
from mnist_exp.store.ledger import Ledger
from mnist_exp.sweep import request
from mnist_exp.sweep.compose import NO_SEARCH, PlannedJob
from mnist_exp.system.errors import ConfigError

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
TRIALS = ["hydra.sweeper.trials=3", "hydra.sweeper.trial_seeds=[7,8]"]
WORDS = [*QUICK, "optimizer=adam,sgd", "seed=0,1", *TRIALS, "hydra.sweep.dir=it"]


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's pictures take seconds."""
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def asked(folder: str) -> list[tuple[str, ...]]:
    """The last overrides of each job in a sweep's folder."""
    return [job.overrides[len(QUICK) :] for job in Ledger(Path(folder)).read()[1].values()]


def best_rates(folder: str) -> dict[str, str]:
    """The rate of each optimizer with the highest mean validation accuracy, by what results.csv says."""
    with open(Path(folder) / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    means = dict[str, dict[str, float]]()
    for row in rows:
        same = [r for r in rows if all(r[key] == row[key] for key in ("optimizer", "optimizer.lr"))]
        means.setdefault(row["optimizer"], {})[row["optimizer.lr"]] = fmean(float(r["val_accuracy"]) for r in same)
    return {optimizer: max(found, key=lambda rate: found[rate]) for optimizer, found in means.items()}


@pytest.mark.slow
@pytest.mark.pictures
def test_trials_choose_a_rate_for_each_arm_and_other_seeds_judge(run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *WORDS)
    assert outcome.code == 0, outcome.err
    assert "4 jobs, after 12 runs that search optimizer.lr: optimizer (2) x seed (2)" in outcome.out
    rates = {"adam": ("0.0001", "0.001", "0.01"), "sgd": ("0.003", "0.03", "0.3")}
    assert asked("it/lr_search") == [
        (f"optimizer={name}", f"optimizer.lr={rate}", f"seed={seed}")
        for name, tried in rates.items()
        for rate in tried
        for seed in (7, 8)
    ]
    best = best_rates("it/lr_search")
    assert asked("it") == [
        (f"optimizer={name}", f"seed={seed}", f"optimizer.lr={best[name]}") for name in rates for seed in (0, 1)
    ]
    assert f"the learning-rate search chose lr={best['adam']} for adam, lr={best['sgd']} for sgd" in outcome.out
    assert {path.name for path in Path("it/lr_search").iterdir()} >= {"0", "11", "ledger.jsonl", "report.html"}
    assert Path("it/plots/lr_search.png").read_bytes().startswith(b"\x89PNG")
    text = Path("it/report.md").read_text()
    assert "A search tried 6 settings of optimizer.lr in 2 arms, each with 2 seeds" in text
    assert f"| adam | lr={best['adam']} |" in text
    assert 'id="search"' in Path("it/report.html").read_text()
    again = run("-m", *WORDS)  # nothing is left to do, in neither of the two
    assert "12 of 12 jobs are completed, 0 to run" in again.out
    assert "4 of 4 jobs are completed, 0 to run" in again.out


def test_a_dry_run_shows_both_stages(run: Run, tmp_path: Path) -> None:
    lines = run("-m", *WORDS, "hydra.sweeper.dry_run=true").out.splitlines()
    assert [line.split()[-2:] for line in (lines[1], lines[12])] == [
        ["optimizer.lr=0.0001", "seed=7"],
        ["optimizer.lr=0.3", "seed=8"],
    ]
    assert lines[13] == "then, each with the optimizer.lr that has the best validation:"
    assert [line.split()[-2:] for line in lines[14:]] == [
        [f"optimizer={name}", f"seed={seed}"] for name in ("adam", "sgd") for seed in (0, 1)
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_rate_at_which_a_trial_fails_is_not_chosen(run: Run) -> None:
    words = [*QUICK, "optimizer=sgd", "optimizer.lr_range=[0.01,1e15]", "seed=0", *TRIALS, "hydra.sweep.dir=it"]
    outcome = run("-m", *words)
    assert outcome.code == 0, outcome.err
    assert "runs of the search failed: it/lr_search/report.md" in outcome.out + outcome.err
    assert asked("it") == [("optimizer=sgd", "optimizer.lr_range=[0.01,1e15]", "seed=0", "optimizer.lr=0.01")]
    text = Path("it/report.md").read_text()
    assert "The best optimizer.lr, 0.01, is the lowest that was tried: one beyond it may be better." in text
    assert "2 trials failed (4 diverged): the search took that as the worst." in text
    assert "| lr=0.01 | 1 |" in text


@pytest.mark.slow
def test_where_all_trials_fail_nothing_is_judged(run: Run) -> None:
    words = [*QUICK, "optimizer=sgd", "optimizer.lr_range=[1e14,1e15]", "seed=0", *TRIALS, "hydra.sweep.dir=it"]
    outcome = run("-m", *words)
    assert outcome.code == 1
    assert "no rate of this arm has completed all its trials; it/lr_search/report.md says why" in outcome.err
    assert not Path("it/ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["optimizer.lr=0.1"], "optimizer.lr=0.1: the search chooses this key; remove it, or set hydra.sweeper"),
        (["seed=6,7"], "seed=7: is also in hydra.sweeper.trial_seeds, which choose the rate and so can't judge it"),
        (["~optimizer.lr_range"], "optimizer.lr_range: optimizer=adam has none; a learning-rate search needs"),
        (["hydra.sweeper.trials=-1"], "hydra.sweeper.trials=-1: must be 0 to 100"),
        (["hydra.sweeper.trials=1000000000"], "hydra.sweeper.trials=1000000000: must be 0 to 100"),
        (["hydra.sweeper.trial_seeds=[]"], "hydra.sweeper.trial_seeds=[]: must be one seed or more"),
        (["hydra.sweeper.trial_seeds=[-1]"], "seed=-1: must be 0 to 2^63 - 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_trials_that_can_not_be_are_refused(wrong: list[str], message: str, run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *QUICK, *TRIALS, *wrong)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_trials_that_were_stopped_go_on_and_then_the_sweep(run: Run, tmp_path: Path) -> None:
    words = [*WORDS[:-1], "epochs=40"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *words, "hydra.sweep.dir=it"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (tmp_path / "it/lr_search/2/metrics.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, ""), err
    assert "to resume: python train.py -m resume=it" in out
    assert not (tmp_path / "it/ledger.jsonl").exists()
    outcome = run("-m", "resume=it")
    assert outcome.code == 0, outcome.err
    run("-m", *words, "hydra.sweep.dir=whole")
    for folder in ("lr_search/2", "lr_search/11", "0", "3"):
        assert learned(Path("it", folder)) == learned(Path("whole", folder))
    assert run("-m", "resume=it").code == 0


def test_latest_is_the_sweep_and_not_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(Path("multirun/a/b"), {"optimizer.lr": [0.1]}, [0])
    os.utime("multirun/a/b/ledger.jsonl", (0, 0))
    trials = sweep(Path("multirun/a/c/lr_search"), {"optimizer.lr": [0.1]}, [0])
    assert request.find("latest") == trials  # a sweep whose folder has this name
    with pytest.raises(ConfigError, match="not a sweep of this program"):
        request.find("multirun/a/c")
    Ledger(trials).append({"then": [], "trials": []})
    assert request.find("latest") == Path("multirun/a/c")
    assert request.find("multirun/a/c") == Path("multirun/a/c")
    with pytest.raises(ConfigError):
        request.find("multirun/a")


def test_trials_that_were_resumed_by_themselves_still_know_what_comes_after(tmp_path: Path) -> None:
    trials = sweep(tmp_path / "lr_search", {"optimizer.lr": [0.1]}, [0])
    then = {"then": [["seed=0"], ["seed=1"]], "trials": [[1, [7]], [0, []]]}
    Ledger(trials).append(then, {"command": "python train.py -m resume=lr_search"})
    planned = PlannedJob(None, None, NO_SEARCH, tmp_path)  # type: ignore[arg-type]

    def plan(overrides: Sequence[str]) -> PlannedJob:
        return planned._replace(folder=Path(*overrides))

    left = request._unfinished(tmp_path, plan, retry_failed=False)
    assert [(each.folder.name, each.search) for each in left] == [("seed=0", (1, (7,))), ("seed=1", (0, ()))]
