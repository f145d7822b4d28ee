"""A search before a sweep: its trials, its finalists, and what stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned, metrics, summary
from optuna.trial import TrialState

from hydra_plugins.mnist_exp.sweeper import ResumableConf
from mnist_exp.report import figures
from mnist_exp.report.results import read
from mnist_exp.report.search import searches
from mnist_exp.store.ledger import Ledger

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith(("plots", "model.hidden_layers"))]
LR = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
RANDOM = ["hydra.sweeper.trials=3", "hydra.sweeper.trial_seeds=[7]", "hydra.sweeper.search=random"]
TUNE = [LR, "optimizer.momentum=interval(0,0.9)", "model.hidden_layers=choice([8],[16])"]
WORDS = [*QUICK, "optimizer=adam,sgd", *TUNE, *RANDOM, "hydra.sweeper.finalists=1", "seed=0,1", "hydra.sweep.dir=it"]


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's pictures take seconds."""
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def asked(folder: str) -> list[tuple[str, ...]]:
    """The overrides of each job in a sweep's folder, without those that all have."""
    jobs = Ledger(Path(folder)).read()[1]
    return [tuple(word for word in jobs[number].overrides if word not in QUICK) for number in sorted(jobs)]


@pytest.mark.slow
@pytest.mark.pictures
def test_a_search_tunes_inside_each_arm_and_fresh_seeds_judge(run: Run) -> None:
    outcome = run("-m", *WORDS)
    assert outcome.code == 0, outcome.err
    assert (
        "2 arms, each with 3 trials of optimizer.lr, optimizer.momentum and model.hidden_layers, 1 seed a trial: 6 "
        "runs; then the default and the best setting of each arm, with 2 other seeds"
    ) in outcome.out
    trials = asked("it/search")
    assert len(trials) == 6
    for words in trials:
        keys = [word.partition("=")[0] for word in words]
        momentum = ["optimizer.momentum"] if "optimizer=sgd" in words else []  # adam has no such key
        assert keys == ["optimizer", "optimizer.lr", *momentum, "model.hidden_layers", "seed"]
        assert words[-1] == "seed=7"
    found = searches(read([Path("it")]))
    assert [each.label for each in found] == ["adam", "sgd"]
    for each in found:
        [finalist] = each.finalists
        assert finalist.trial.reached == max(trial.reached for trial in each.trials)
        assert [run.job.seed for run in finalist.fresh.runs] == [0, 1]
        assert each.default is not None
        assert [run.job.seed for run in each.default.runs] == [0, 1]
    assert Path("it/plots/search.png").read_bytes().startswith(b"\x89PNG")
    text = Path("it/report.md").read_text()
    assert "A search tried 6 settings of optimizer.lr, model.hidden_layers and optimizer.momentum in 2 arms" in text
    assert "The search's own figure for" in text
    assert 'id="search"' in Path("it/report.html").read_text()
    again = run("-m", *WORDS)  # nothing is left to do, in neither of the two
    assert "6 of 6 jobs are completed, 0 to run" in again.out
    assert "8 of 8 jobs are completed, 0 to run" in again.out
    more = run("-m", *WORDS, "hydra.sweeper.trials=4")
    assert more.code == 0, more.err
    assert asked("it/search")[:6] == trials
    assert len(asked("it/search")) == 8
    other = run("-m", *WORDS, "optimizer.lr=interval(0.1,0.2)")
    assert "choose another hydra.sweep.dir" in other.err


def test_a_dry_run_lists_the_first_batch_and_what_follows(run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *WORDS, "hydra.sweeper.dry_run=true")
    lines = outcome.out.splitlines()
    assert [line.split()[-1] for line in lines] == [*["seed=7"] * 2, "runs:", *["seed=0", "seed=1"] * 2]
    assert "optimizer.lr=" in lines[0]
    assert "optimizer.lr=" not in lines[3]
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_keeps_a_search(run: Run) -> None:
    outcome = run("-m", "experiment=search_mlp", "model.dropout=0.1", "hydra.sweeper.dry_run=true")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    keys = [word.partition("=")[0] for word in lines[-22].split()]
    searched = {"optimizer.lr", "optimizer.momentum", "model.hidden_layers"}  # not the key that the command sets
    assert set(keys) == {"experiment", "optimizer", "model.dropout", "seed"} | searched
    assert "2 arms, each with 40 trials of optimizer.lr, optimizer.momentum and model.hidden_layers" in outcome.out


def test_choice_is_a_list_as_long_as_there_are_no_trials(run: Run) -> None:
    outcome = run("-m", *QUICK, "optimizer=choice(adam,sgd)", "hydra.sweeper.dry_run=true")
    assert [line.split()[-1] for line in outcome.out.splitlines()[1:]] == ["optimizer=adam", "optimizer=sgd"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials=40 searches the interval"),
        (["model.dropout=interval(0,1)"], "model.dropout=1: must be 0 or more and less than 1"),
        (["model.dropuot=interval(0,0.5)"], "model.dropuot"),
        (["optimizer=adam", "optimizer.momentum=interval(0,0.5)"], "optimizer=adam has no key momentum"),
        (["optimizer=choice(adam,sgd)", "optimizer.momentum=interval(0,0.5)"], "optimizer=adam has no key momentum"),
        (["optimizer.lr=tag(log,interval(0,1))"], "a logarithmic interval begins above 0"),
        (["optimizer.lr=interval(1,0)"], "needs two numbers, the lower one first"),
        (["activation=choice(relu,rleu)"], "rleu"),
        (
            ["seed=6,7"],
            "seed=7: is also in hydra.sweeper.trial_seeds, which choose the settings and so can't judge them",
        ),
        (["hydra.sweeper.trials=-1"], "hydra.sweeper.trials=-1: must be 1 or more"),
        (["hydra.sweeper.trials=20000"], "no more runs than hydra.sweeper.max_jobs=10,000; these are 20,000"),
        (["hydra.sweeper.trial_seeds=[]"], "hydra.sweeper.trial_seeds=[]: must be one seed or more"),
        (["hydra.sweeper.trial_seeds=[8,8]"], "hydra.sweeper.trial_seeds=[8,8]: has a seed twice"),
        (["hydra.sweeper.prune=medain"], "hydra.sweeper.prune=medain: no such pruner, did you mean median?"),
        (["hydra.sweeper.finalists=0"], "hydra.sweeper.finalists=0: must be 1 or more"),
        (["experiment=activations,search_mlp"], "experiment=search_mlp: holds a search, optimizer.lr=tag"),
        (["hydra.sweeper.search=bayes"], "hydra.sweeper.search=bayes: must be tpe, random"),
        (
            ["hydra.sweeper.search={sampler:random,gama:1}"],
            "hydra.sweeper.search.gama: random has no settings but seed",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_searches_that_can_not_be_are_refused(wrong: list[str], message: str, run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *QUICK, LR, *RANDOM, *wrong)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_search_keeps_what_it_was_asked_for(run: Run, tmp_path: Path) -> None:
    words = [*QUICK, LR, *RANDOM, "hydra.sweeper.trials=1", "seed=0", "hydra.sweep.dir=it"]
    assert run("-m", *words).code == 0
    assert run("-m", *QUICK, "seed=0", "hydra.sweep.dir=plain").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    remove = "; remove it, or "
    again, new = "type the whole command again with hydra.sweep.dir=it", "begin a new search in another hydra.sweep.dir"
    refused = {
        "hydra.sweeper.trials=2": f"the search in it has 1, not 2{remove}{again}",
        "hydra.sweeper.finalists=1": f"the search in it has 2, not 1{remove}{again}",
        "hydra.sweeper.trial_seeds=[8]": f"the search in it has [7], not [8]{remove}{new}",
        "hydra.sweeper.search={sampler:random,seed:1}": f"not {{sampler:random,seed:1}}{remove}{new}",
        "hydra.sweeper.prune=median": f"the search in it has {{pruner:none}}, not {{pruner:median}}{remove}{new}",
        "hydra.sweeper.max_jobs=9": "is for a new sweep, and a resumed one has its jobs; remove it",
        "+hydra.sweeper.params.seed=1": "is for a new sweep, and a resumed one has its jobs; remove it",
        "hydra.sweep.dir=there": "the sweep stays where it is, in it; remove it",
        "hydra.sweeper.n_jobs=2": "is for workers, which",
        "hydra.sweeper.minutes=2": "is for workers, which",
        "hydra.sweeper.until=decided": "it began with fixed seeds",
    }
    for word, message in refused.items():
        outcome = run("-m", "resume=it", word)
        assert outcome.code == 1, word
        [line] = outcome.err.splitlines()
        assert word.partition("=")[0].lstrip("+") in line
        assert message in line, line
    for word in ("hydra.sweeper.prune=none", "hydra.sweeper.trials=1"):
        assert "plain has no search of settings; remove it" in run("-m", "resume=plain", word).err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    same = ["trials=1", "trial_seeds=[7]", "search=random", "prune=none", "finalists=2"]
    kept = ["dry_run=false", "stop_on_failure=true", "retry_failed=true", "allow_changed=true"]
    typed = [f"hydra.sweeper.{word}" for word in (*same, *kept)]
    fields = {field.name for field in fields_of(ResumableConf) if field.name not in ("_target_", "work", "close")}
    assert {word.split(".")[2].partition("=")[0] for word in (*typed, *refused) if "sweeper" in word} | {
        "max_seeds", "smallest",  # test_sweep_rounds.py
    } == fields  # fmt: skip
    outcome = run("-m", "resume=it", *typed, "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    other = run("-m", *words, "hydra.sweeper.trial_seeds=[8]")
    assert "trial_seeds: the search in it has [7], not [8]; choose another hydra.sweep.dir" in other.err


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_nothing_had_happened(run: Run, tmp_path: Path) -> None:
    words = [*QUICK, *TUNE[::2], "hydra.sweeper.trials=12", "hydra.sweeper.trial_seeds=[7]", "seed=0"]
    words += ["hydra/launcher=fused", "epochs=20"]
    pytest.importorskip("optuna")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *words, "hydra.sweep.dir=it"], cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not (tmp_path / "it/search/9/metrics.csv").exists():  # in the second batch
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    outcome = run("-m", "resume=it", "hydra/launcher=fused")
    assert outcome.code == 0, outcome.err
    run("-m", *words, "hydra.sweep.dir=whole")
    for folder in ("search", "."):
        assert asked(f"it/{folder}") == asked(f"whole/{folder}")
    for folder in ("search/9", "search/11", "0", "2"):
        assert learned(Path("it", folder)) == learned(Path("whole", folder))
    session = next(each for each in Ledger(Path("it/search")).read()[0] if "search" in each)
    assert "optuna" in session["versions"]
    lines = Path("it/search/optuna.journal").read_text().splitlines()
    assert sum(json.loads(line)["op_code"] == 4 for line in lines) == 12  # trials


PRUNING = [*QUICK, "optimizer=sgd", "optimizer.lr=choice(0.1,0.05,0.0001,0.0002)", "seed=0", *RANDOM, "epochs=3"]
PRUNING += ["hydra.sweeper.search=grid", "hydra.sweeper.trials=4", "hydra.sweep.dir=it"]
PRUNING += ["hydra.sweeper.prune={pruner:median,n_startup_trials:1}"]


def test_a_search_prunes_what_is_behind_and_never_runs_it_again(run: Run) -> None:
    outcome = run("-m", *PRUNING)
    assert outcome.code == 0, outcome.err
    jobs = Ledger(Path("it/search")).read()[1]
    assert [jobs[number].status for number in range(4)] == ["completed", "completed", "pruned", "pruned"]
    for number in (2, 3):
        folder = Path("it/search", str(number))
        assert list(folder.rglob("*.pt")) == []
        assert len(metrics(folder)) == 1
        assert jobs[number].choices["stop_below"] is not None
    assert "4 of 4 trials, 2 pruned; best so far" in outcome.out
    assert "Pruning ended 2 runs early, which saved 4 of 12 epochs." in Path("it/report.md").read_text()
    best = max((0, 1), key=lambda number: summary(Path("it/search", str(number)))["best_val_accuracy"])
    assert asked("it")[1][-1] in asked("it/search")[best]
    before = Path("it/search/ledger.jsonl").read_bytes()
    again = run("-m", *PRUNING)
    assert again.code == 0, again.err
    assert Path("it/search/ledger.jsonl").read_bytes() == before


def test_seeds_are_saved_where_a_trial_is_worse(run: Run) -> None:
    words = [*PRUNING[:-1], "optimizer.lr=choice(0.1,0.0001)", "hydra.sweeper.trials=2", "epochs=1"]
    words += ["hydra.sweeper.trial_seeds=[7,8,9]", "hydra.sweeper.prune={pruner:wilcoxon,p_threshold:0.3}"]
    outcome = run("-m", *words)
    assert outcome.code == 0, outcome.err
    assert "2 trials of optimizer.lr, at most 3 seeds a trial: 6 runs" in outcome.out
    seeds = [(job[-2], job[-1]) for job in asked("it/search")]
    assert seeds == [
        *[("optimizer.lr=0.1", f"seed={seed}") for seed in (7, 8, 9)],
        *[("optimizer.lr=0.0001", f"seed={seed}") for seed in (7, 8)],
    ]
    assert "2 of 2 trials, 1 pruned; best so far" in outcome.out
    assert "scipy" in Ledger(Path("it/search")).read()[0][0]["versions"]
    text = Path("it/report.md").read_text()
    assert "each with at most 3 seeds" in text
    assert "Pruning ended 1 trial before the last seed, which saved 1 of 6 runs. These trials have no result." in text
    lines = map(json.loads, Path("it/search/optuna.journal").read_text().splitlines())
    assert [line["state"] for line in lines if line["op_code"] == 4] == [TrialState.COMPLETE, TrialState.PRUNED]
    before = Path("it/search/ledger.jsonl").read_bytes()
    assert run("-m", *words).code == 0
    assert Path("it/search/ledger.jsonl").read_bytes() == before


HYPERBAND = [*QUICK, "optimizer=sgd", "optimizer.lr=choice(0.1,0.0001,0.0002,0.05,0.01)", "seed=0", *RANDOM, "epochs=3"]
HYPERBAND += ["hydra.sweeper.search=grid", "hydra.sweeper.trials=5"]


def test_the_best_of_a_bracket_go_on_where_they_were(run: Run) -> None:
    outcome = run("-m", *HYPERBAND, "hydra.sweeper.prune=hyperband", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    jobs = Ledger(Path("it/search")).read()[1]
    assert [jobs[number].status for number in range(5)] == ["completed", "pruned", "pruned", "completed", "completed"]
    assert [jobs[number].choices["stop_after"] for number in range(5)] == [3, 1, 1, 3, 3]
    folders = [Path("it/search", str(number)) for number in range(5)]
    assert [len(metrics(folder)) for folder in folders] == [3, 1, 1, 3, 3]
    assert [sorted(path.name for path in folder.rglob("*.pt")) for folder in folders[:3]] == [
        ["best.pt", "last.pt"], [], [],
    ]  # fmt: skip
    assert summary(folders[0])["resumed"] == [{"after_epoch": 1, "changed": {}}]
    lines = map(json.loads, Path("it/search/optuna.journal").read_text().splitlines())
    states = [TrialState(line["state"]) for line in lines if line["op_code"] == 4]
    assert [state.name for state in states] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE", "COMPLETE"]
    assert "Pruning ended 2 runs early, which saved 4 of 15 epochs." in Path("it/report.md").read_text()
    before = Path("it/search/ledger.jsonl").read_bytes()
    assert run("-m", *HYPERBAND, "hydra.sweeper.prune=hyperband", "hydra.sweep.dir=it").code == 0
    assert Path("it/search/ledger.jsonl").read_bytes() == before
    alone = run(*jobs[0].overrides, "plots=false", "hydra.run.dir=alone")
    assert alone.code == 0, alone.err
    assert [dict(row, seconds="") for row in metrics(folders[0])] == [
        dict(row, seconds="") for row in metrics(Path("alone"))
    ]
    assert summary(folders[0])["test_errors"] == summary(Path("alone"))["test_errors"]


@pytest.mark.slow
def test_workers_take_what_goes_on_of_a_bracket(run: Run) -> None:
    """Its batch of jobs is done, and it gets another one."""
    words = [*HYPERBAND, "hydra.sweeper.prune=hyperband"]
    assert run("-m", *words, "hydra.sweep.dir=here").code == 0
    assert run("-m", *words, "hydra/launcher=workers", "hydra.sweep.dir=there").code == 0
    command = [sys.executable, "-m", "mnist_exp", "work", "there"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    here, there = (Ledger(Path(folder, "search")).read()[1] for folder in ("here", "there"))
    assert [there[number].status for number in here] == [job.status for job in here.values()]
    completed = [number for number, job in here.items() if job.status == "completed"]  # a pruned one has no checkpoint
    assert 0 < len(completed) < len(here)
    for number in completed:
        assert learned(Path("there/search", str(number))) == learned(Path("here/search", str(number)))
    assert {job.status for job in Ledger(Path("there")).read()[1].values()} == {"completed"}


def test_the_best_of_a_bracket_that_is_cut_short_comes_to_its_end(run: Run) -> None:
    words = [*HYPERBAND, "hydra.sweeper.trials=2", "hydra/launcher=fused", "hydra.launcher.keep=none"]
    outcome = run("-m", *words, "hydra.sweeper.prune=hyperband", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    assert [job.status for job in Ledger(Path("it/search")).read()[1].values()] == ["completed", "pruned"]
    for folder in (Path("it/search/0"), Path("it/search/1")):
        assert not {"best.pt", "last.pt", "hydra.yaml"} & {path.name for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["epochs=2"], "epochs=2: hydra.sweeper.prune=hyperband with reduction_factor=3 needs 3 or more"),
        (["epochs=interval(3,5)"], "epochs: hydra.sweeper.prune=hyperband divides the epochs"),
        (["hydra.sweeper.prune={pruner:hyperband,resource:seeds}"], "hydra.sweeper.trial_seeds: has 1, and"),
        (
            ["hydra.sweeper.prune=wilcoxon", "hydra.sweeper.trial_seeds=[7,8,9,10]"],
            "trial_seeds: has 4, and hydra.sweeper.prune=wilcoxon with p_threshold=0.1 prunes after 4 at the earliest",
        ),
    ],
)
def test_a_pruner_needs_epochs_or_seeds_to_divide(wrong: list[str], message: str, run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *HYPERBAND, "hydra.sweeper.prune=hyperband", *wrong)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_only_a_search_can_be_pruned(run: Run) -> None:
    outcome = run("-m", *QUICK, "seed=0,1", "hydra.sweeper.prune=median")
    assert outcome.code == 1
    [line] = outcome.err.splitlines()
    assert line.endswith(
        "hydra.sweeper.prune=median: prunes a search of intervals and choices, and there is none; give a key "
        "interval(LOW,HIGH) or choice(A,B), and hydra.sweeper.trials=N, or remove it"
    )


@pytest.mark.slow
def test_a_trial_that_diverges_is_no_finalist(run: Run) -> None:
    words = [*QUICK, "optimizer=sgd", "optimizer.lr=tag(log,interval(0.01,1e15))", "seed=0", *RANDOM]
    outcome = run("-m", *words, "hydra.sweeper.search=grid", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    assert asked("it") == [("optimizer=sgd", "seed=0"), ("optimizer=sgd", "seed=0", "optimizer.lr=0.01")]
    assert "2 trials failed (2 diverged): the search took that as the worst." in Path("it/report.md").read_text()
