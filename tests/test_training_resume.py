"""A run that is killed at any moment and resumed ends with the bits of an undisturbed run."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.checkpoints import packed
from helpers.run_folders import contents, learned, metrics, summary
from test_config import OPTIONS

from mnist_exp.data.batches import TrainingBatches
from mnist_exp.data.images import DataSet
from mnist_exp.report import figures
from mnist_exp.store import provenance, run_folder
from mnist_exp.store.ledger import Ledger
from mnist_exp.sweep import jobs, launch
from mnist_exp.system import background, errors, files, signals
from mnist_exp.training import checkpoint
from mnist_exp.training.run import TrainingRun

Run = Callable[..., Outcome]
KillAt = Callable[[int | None], list[str]]


class Killed(BaseException):
    """Ends a run as SIGKILL does: no handler of ordinary errors runs."""


def at_once(work: Callable[[], object]) -> Callable[[], None]:
    """Work that is done before training goes on: the writing of a checkpoint, at its quickest."""
    work()
    return background.nothing


def at_last(work: Callable[[], None]) -> Callable[[], None]:
    """Work that is not begun before somebody waits for it: the writing of a checkpoint, at its slowest."""
    return work


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[KillAt]:
    """Kill the process at its n-th event: a batch, or before or after a file's sync, its renaming, a row's record.

    Checkpoints are written at once, by the thread that trains, so that the events have an order.
    """
    plain: dict[str, Callable[..., Any]] = {
        "fsync": os.fsync,
        "replace": os.replace,
        "epoch": TrainingRun.record,
        "batches": TrainingBatches.__iter__,
    }
    events: list[str] = []
    stop: list[int | None] = [None]

    def event(name: str) -> None:
        events.append(name)
        if len(events) == stop[0]:
            raise Killed(name)

    def around(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            event(f"before {name}")
            result = plain[name](*arguments)
            event(f"after {name}")
            return result

        return call

    def batches(self: TrainingBatches) -> Iterator[Any]:
        for number, batch in enumerate(plain["batches"](self)):
            if number in (0, 3):
                event("batch")
            yield batch

    monkeypatch.setattr(background, "start", at_once)
    monkeypatch.setattr(os, "fsync", around("fsync"))
    monkeypatch.setattr(os, "replace", around("replace"))
    monkeypatch.setattr(TrainingRun, "record", around("epoch"))
    monkeypatch.setattr(TrainingBatches, "__iter__", batches)

    def at(moment: int | None) -> list[str]:
        events.clear()
        stop[0] = moment
        return events

    yield at
    monkeypatch.undo()


SMALL = [*TINY, "epochs=3", "data.batch_size=200", "augmentation=rotate_crop", "model.dropout=0.3"]


@pytest.mark.slow
@pytest.mark.parametrize(("start", "every", "epochs"), [(at_once, 1, 2), (at_last, 1, 2), (at_last, 3, 4)])
def test_killed_at_every_moment_and_resumed_a_run_ends_with_the_same_bits(
    start: Any, every: int, epochs: int, run: Run, kill_at: KillAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the epochs that have a row, so many are trained again as are between two checkpoints, at most."""
    monkeypatch.setattr(background, "start", start)
    events, words = kill_at(None), [*SMALL, f"epochs={epochs}", f"checkpoint_every={every}"]
    run(*words, "hydra.run.dir=outputs/a/whole")
    moments, expected = len(events), learned(Path("outputs/a/whole"))
    assert moments > 30
    for moment in range(1, moments + 1):
        folder = Path(f"outputs/a/{moment}")
        kill_at(moment)
        with pytest.raises(Killed):
            run(*words, f"hydra.run.dir={folder}")
        kill_at(None)
        rows, last = len(metrics(folder)), folder / "checkpoints" / "last.pt"
        outcome = run(f"resume={folder}")
        assert outcome.code == 0, (moment, outcome)
        assert learned(folder) == expected, moment
        if resumed := summary(folder)["resumed"]:
            assert rows - every <= resumed[0]["after_epoch"] <= rows, moment
    assert rows == epochs
    assert last.exists()


def test_killed_between_two_checkpoints_a_run_goes_back_to_the_first(run: Run, kill_at: KillAt) -> None:
    events, words = kill_at(None), [*SMALL, "epochs=5", "checkpoint_every=2"]
    run(*words, "hydra.run.dir=outputs/a/whole")
    kill_at([number for number, name in enumerate(events, 1) if name == "after epoch"][2])
    with pytest.raises(Killed):
        run(*words, "hydra.run.dir=outputs/a/it")
    kill_at(None)
    assert len(metrics(Path("outputs/a/it"))) == 3
    assert "resumed after epoch 2" in run("resume=outputs/a/it", "checkpoint_every=1").out
    assert learned(Path("outputs/a/it")) == learned(Path("outputs/a/whole"))


@pytest.mark.parametrize("start", [background.start, at_last])
def test_a_signal_loses_no_epoch_however_rare_checkpoints_are(
    start: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "start", start)
    words = [*SMALL, "epochs=6", "checkpoint_every=100"]
    run(*words, "checkpoint_every=1", "hydra.run.dir=outputs/a/whole")
    record, folder = TrainingRun.record, Path("outputs/a/it")
    with monkeypatch.context() as patch:

        def interrupted(self: TrainingRun, row: Any) -> None:
            record(self, row)
            if row.epoch == 4:
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(TrainingRun, "record", interrupted)
        assert run(*words, f"hydra.run.dir={folder}").code == 143
    last, best = (checkpoint.load(folder / "checkpoints" / f"{name}.pt") for name in ("last", "best"))
    assert (last["epoch"], best["epoch"]) == (4, last["best_epoch"])
    assert "resumed after epoch 4" in run(f"resume={folder}").out
    assert learned(folder) == learned(Path("outputs/a/whole"))


def test_a_disk_that_is_full_as_training_goes_on_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next epoch's end, or as the last epoch is to be tested. With room again, the run resumes."""
    run(*SMALL, "hydra.run.dir=outputs/a/whole")
    write = checkpoint.write
    for last in (1, 3):
        folder = Path(f"outputs/a/{last}")

        def full(path: Path, state: Any, last: int = last) -> None:
            if state["epoch"] >= last:
                raise OSError(28, "No space left on device", str(path))
            write(path, state)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write", full)
            outcome = run(*SMALL, f"hydra.run.dir={folder}")
        assert outcome.code == 1
        assert outcome.err.strip().endswith("last.pt: No space left on device")
        assert len(outcome.err.splitlines()) == 1
        assert "the last epochs are not saved, so a resume trains them again: " in outcome.out
        assert checkpoint.load(folder / "checkpoints" / "last.pt")["epoch"] == last - 1
        assert f"resumed after epoch {last - 1}" in run(f"resume={folder}").out
        assert learned(folder) == learned(Path("outputs/a/whole"))


def test_what_could_not_be_written_at_once_is_written_as_the_run_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed = checkpoint.write, list[int]()

    def once(path: Path, state: Any) -> None:
        if state["epoch"] == 1 and not failed:
            failed.append(1)
            raise OSError(5, "Input/output error", str(path))
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", once)
    assert run(*SMALL, "hydra.run.dir=outputs/a/it").err.strip().endswith("last.pt: Input/output error")
    assert "resumed after epoch 1" in run("resume=outputs/a/it").out


def parts() -> list[Any]:
    """Every option with a state, or with randomness; one of each kind is quick, and the others are alike."""
    quick = ["optimizer=adam", "schedule=onecycle", "augmentation=affine_elastic", "model=lenet", "loss=mse"]
    kept = [path for path in OPTIONS if path.parent.name in ("optimizer", "schedule", "augmentation", "model", "loss")]
    options = [f"{path.parent.name}={path.stem}" for path in kept]
    others = [pytest.param(option, marks=pytest.mark.slow) for option in options if option not in quick]
    return [*quick, *others, "activation=prelu", "model.dropout=0.5"]


@pytest.mark.parametrize("part", parts())
def test_every_part_is_resumed_to_the_bit_after_many_kills(part: str, run: Run, kill_at: KillAt) -> None:
    """LeNet needs larger images than digits has, so a crop of 12 x 12 pixels enlarges them."""
    words = [
        word for word in SMALL if not word.startswith("model.hidden_layers") or "model" not in part.partition("=")[0]
    ]
    if part == "model=lenet":
        words = [*words, "augmentation.crop.size=12"]
    if part == "model=mlp":
        part = "model.hidden_layers=[16]"
    if part == "model=linear":
        words = [word for word in words if not word.startswith("model.dropout")]
    if part.startswith("augmentation"):
        words = [word for word in words if not word.startswith("augmentation")]
    words = [*words, part]
    events = kill_at(None)
    outcome = run(*words, "hydra.run.dir=outputs/a/whole")
    assert outcome.code == 0, outcome.err
    first, second = (len(events) * 4 // 9, len(events) // 5)
    kill_at(first)
    with pytest.raises(Killed):
        run(*words, "hydra.run.dir=outputs/a/it")
    kill_at(second)
    with pytest.raises(Killed):
        run("resume=outputs/a/it")
    kill_at(None)
    assert run("resume=outputs/a/it").code == 0
    assert learned(Path("outputs/a/it")) == learned(Path("outputs/a/whole"))
    assert 1 <= len(summary(Path("outputs/a/it"))["resumed"]) <= 2


def test_the_checkpoint_knows_how_many_epochs_there_are(run: Run, interrupted: Path) -> None:
    """A command asked for more epochs and was killed once config.yaml was written, or a user edited config.yaml."""
    path = interrupted / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("epochs: 3", "epochs: 7"))
    outcome = run(f"resume={interrupted}")
    assert outcome.code == 0
    assert "epochs=3 from the checkpoint is used; config.yaml has 7" in outcome.out
    assert learned(interrupted) == learned(Path("outputs/a/whole"))
    assert "epochs: 3" in path.read_text()


@pytest.mark.slow
def test_killed_while_it_is_trained_longer_a_run_goes_on(run: Run, kill_at: KillAt) -> None:
    kill_at(None)
    run(*SMALL, "epochs=5", "hydra.run.dir=outputs/a/long")
    run(*SMALL, "hydra.run.dir=outputs/a/short")
    for moment in range(1, 13, 3):
        shutil.copytree("outputs/a/short", f"outputs/a/{moment}")
        kill_at(moment)
        with pytest.raises(Killed):
            run(f"resume=outputs/a/{moment}", "epochs=5")
        kill_at(None)
        assert run(f"resume=outputs/a/{moment}", "epochs=5").code == 0
        assert learned(Path(f"outputs/a/{moment}")) == learned(Path("outputs/a/long"))


def test_a_run_that_failed_before_it_started_is_not_resumed(run: Run) -> None:
    (folder,) = run(*TINY, "data.batch_size=0").folders
    outcome = run(f"resume={folder}")
    assert outcome.code == 1
    assert "failed before it started: data.batch_size=0: must be 1 or more; correct its command" in outcome.err


def test_a_completed_run_whose_last_checkpoint_is_gone_may_go_back(run: Run) -> None:
    (folder,) = run(*SMALL).folders
    expected = learned(folder)
    (folder / "checkpoints" / "last.pt").unlink()
    assert "last.pt is gone; python train.py resume=" in run(f"resume={folder}").err
    assert run(f"resume={folder / 'checkpoints' / 'best.pt'}").code == 0
    assert learned(folder) == expected
    (folder / "metrics.csv").write_text("rubbish")
    assert "these files were altered or deleted since: metrics.csv" in run(f"resume={folder}").err


def test_trained_longer_a_run_equals_one_that_was_as_long_from_the_start(run: Run) -> None:
    run(*SMALL, "epochs=5", "hydra.run.dir=outputs/a/long")
    run(*SMALL, "hydra.run.dir=outputs/a/short")
    outcome = run("resume=outputs/a/short", "epochs=5")
    assert outcome.code == 0, outcome.err
    assert "resumed after epoch 3" in outcome.out
    assert learned(Path("outputs/a/short")) == learned(Path("outputs/a/long"))
    assert "epochs: 5" in Path("outputs/a/short/.hydra/config.yaml").read_text()


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_longer_is_refused_where_the_schedule_would_have_been_another(schedule: str, run: Run) -> None:
    run(*SMALL, f"schedule={schedule}", "hydra.run.dir=outputs/a/it")
    before = contents(Path("outputs/a/it"))
    outcome = run("resume=outputs/a/it", "epochs=5")
    assert outcome.code == 1
    assert f"epochs=5: {schedule} spreads its learning rates over all epochs" in outcome.err
    assert contents(Path("outputs/a/it")) == before


@pytest.fixture
def interrupted(run: Run, kill_at: KillAt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in its third epoch; the undisturbed run lies beside it."""
    trained = tmp_path_factory.getbasetemp() / "interrupted"
    if not trained.exists():  # once for all tests
        events = kill_at(None)
        run(*SMALL, "hydra.run.dir=outputs/a/whole")
        kill_at(len(events) - [*reversed(events)].index("batch"))
        with pytest.raises(Killed):
            run(*SMALL, "hydra.run.dir=outputs/a/it")
        kill_at(None)
        shutil.move("outputs", trained)
    shutil.copytree(trained, "outputs")
    return Path("outputs/a/it")


def test_a_finished_run_says_so_and_does_nothing(run: Run) -> None:
    (folder,) = run(*SMALL).folders
    before = contents(folder) | {folder / "train.log": (folder / "train.log").read_bytes()}
    for words in ([f"resume={folder}"], ["resume=latest"], [f"resume={folder}", "threads=2"]):
        outcome = run(*words)
        assert (outcome.code, outcome.err) == (0, "")
        assert re.fullmatch(
            r".*: the run is completed, with \d\d\.\d\d% on the test set; epochs=N trains it longer\n", outcome.out
        )
    assert contents(folder) | {folder / "train.log": (folder / "train.log").read_bytes()} == before


def test_the_latest_run_is_the_one_at_work_last(run: Run, interrupted: Path) -> None:
    run(*TINY)
    (interrupted / "checkpoints" / "last.pt").touch()
    assert "resumed after epoch 2" in run("resume=latest").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["optimizer=sgd"],
            "optimizer=sgd: a resumed run keeps its config and its folder; only epochs, patience, device",
        ),
        (["optimizer.lr=0.1"], "optimizer.lr=0.1: a resumed run keeps its config and its folder"),
        (["+optimizer.amsgrad=true"], "+optimizer.amsgrad=true: a resumed run keeps its config and its folder"),
        (["~schedule"], "~schedule: a resumed run keeps its config and its folder"),
        (["seed=1"], "seed=1: a resumed run keeps its config and its folder"),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere: a resumed run keeps its config and its folder"),
        (["epochs=1"], "epochs=1: the run has already trained 2"),
        (["epochs=0"], "epochs=0: must be 1 or more"),
        (["device=tpu"], "device=tpu: torch finds"),
    ],
)
def test_what_can_not_change_any_more_is_refused_by_name(
    words: list[str], message: str, run: Run, interrupted: Path
) -> None:
    before = contents(interrupted)
    outcome = run(f"resume={interrupted}", *words)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(interrupted) == before
    assert not Path("elsewhere").exists()


def test_what_does_not_change_the_past_may_change_and_is_told(run: Run, interrupted: Path) -> None:
    outcome = run(f"resume={interrupted}", "threads=2", "plots=true", "data.root=elsewhere", "device=cpu")
    assert outcome.code == 0, outcome.err
    assert "threads was 1 and is 2: from here on, equal bits are not guaranteed" in outcome.out
    assert summary(interrupted)["resumed"] == [{"after_epoch": 2, "changed": {"threads": [1, 2]}}]
    assert (interrupted / "plots" / "curves.png").exists()


def test_other_versions_are_told(run: Run, interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "versions", lambda: {"torch": "9"})
    outcome = run(f"resume={interrupted}")
    assert outcome.code == 0
    assert "'torch': '9'}: from here on, equal bits are not guaranteed" in outcome.out


def test_other_data_are_refused(run: Run, interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_exp.data import sources

    digits = sources.digits

    def altered(root: str) -> DataSet:
        return digits(root)._replace(sha256="0" * 64)

    altered.__module__, altered.__qualname__ = "mnist_exp.data.sources", "digits"
    monkeypatch.setattr(sources, "digits", altered)
    outcome = run(f"resume={interrupted}")
    assert outcome.code == 1
    assert "data: the run was trained on digits with SHA-256" in outcome.err


def test_a_run_that_is_alive_is_left_alone(run: Run, interrupted: Path) -> None:
    before = contents(interrupted)
    with files.locked(interrupted / "train.log"):
        outcome = run(f"resume={interrupted}")
    assert outcome.code == 1
    assert "another process is working on this run" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(interrupted) == before


def test_a_traceback_is_to_be_had_and_nothing_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *TINY, "resume=nowhere"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"HYDRA_FULL_ERROR": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_of_two_runs_in_one_folder_one_gets_it(tmp_path: Path) -> None:
    run_folder.claim(tmp_path / "it")
    with pytest.raises(FileExistsError, match="already holds a run"):
        run_folder.claim(tmp_path / "it")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nowhere", "resume=nowhere: no such file or folder"),
        ("", "resume=: no such file or folder"),
        ("/nowhere.pt", "resume=/nowhere.pt: no such file or folder"),
        ("latest", "resume=latest: no run under"),
        (".", "resume=.: this is not a run of this program: it has no metrics.csv"),
        ("sweep", "resume=sweep: this is a sweep; python train.py -m resume=sweep resumes it"),
        ("sweep/0", "a job of a sweep; python train.py -m resume="),
        ("foreign", "damaged, or not of this program: "),
        ("begun", "resume=begun: the run was stopped before it started; delete the folder"),
    ],
)
def test_what_is_no_run_is_told_apart(asked: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "ledger.jsonl").touch()
    (tmp_path / "foreign" / ".hydra").mkdir(parents=True)
    (tmp_path / "foreign" / "metrics.csv").touch()
    (tmp_path / "foreign" / ".hydra" / "config.yaml").write_text("lr: 1\n")
    (tmp_path / "foreign" / ".hydra" / "overrides.yaml").touch()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "metrics.csv").touch()
    outcome = run(f"resume={asked}")
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.slow
def test_a_torn_or_altered_metrics_csv_is_made_whole(run: Run, interrupted: Path) -> None:
    path = interrupted / "metrics.csv"
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:10], b"", whole + b"3,0.1", b"rubbish", whole.replace(b"0.0", b"9.0")):
        copy = Path("copy") / str(len(damaged))
        shutil.copytree(interrupted, copy)
        (copy / "metrics.csv").write_bytes(damaged)
        assert run(f"resume={copy}").code == 0
        assert learned(copy) == learned(Path("outputs/a/whole"))


def test_an_altered_config_is_refused(run: Run, interrupted: Path) -> None:
    path = interrupted / ".hydra" / "config.yaml"
    whole = path.read_text()
    for before, after, message in (
        ("lr: 0.001", "lr: 0.003", "is of a run with another config: optimizer.lr was 0.001 and is 0.003"),
        ("seed: 0", "seed: [", "config.yaml: damaged, "),
        (
            "torch.optim.Adam",
            "os.system",
            "optimizer._target_ was torch.optim.Adam and is os.system|_target_=os.system",
        ),
        ("seed: 0", "seed: !!python/object/apply:os.system ['touch ran']", "config.yaml: damaged, could not determine"),
        ("seed: 0", "seed: 0\nhydra: {run: {dir: x}}", "config.yaml: damaged, or not of this program: hydra"),
        ("plots: false", "plots: fals\0", "config.yaml: damaged, "),
        (whole[400:], "", "config.yaml: damaged, or not of this program: "),
    ):
        path.write_text(whole.replace(before, after, 1))
        outcome = run(f"resume={interrupted}")
        assert outcome.code == 1
        assert any(choice in outcome.err for choice in message.split("|")), outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert not Path("ran").exists()
    path.write_text(whole)
    assert run(f"resume={interrupted}").code == 0
    assert learned(interrupted) == learned(Path("outputs/a/whole"))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_a_damaged_checkpoint_is_refused_and_the_best_one_is_taken_when_asked(run: Run, interrupted: Path) -> None:
    last = interrupted / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    run(*SMALL, "seed=1", "hydra.run.dir=outputs/a/other")
    other = Path("outputs/a/other/checkpoints/last.pt")
    foreign = Path("foreign.pt")
    torch.save({"model": Evil()}, foreign)
    for content, message in (
        (whole[:-1], "is not a checkpoint of this program, or was cut short"),
        (whole[:4096], "is not a checkpoint of this program, or was cut short"),
        (b"", "is not a checkpoint of this program, or was cut short"),
        (whole[:500] + bytes([whole[500] ^ 1]) + whole[501:], "is altered or damaged: its checksum is wrong"),
        (foreign.read_bytes(), "is not a checkpoint of this program, or was cut short"),
        (packed({"format": 1, "model": Evil()}), "holds more than numbers and text, so it is not read"),
        (packed({"format": 2}), "has another format; this version reads format 1"),
        (packed({"format": 1}), "has another format; this version reads format 1"),
        (other.read_bytes(), "is of a run with another config: seed was 1 and is 0"),
        (os.urandom(5000), "is not a checkpoint of this program, or was cut short"),
    ):
        last.write_bytes(content)
        before = contents(interrupted)
        outcome = run(f"resume={interrupted}")
        assert outcome.code == 1
        assert f"last.pt: {message}" in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert contents(interrupted) == before
    assert not Path("ran").exists()
    last.unlink()
    assert "last.pt is gone; python train.py resume=" in run(f"resume={interrupted}").err
    best = interrupted / "checkpoints" / "best.pt"
    assert run(f"resume={best}").code == 0
    assert learned(interrupted) == learned(Path("outputs/a/whole"))


def test_a_damaged_best_checkpoint_is_told_before_it_is_needed(run: Run) -> None:
    """The learning rate is so high that the best epoch is not the last one."""
    words = [*TINY, "epochs=6", "optimizer=sgd", "optimizer.lr=1.2", "hydra.run.dir=outputs/a/it"]
    run(*words)
    best = Path("outputs/a/it/checkpoints/best.pt")
    assert checkpoint.load(best)["epoch"] < 6
    best.write_bytes(best.with_name("last.pt").read_bytes())
    assert "best.pt: not of epoch" in run("resume=outputs/a/it", "epochs=7").err
    best.write_bytes(b"")
    assert "best.pt: is not a checkpoint of this program" in run("resume=outputs/a/it", "epochs=7").err


def test_an_altered_summary_is_reported_or_rewritten(run: Run) -> None:
    (folder,) = run(*SMALL).folders
    path = folder / "summary.json"
    path.write_text(path.read_text().replace('"test_errors": ', '"test_errors": 1'))
    assert "summary.json is damaged: its checksum does not match" in run(f"resume={folder}").err
    expected = learned(folder)[2:]
    path.unlink()
    assert run(f"resume={folder}").code == 0
    assert learned(folder)[2:] == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_its_epochs_safe(
    number: int, run: Run, kill_at: KillAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*SMALL, "hydra.run.dir=outputs/a/whole")
    batches = TrainingBatches.__iter__

    def asked_to_stop(self: TrainingBatches) -> Iterator[Any]:
        for batch in batches(self):
            if len(metrics(Path("outputs/a/it"))) == 1:
                signal.raise_signal(number)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "__iter__", asked_to_stop)
        outcome = run(*SMALL, "hydra.run.dir=outputs/a/it")
    assert (outcome.code, outcome.err) == (128 + number, "")
    assert "interrupted; to resume: python train.py resume=" in outcome.out
    assert (summary(Path("outputs/a/it"))["status"], summary(Path("outputs/a/it"))["epochs"]) == ("interrupted", 1)
    assert run("resume=outputs/a/it").code == 0
    assert learned(Path("outputs/a/it")) == learned(Path("outputs/a/whole"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_a_run_has_begun_has_the_same_exit_code(number: int) -> None:
    handlers = {each: signal.getsignal(each) for each in signals.STOP_SIGNALS}
    with pytest.raises(SystemExit) as end, errors.in_one_line():
        signal.raise_signal(number)
    for each, handler in handlers.items():
        signal.signal(each, handler)
    assert end.value.code == 128 + number


def test_code_that_a_signal_caught_in_the_middle_may_raise_what_it_likes() -> None:
    """As OmegaConf does, whose own clearing up then fails."""
    handlers = {each: signal.getsignal(each) for each in signals.STOP_SIGNALS}

    def caught() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise AttributeError("'NoneType' object has no attribute") from None

    with pytest.raises(SystemExit) as end, errors.in_one_line():
        caught()
    for each, handler in handlers.items():
        signal.signal(each, handler)
    assert end.value.code == 143


def test_a_signal_that_is_lost_on_its_way_stops_the_run_after_its_epoch() -> None:
    handlers = {each: signal.getsignal(each) for each in signals.STOP_SIGNALS}

    def lost() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with signals.deferred():
            pass

    with pytest.raises(SystemExit) as end, errors.in_one_line():
        lost()
    for each, handler in handlers.items():
        signal.signal(each, handler)
    assert end.value.code == 143


@pytest.mark.parametrize(("start", "file"), [(at_once, "metrics.csv"), (at_last, "checkpoints")])
def test_a_folder_that_is_deleted_under_its_run_stays_deleted(
    start: Any, file: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "start", start)
    epoch = TrainingRun.record

    def delete(self: TrainingRun, row: Any) -> None:
        epoch(self, row)
        shutil.rmtree(self.folder)

    monkeypatch.setattr(TrainingRun, "record", delete)
    outcome = run(*SMALL, "hydra.run.dir=outputs/a/it")
    assert outcome.code == 1
    assert re.fullmatch(rf"error: \S+/outputs/a/it/{file}: No such file or directory\n?", outcome.err)
    assert not Path("outputs/a/it").exists()


@pytest.mark.slow
def test_an_interrupted_job_of_a_sweep_goes_on_from_its_checkpoint(
    run: Run, kill_at: KillAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CAN_FORK", False)
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})
    words = ["-m", *[word for word in SMALL if not word.startswith("plots")], "seed=0,1,2"]
    events = kill_at(None)
    run(*words, "hydra.sweep.dir=whole")
    kill_at(len(events) // 2)
    with pytest.raises(Killed):
        run(*words, "hydra.sweep.dir=it")
    kill_at(None)
    assert run("-m", "resume=it").code == 0
    for number in range(3):
        assert learned(Path("it", str(number))) == learned(Path("whole", str(number)))
    assert [len(summary(Path("it", str(number)))["resumed"]) for number in range(3)] == [0, 1, 0]


@pytest.mark.slow
def test_a_job_that_was_interrupted_and_never_got_its_turn_again_keeps_its_checkpoint(
    run: Run, kill_at: KillAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CAN_FORK", False)
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})
    words = ["-m", *[word for word in SMALL if not word.startswith("plots")], "seed=0"]
    events = kill_at(None)
    run(*words, "hydra.sweep.dir=whole")
    kill_at(len(events) - [*reversed(events)].index("batch"))
    with pytest.raises(Killed):
        run(*words, "hydra.sweep.dir=it")
    kill_at(None)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "launch", lambda *_: None)  # stopped before the job could begin
        run("-m", "resume=it")
    assert Ledger(Path("it")).read()[1][0].status == "pending"
    assert run("-m", "resume=it").code == 0
    assert learned(Path("it/0")) == learned(Path("whole/0"))
    assert summary(Path("it/0"))["resumed"][0]["after_epoch"] == 2
