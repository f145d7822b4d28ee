"""Sequential sweeps as a user sees them: their rounds, what stops them, and how they resume."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Outcome
from helpers.run_folders import learned as bits
from test_sweep_run import JOBLIB, command, needs_joblib, statuses, wait_for

from mnist_exp.report import figures, results, sequential
from mnist_exp.store.ledger import Ledger
from mnist_exp.sweep.jobs import Task
from mnist_exp.system import files

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
DRY = "hydra.sweeper.dry_run=true"
UNTIL = ["hydra.sweeper.until=decided", "hydra.sweeper.max_seeds=8"]
CLOSE = [*QUICK, "epochs=1", "optimizer.lr=0.01,0.0101,0.0001", *UNTIL]  # two that are alike, and one far behind
FUSED = ["hydra/launcher=fused"]
SEARCHED = [
    *QUICK,
    "epochs=1",
    "activation=elu,selu",
    "optimizer.lr_range=[0.008,0.01]",
    "hydra.sweeper.trials=1",
    *UNTIL,
]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def seeds_of_arms(folder: str) -> dict[str, list[int]]:
    """The seeds of each arm, in the order in which they were planned."""
    found: dict[str, list[int]] = {}
    for job in Ledger(Path(folder)).read()[1].values():
        found.setdefault(job.overrides[-2].rpartition("=")[2], []).append(job.seed)
    return found


def session_count(folder: str) -> int:
    return len(Ledger(Path(folder)).read()[0])


def standing(folder: str) -> sequential.Standing:
    found = results.read([Path(folder)])
    rule = sequential.rule(found.sessions)
    assert rule
    return sequential.standing(found, rule)


@pytest.mark.parametrize(
    "launcher",
    [
        [],
        pytest.param(FUSED, marks=pytest.mark.slow),
        pytest.param(JOBLIB, marks=[pytest.mark.slow, needs_joblib]),
    ],
    ids=["plain", "fused", "joblib"],
)
def test_seeds_are_added_until_the_most_that_are_allowed(launcher: list[str], run: Run) -> None:
    outcome = run("-m", *CLOSE, *launcher, "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    assert "15 jobs: optimizer.lr (3) x seed (5)" in outcome.out
    few = [*range(10 if launcher == FUSED else 6)]
    assert seeds_of_arms("it") == {"0.01": [*range(8)], "0.0101": [*range(8)], "0.0001": few[:8]}
    assert standing("it").over == sequential.MOST
    rounds = [line.partition(":")[0] for line in outcome.out.splitlines() if " leads; " in line]
    assert rounds == [f"{n} seeds" for n in ((5, 8) if launcher == FUSED else (5, 6, 7, 8))]
    runs = 24 if launcher == FUSED else 22
    assert f"no more seeds: hydra.sweeper.max_seeds allows no more seeds ({runs} runs)" in outcome.out
    assert "to resume" not in outcome.out
    assert session_count("it") == 1


@pytest.mark.slow
def test_an_arm_that_is_behind_gets_no_more_seeds(run: Run) -> None:
    outcome = run("-m", *CLOSE, "seed=range(3,10)", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    assert seeds_of_arms("it") == {"0.01": [*range(3, 11)], "0.0101": [*range(3, 11)], "0.0001": [*range(3, 10)]}
    assert "; lr=0.0001 is behind (p " in outcome.out


def test_a_decided_sweep_stops_and_stays_so(run: Run) -> None:
    words = [*QUICK, "epochs=1", "optimizer.lr=0.01,0.0001", "seed=range(0,6)", "hydra.sweep.dir=it"]
    outcome = run("-m", *words, *UNTIL)
    assert outcome.code == 0, outcome.err
    assert "6 seeds: lr=0.01 leads; lr=0.0001 is behind (p" in outcome.out
    assert "no more seeds: every comparison with the leader is decided (12 runs)" in outcome.out
    before = Path("it/ledger.jsonl").read_bytes()
    for again in (["resume=it"], [*words, *UNTIL], words):
        outcome = run("-m", *again)
        assert outcome.code == 0, outcome.err
        assert "12 of 12 jobs are completed, 0 to run" in outcome.out
        assert "no more seeds: every comparison with the leader is decided" in outcome.out
    assert Path("it/ledger.jsonl").read_bytes() == before


@pytest.mark.slow
def test_more_seeds_may_be_allowed_later_and_no_other_margin(run: Run) -> None:
    run("-m", *CLOSE[:-1], "hydra.sweeper.max_seeds=5", "hydra.sweep.dir=it")
    assert {len(seeds) for seeds in seeds_of_arms("it").values()} == {5}
    outcome = run("-m", "resume=it", "hydra.sweeper.smallest=0.2")
    assert (outcome.code, outcome.err.count("\n")) == (1, 0)
    assert "hydra.sweeper.smallest=0.2: it began with 0.1" in outcome.err
    outcome = run("-m", "resume=it", "hydra.sweeper.max_seeds=7", "hydra.sweeper.smallest=0.1")
    assert outcome.code == 0, outcome.err
    assert [len(seeds) for seeds in seeds_of_arms("it").values()] == [7, 7, 6]
    assert session_count("it") == 2
    assert "until" in Ledger(Path("it")).read()[0][1]
    assert "resume: python" not in outcome.out
    assert "7 seeds: " in run("-m", "resume=it").out


@pytest.mark.slow
def test_a_sweep_of_fixed_seeds_stays_one(run: Run) -> None:
    words = [*QUICK, "epochs=1", "optimizer=adam,sgd", "seed=0,1", "hydra.sweep.dir=it"]
    run("-m", *words)
    for again in (["resume=it"], words):
        outcome = run("-m", *again, *UNTIL)
        assert (outcome.code, outcome.err.count("\n")) == (1, 0)
        assert "hydra.sweeper.until=decided: it began with fixed seeds" in outcome.err
    assert sequential.sentences(results.read([Path("it")])) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("hydra.sweeper.until=dcided", "hydra.sweeper.until=dcided: must be decided, or null for the seeds that are"),
        ("hydra.sweeper.max_seeds=4", "hydra.sweeper.max_seeds=4: must be 5 or more, the seeds to begin with"),
        ("seed=range(0,9) hydra.sweeper.max_seeds=8", "hydra.sweeper.max_seeds=8: must be 9 or more"),
        ("hydra.sweeper.max_seeds=0", "hydra.sweeper.max_seeds=0: must be 2 or more seeds per arm"),
        ("hydra.sweeper.smallest=0", "hydra.sweeper.smallest=0: must be more than 0 percentage points"),
        ("hydra.sweeper.smallest=nan", "hydra.sweeper.smallest=nan: must be more than 0 percentage points"),
        ("optimizer=sgd", "hydra.sweeper.until=decided: compares arms, and there is one"),
        ("data.seed=0,1", "data.seed=0,1: with hydra.sweeper.until=decided, data.seed has one value"),
        ("data.seed=${seed}", "data.seed=0,1,2,3,4: with hydra.sweeper.until=decided, data.seed has one value"),
    ],
)
def test_bad_input_gets_one_line(run: Run, tmp_path: Path, words: str, message: str) -> None:
    outcome = run("-m", *QUICK, "optimizer=adam,sgd", "hydra.sweeper.until=decided", *words.split())
    assert (outcome.code, outcome.err.count("\n")) == (1, 0), outcome.err
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["max_seeds=9", "smallest=0.2"])
def test_keys_of_sequential_sweeps_are_for_these(run: Run, word: str) -> None:
    outcome = run("-m", *QUICK, "optimizer=adam,sgd", f"hydra.sweeper.{word}", DRY)
    assert (outcome.code, outcome.err.count("\n")) == (1, 0)
    assert "is for sweeps with hydra.sweeper.until=decided; add it, or remove this" in outcome.err


def test_an_experiment_may_ask_for_it(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "experiment"
    folder.mkdir(parents=True)
    sweeper = "{params: {optimizer: 'adam,sgd', seed: '3,4'}, until: decided, max_seeds: 9}"
    (folder / "mine.yaml").write_text(f"# @package _global_\nhydra: {{sweeper: {sweeper}}}\n")
    outcome = run("-m", "experiment=mine", "--config-dir", str(tmp_path / "more"), DRY)
    assert "4 jobs: optimizer (2) x seed (2)" in outcome.out
    assert outcome.out.endswith("up to 9 seeds: at most 18 runs\n")


def test_arms_that_begin_with_other_seeds_are_not_paired(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "experiment"
    folder.mkdir(parents=True)
    for name, seeds in (("few", "0,1"), ("many", "0,1,2")):
        text = f"# @package _global_\nhydra: {{sweeper: {{params: {{optimizer: 'adam', seed: '{seeds}'}}}}}}\n"
        (folder / f"{name}.yaml").write_text(text + f"epochs: {len(seeds)}\n")
    outcome = run("-m", "experiment=few,many", "data=digits", "--config-dir", str(tmp_path / "more"), *UNTIL)
    assert "all arms must begin with the same ones; here one has 0, 1 and another 0, 1, 2" in outcome.err


@pytest.mark.parametrize(
    ("launcher", "rounds"), [([], "one seed"), (["hydra/launcher=fused"], "5 seeds")], ids=["plain", "fused"]
)
def test_a_dry_run_says_how_many_runs_there_may_be(run: Run, tmp_path: Path, launcher: list[str], rounds: str) -> None:
    outcome = run("-m", "optimizer=adam,sgd,rmsprop", "hydra.sweeper.until=decided", DRY, *launcher)
    assert outcome.code == 0, outcome.err
    assert len([line for line in outcome.out.splitlines() if line.startswith("optimizer=")]) == 15
    assert outcome.out.splitlines()[-1] == (
        f"then {rounds} at a time for each arm that is still in the race, up to 40 seeds: at most 120 runs"
    )
    assert list(tmp_path.iterdir()) == []


@needs_joblib
def test_a_round_fills_the_workers(run: Run) -> None:
    words = ["optimizer=adam,sgd,rmsprop", "hydra.sweeper.until=decided", "hydra/launcher=joblib"]
    assert "then 2 seeds at a time" in run("-m", *words, "hydra.launcher.n_jobs=8", DRY).out
    assert "then one seed at a time" in run("-m", *words, "hydra.launcher.n_jobs=2", DRY).out


@pytest.mark.slow
def test_a_search_for_learning_rates_comes_first_and_its_seeds_judge_nothing(run: Run) -> None:
    outcome = run("-m", *SEARCHED, "hydra.sweeper.trial_seeds=[5]", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    jobs = Ledger(Path("it")).read()[1].values()
    assert {job.seed for job in jobs} == {0, 1, 2, 3, 4, 6, 7, 8}
    rates = {(job.choices["activation"], job.choices["optimizer.lr"]) for job in jobs}
    assert len(rates) == 2
    assert sum(job.choices["activation"] == "elu" for job in jobs) == 8


@pytest.mark.slow
def test_a_search_that_is_stopped_is_resumed_with_its_rounds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert run("-m", *SEARCHED, "hydra.sweep.dir=it").code == 130
    assert not Path("it/ledger.jsonl").exists()
    assert run("-m", "resume=it").code == 0
    assert {job.seed for job in Ledger(Path("it")).read()[1].values()} == {*range(8)}
    assert standing("it").over == sequential.MOST


@pytest.mark.slow
def test_arms_may_differ_in_a_key_beside_their_identity(run: Run) -> None:
    words = [*QUICK, "epochs=1", "deterministic=true,false", "optimizer.lr=0.01,0.0101", *UNTIL[:1]]
    outcome = run("-m", *words, "hydra.sweeper.max_seeds=6", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    seeds: dict[tuple[Any, Any], list[int]] = {}
    for job in Ledger(Path("it")).read()[1].values():
        seeds.setdefault((job.choices["deterministic"], job.choices["optimizer.lr"]), []).append(job.seed)
    assert len(seeds) == 4
    assert max(map(len, seeds.values())) == 6
    assert "is the same" in outcome.out


@pytest.mark.slow
def test_an_arm_with_failed_runs_gets_no_more_seeds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, 0.0001, 3)
    outcome = run("-m", *CLOSE, "hydra.sweeper.max_seeds=6", "hydra.sweep.dir=it")
    assert outcome.code == 1
    assert seeds_of_arms("it") == {"0.01": [*range(6)], "0.0101": [*range(6)], "0.0001": [*range(5)]}
    assert "lr=0.0001" not in next(line for line in outcome.out.splitlines() if " leads" in line)


@pytest.mark.slow
def test_a_sweep_with_one_arm_left_is_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, 0.01, 3)
    outcome = run("-m", *QUICK, "epochs=1", "optimizer.lr=0.01,0.02", *UNTIL, "hydra.sweep.dir=it")
    assert outcome.code == 1
    assert "no more seeds: fewer than two arms without failed runs are left (10 runs)" in outcome.out
    assert "fewer than two arms without failed runs were left" in sequential.sentences(results.read([Path("it")]))[0]


def fail(monkeypatch: pytest.MonkeyPatch, lr: float, seed: int) -> None:
    """Have one run diverge."""
    from mnist_exp.training.run import TrainingRun

    start = TrainingRun.start

    def spoiled(self: TrainingRun, *parts: Any) -> None:
        if (self.cfg.seed, self.cfg.optimizer.lr) == (seed, lr):
            raise FloatingPointError("the loss became nan")
        start(self, *parts)

    monkeypatch.setattr(TrainingRun, "start", spoiled)


def stop_after(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    """Send Ctrl-C when so many jobs have ended."""
    log_outcome, ended = Task._log_outcome, [0]

    def count(self: Task, *facts: Any) -> None:
        log_outcome(self, *facts)
        ended[0] += 1
        if ended[0] == jobs:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Task, "_log_outcome", count)


def decisions(folder: Path) -> list[tuple[int, str, int]]:
    """Each job that was planned, in this order."""
    jobs = Ledger(folder).read()[1]
    return [(number, str(job.choices["optimizer.lr"]), job.seed) for number, job in jobs.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "again"), [(15, "resume"), (16, "the same command")], ids=["between rounds", "in a round"]
)
def test_ctrl_c_and_resume(jobs: int, again: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*CLOSE, "hydra.sweeper.max_seeds=6"]
    undisturbed = run("-m", *words, "hydra.sweep.dir=undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    with monkeypatch.context() as patch:
        stop_after(patch, jobs)
        outcome = run("-m", *words, "hydra.sweep.dir=it")
    assert (outcome.code, outcome.err) == (130, "")
    assert "to resume: python train.py -m resume=it" in outcome.out
    assert run("-m", *(["resume=it"] if again == "resume" else [*words, "hydra.sweep.dir=it"])).code == 0
    assert decisions(Path("it")) == decisions(Path("undisturbed"))
    for number in statuses(Path("it")):
        assert bits(Path("it", str(number))) == bits(Path("undisturbed", str(number)))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], pytest.param(JOBLIB, marks=needs_joblib)], ids=["plain", "joblib"])
def test_a_sequential_sweep_survives_many_kills(launcher: list[str], run: Run, tmp_path: Path) -> None:
    """SIGKILL to all its processes in the first round, in later ones, and between two of them."""
    words = [*CLOSE, "epochs=2", *launcher]
    undisturbed = run("-m", *words, "hydra.sweep.dir=undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    total = len(statuses(tmp_path / "undisturbed"))
    again = [*words, "hydra.sweep.dir=it"]
    for moment in (2, 10, 15, 16, 19, total - 1):
        sweep = subprocess.Popen(
            command(*again), cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        wait_for(lambda: completed(tmp_path / "it") >= moment)  # noqa: B023
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
        again = [*words, "hydra.sweep.dir=it"] if moment % 2 else ["resume=it", *launcher]
    last = subprocess.run(command("resume=it", *launcher), cwd=tmp_path, capture_output=True, text=True)
    assert last.returncode == 0, last.stdout + last.stderr
    assert decisions(tmp_path / "it") == decisions(tmp_path / "undisturbed")
    for number in range(total):
        assert bits(tmp_path / "it" / str(number)) == bits(tmp_path / "undisturbed" / str(number))


def completed(folder: Path) -> int:
    try:
        return list(statuses(folder).values()).count("completed")
    except (OSError, ValueError):  # the ledger is being written, or not there yet
        return 0


@pytest.mark.slow
def test_a_round_whose_list_was_torn_is_completed(run: Run, tmp_path: Path) -> None:
    run("-m", *CLOSE, "hydra.sweep.dir=undisturbed")
    run("-m", *CLOSE, "hydra.sweeper.max_seeds=5", "hydra.sweep.dir=it")
    lines = Path("undisturbed/ledger.jsonl").read_text().splitlines(keepends=True)
    entries = files.unseal_lines([line.rstrip().encode() for line in lines])
    torn = next(i for i, entry in enumerate(entries) if entry.get("job") == 15) + 1  # the first of the second round
    Path("it/ledger.jsonl").write_text("".join(lines[:torn]))
    assert run("-m", "resume=it").code == 0
    assert sorted(decision[1:] for decision in decisions(Path("it"))) == sorted(
        decision[1:] for decision in decisions(Path("undisturbed"))
    )


@pytest.mark.slow
def test_rounds_check_and_report_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds happens once a sweep, not once a round."""
    from mnist_exp import build
    from mnist_exp.report import report

    calls: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*facts: Any) -> Any:
            calls.append(name)
            return function(*facts)

        return call

    monkeypatch.setattr("mnist_exp.sweep.preflight.run_in_subprocess", lambda work: work())
    monkeypatch.setattr(build.Trial, "check", counted("check", build.Trial.check))
    monkeypatch.setattr(report, "write", counted("report", report.write))
    assert run("-m", *CLOSE, "hydra.sweeper.max_seeds=7").code == 0
    assert calls == ["check", "check", "check", "report"]


def test_a_single_run_has_nothing_to_decide(run: Run) -> None:
    outcome = run("data=digits", "hydra.sweeper.until=decided")
    assert outcome.code == 1
    assert "error: hydra.sweeper.until=decided: is for a sweep; add -m and values to compare" in outcome.err
