"""What a command asks of a sweep: which jobs, with which options."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome

from mnist_exp.report import figures, results
from mnist_exp.store.ledger import Ledger

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
DRY = "hydra.sweeper.dry_run=true"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def listed(outcome: Outcome) -> list[str]:
    """The jobs of a dry run."""
    assert outcome.code == 0, outcome.err
    return [line for line in outcome.out.splitlines() if "=" in line.partition(" ")[0]]


def overlay(folder: Path, name: str, text: str) -> list[str]:
    """A folder of configs with one option more, and the words that name it."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return ["--config-dir", str(folder)]


@pytest.mark.slow
def test_several_experiments_are_the_union_of_their_sweeps(run: Run) -> None:
    few = ["seed=0", "hydra.sweeper.trial_seeds=[7]", DRY]
    each = [run("-m", f"experiment={name}", *few) for name in ("optimizers", "activations")]
    both = run("-m", "experiment=optimizers,activations", *few)
    assert both.out.startswith("15 jobs, after 87 runs that search optimizer.lr: ")
    assert (
        [sorted(line.split()) for line in listed(both)]
        == [
            sorted(line.split())
            for part in (0, 1)  # the trials, then the runs that judge
            for outcome in each
            for line in outcome.out.partition("\nthen, each")[0 if part == 0 else 2].splitlines()[1:]
        ]
    )
    alone = run("-m", "experiment=digits,optimizers", "hydra.sweeper.trials=0", "seed=1", DRY)
    assert len(listed(alone)) == 1 + 6


def test_what_a_whole_sweep_shares_is_no_choice_of_one_job(run: Run, tmp_path: Path) -> None:
    more = overlay(
        tmp_path / "more", "experiment/wide", "# @package _global_\ndefaults:\n  - override /hydra/launcher: fused\n"
    )
    outcome = run("-m", "experiment=digits,wide", DRY, *more)
    message = "experiment=wide: sets hydra.launcher._target_=hydra_plugins.mnist_exp.launcher.FusedLauncher"
    assert (outcome.code, outcome.err.count("\n")) == (1, 0)
    assert message in outcome.err
    assert len(listed(run("-m", "experiment=wide", "seed=0,1", DRY, *more))) == 2  # alone: the whole sweep's
    overlay(tmp_path / "more", "optimizer/mine", "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    outcome = run("-m", "optimizer=adam,mine", DRY, *more)
    assert "optimizer=mine: only an experiment may set hydra.sweeper.params" in outcome.err


@pytest.mark.parametrize(
    ("words", "jobs", "message"),
    [
        ("optimizer=sgd,rmsprop optimizer.momentum=0.8", 2, ""),
        ("optimizer.momentum=0.8 optimizer=sgd,adam", 0, "optimizer.momentum=0.8: optimizer=adam has no key momentum"),
        ("schedule=cosine,onecycle schedule.min_lr=0", 0, "schedule.min_lr=0: schedule=onecycle has no key min_lr"),
        ("model=lenet,linear model.dropout=0.5", 0, "model.dropout=0.5: model=linear has no key dropout"),
        ("loss=mse,cross_entropy loss.label_smoothing=0.1", 0, "loss=mse has no key label_smoothing"),
        ("augmentation=affine,affine_elastic augmentation.affine.degrees=5", 2, ""),
        ("augmentation=affine,none augmentation.affine.degrees=5", 0, "augmentation=none has no key affine"),
        ("activation=elu,leaky_relu activation.alpha=2", 0, "activation=leaky_relu has no key alpha"),
        ("model=linear,mlp model.max_norm=null", 0, "model.max_norm=null: model=linear has no key max_norm"),
        ("data=emnist,mnist data.split=letters", 0, "data=mnist has no key split"),
        ("experiment=optimizers optimizer=sgd optimizer.nesterov=true hydra.sweeper.trials=0", 10, ""),
    ],
)  # fmt: skip
def test_a_key_is_held_against_the_options_that_were_chosen(run: Run, words: str, jobs: int, message: str) -> None:
    outcome = run("-m", *words.split(), DRY)
    assert (outcome.code == 0, outcome.err.count("\n")) == (jobs > 0, 0), outcome.err
    assert message in outcome.err
    assert len(listed(outcome) if jobs else []) == jobs


def test_a_limit_that_depends_on_the_data_is_that_of_each_job(run: Run, tmp_path: Path) -> None:
    outcome = run("-m", "data=digits", "data.validation=100,1500")
    assert "data.validation=1500: must be 1 to 1,499, of 1,500 training images (in the job data=digits" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_swept_key_makes_jobs_whatever_a_run_is(run: Run, tmp_path: Path) -> None:
    for words, jobs in (
        ("threads=1,2 seed=0,1", 4), ("deterministic=true,false", 2), ("data.root=a,b data=digits", 2),
        ("optimizer.lr_range=[1e-4,1e-2],[1e-3,1e-1] seed=0,1", 4), ("optimizer.lr=0.001,1e-3 seed=0,0,1", 2),
    ):  # fmt: skip
        assert len(listed(run("-m", *words.split(), DRY))) == jobs
    search = ["hydra.sweeper.trials=2", "hydra.sweeper.trial_seeds=[5]", "optimizer.lr_range=[1e-4,1e-2],[1e-3,1e-1]"]
    assert "2 jobs, after 4 runs that search optimizer.lr" in run("-m", *search, DRY).out
    outcome = run("-m", *QUICK, "epochs=1", "deterministic=true,false", "hydra.sweep.dir=it")
    assert outcome.code == 0, outcome.err
    jobs_of = Ledger(tmp_path / "it").read()[1]
    done = [(job.status, job.choices["deterministic"]) for job in jobs_of.values()]
    assert done == [("completed", True), ("completed", False)]
    assert len({job.config_id for job in jobs_of.values()}) == 1
    again = run("-m", *QUICK, "epochs=1", "deterministic=false,true", "seed=0,1", "hydra.sweep.dir=it")
    assert "2 of 2 jobs are completed, 2 to run" in again.out
    [first, second] = results.read([tmp_path / "it"]).arms
    assert {first.label, second.label} == {"deterministic=true", "deterministic=false"}
    assert [run.job.seed for arm in (first, second) for run in arm.runs] == [0, 1, 0, 1]
    again = run("-m", "resume=it", "tags=[late]")
    assert "tags=[late]: for the 0 jobs still to run; completed ones stay as they are" in again.out
    assert "4 of 4 jobs are completed, 0 to run" in again.out


def test_a_sweep_has_one_folder(run: Run, tmp_path: Path) -> None:
    assert run("-m", *QUICK, "epochs=1", "optimizer.lr=0.25", "hydra.sweep.dir='lr_${optimizer.lr}'").code == 0
    assert (tmp_path / "lr_0.25" / "ledger.jsonl").exists()
    outcome = run("-m", *QUICK, "optimizer.lr=0.25,0.5", "hydra.sweep.dir='lr_${optimizer.lr}'")
    assert "hydra.sweep.dir: a sweep has one folder, and these jobs ask for 2" in outcome.err


@pytest.mark.slow
def test_a_folder_has_one_owner(run: Run, tmp_path: Path) -> None:
    assert run(*QUICK, "epochs=1", "plots=false", "hydra.run.dir=one").code == 0
    assert run("-m", *QUICK, "epochs=1", "hydra.sweep.dir=many").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, message in (
        (["-m", "hydra.sweep.dir=one"], "one holds a run: choose another hydra.sweep.dir"),
        (["-m", "hydra.sweep.dir=one", DRY], "one holds a run"),
        (["-m", "hydra.sweep.dir=many/0"], "many/0 holds a job of a sweep"),
        (["-m", "hydra.sweep.dir=many/7"], "many/7 holds a job of a sweep"),
        (["hydra.run.dir=many"], "many already holds a sweep: choose another hydra.run.dir"),
        (["hydra.run.dir=many/0"], "many/0 already holds a job of a sweep"),
        (["hydra.run.dir=many/7"], "many/7 already holds a job of a sweep"),
        (["hydra.run.dir=one"], "one already holds a run"),
    ):
        outcome = run(*QUICK, *words)
        assert (outcome.code, outcome.err.count("\n")) == (1, 0), outcome.err
        assert message in outcome.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run("resume=one", "epochs=2").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["1/summary.json", "1", "1/checkpoints"])
def test_a_job_whose_results_are_gone_is_run_again(run: Run, tmp_path: Path, what: str) -> None:
    run("-m", *QUICK, "seed=0,1", "hydra.sweep.dir=it")
    bits = (tmp_path / "it/1/metrics.csv").read_text().splitlines()[-1].split(",")[:5]
    path = tmp_path / "it" / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if what == "1/checkpoints":
        (tmp_path / "it/1/summary.json").write_text("{damaged")
    outcome = run("-m", "resume=it")
    assert outcome.code == 0, outcome.err
    assert "the results of job 1 are gone or damaged" in outcome.out
    assert "1 of 2 jobs are completed, 1 to run" in outcome.out
    assert (tmp_path / "it/1/metrics.csv").read_text().splitlines()[-1].split(",")[:5] == bits
    assert "2 of 2 runs completed" in outcome.out
    assert "0 to run" in run("-m", "resume=it", "hydra.sweeper.retry_failed=true").out


@pytest.mark.slow
def test_only_what_the_program_wrote_is_cleared(run: Run, tmp_path: Path) -> None:
    run("-m", *QUICK, "seed=0,1", "hydra.sweep.dir=it", "plots=true")
    mine = [tmp_path / "it/1" / name for name in ("notes.txt", "plots/mine.png", "own/data.csv", ".hydra/notes")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (tmp_path / "it/1/summary.json").unlink()
    (tmp_path / "it/1/checkpoints/last.pt").unlink()
    assert run("-m", "resume=it").code == 0
    assert [path.read_text() for path in mine] == ["mine"] * 4


def test_a_sweep_that_is_kept_as_an_experiment_is_not_one_run(run: Run, tmp_path: Path) -> None:
    outcome = run("experiment=optimizers")
    assert outcome.err == (
        "error: experiment=optimizers: is a sweep over optimizer, seed; add -m, or choose one run of it, as in "
        "experiment=optimizers optimizer=sgd"
    )
    assert run("experiment=optimizers", "optimizer=sgd", *TINY).code == 0


def test_experiment_null_means_none(run: Run) -> None:
    assert run("experiment=null", *TINY).code == 0
    assert len(listed(run("-m", "experiment=null,digits", DRY))) == 2


@pytest.mark.slow
def test_a_job_knows_its_number(run: Run, tmp_path: Path) -> None:
    run("-m", *QUICK, "epochs=1", "seed=0,1", "hydra.sweep.dir=it")
    (tmp_path / "it/0/summary.json").unlink()
    run("-m", *QUICK, "epochs=1", "seed=0,1,2", "hydra.sweep.dir=it")
    configs = [(tmp_path / "it" / str(job) / ".hydra/hydra.yaml").read_text() for job in range(3)]
    assert [f"    num: {job}\n" in text for job, text in enumerate(configs)] == [True] * 3
