"""train.py as a user sees it: commands in; run folders, messages and exit codes out."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned as bits
from helpers.run_folders import metrics, summary
from omegaconf import DictConfig

Run = Callable[..., Outcome]

PICTURES = {"samples.png", "augmented.png", "curves.png", "correct.png", "incorrect.png", "confusion_matrix.png"}
COLUMNS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
SUMMARY = (
    "status", "error", "config_id", "seed", "parameters", "epochs", "best_epoch", "best_val_loss", "best_val_accuracy",
    "test_loss", "test_accuracy", "test_errors", "test_balanced_accuracy", "seconds", "images_per_second", "device",
    "threads", "versions", "git", "data", "inference", "files", "resumed", "stopped", "tags", "failure",
    "dropped", "checksum",
)  # fmt: skip


def test_the_run_folder_is_as_promised(run: Run) -> None:
    outcome = run(*TINY, "plots=true", "epochs=3")
    assert outcome.code == 0, outcome.err
    (folder,) = outcome.folders
    assert folder.parts[-3] == "outputs"
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", "train.log", "metrics.csv", "summary.json", "predictions.npz", "checkpoints", "plots"
    }  # fmt: skip
    assert {path.name for path in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {path.name for path in (folder / "plots").iterdir()} == PICTURES
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.pt", "last.pt"}

    rows, facts = metrics(folder), summary(folder)
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert tuple(facts) == SUMMARY
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert facts["status"] == "completed"
    assert facts["error"] is None
    assert (facts["epochs"], facts["best_epoch"]) == (3, int(best["epoch"]))
    assert facts["best_val_loss"] == float(best["val_loss"])
    assert facts["best_val_accuracy"] == float(best["val_accuracy"])
    assert facts["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert facts["test_accuracy"] == pytest.approx(1 - facts["test_errors"] / 297)
    assert facts["data"]["name"] == "digits"
    assert len(facts["data"]["sha256"]) == 64
    assert torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["epoch"] == facts["best_epoch"]


def test_the_console_and_the_log_say_what_happened(run: Run) -> None:
    outcome = run(*TINY)
    log = (outcome.folders[0] / "train.log").read_text()
    for words in (
        "1,210 trainable parameters",
        "1,300 train, 200 val, 297 test images",
        "epoch 1/2",
        "epoch 2/2",
        "of 297 wrong",
    ):
        assert words in outcome.out
        assert words in log
    assert outcome.err == ""


def test_the_test_figures_are_those_of_the_best_epoch(run: Run) -> None:
    """The learning rate is so high that the last epoch is not the best one."""
    folder = run(*TINY, "epochs=6", "optimizer=sgd", "optimizer.lr=1.2").folders[0]
    facts, rows = summary(folder), metrics(folder)
    assert facts["best_epoch"] < 6
    assert facts["test_accuracy"] > float(rows[-1]["val_accuracy"])


def test_the_same_command_gives_the_same_bits_and_another_seed_does_not(run: Run) -> None:
    same = [*TINY, "augmentation=rotate_crop", "model.dropout=0.2"]
    for overrides in (same, same, [*same, "seed=1"]):
        outcome = run(*overrides)
    first, again, other = map(bits, outcome.folders)
    assert first == again
    assert first[0] != other[0]
    assert first[2] != other[2]


def test_pictures_do_not_change_a_bit(run: Run) -> None:
    run(*TINY, "augmentation=affine", "plots=true")
    with_pictures, without = map(bits, run(*TINY, "augmentation=affine", "plots=false").folders)
    assert with_pictures == without


@pytest.mark.slow
def test_a_job_in_a_multirun_equals_the_same_run_alone(run: Run) -> None:
    run(*TINY, "activation=sigmoid", "seed=1")
    outcome = run("-m", *TINY, "activation=relu,sigmoid", "seed=0,1")
    assert outcome.code == 0, outcome.err
    jobs = {folder.name: bits(folder) for folder in outcome.folders}
    (alone,) = (job for name, job in jobs.items() if "-" in name)
    assert jobs["3"] == alone
    assert len({job[1]["config_id"] for job in jobs.values()}) == 4


@pytest.mark.parametrize("best_by", ["val_loss", "val_accuracy"])
def test_validation_chooses_the_epoch_by_loss_or_by_accuracy(best_by: str, run: Run) -> None:
    outcome = run(*TINY, "epochs=15", "optimizer.lr=0.03", "seed=1", f"best_by={best_by}")
    rows = [(float(row["val_loss"]), -float(row["val_accuracy"]), row["epoch"]) for row in metrics(outcome.folders[-1])]
    best = {"val_loss": min(rows), "val_accuracy": min(rows, key=lambda row: (row[1], row[0]))}
    assert best["val_loss"] != best["val_accuracy"]
    assert summary(outcome.folders[-1])["best_epoch"] == int(best[best_by][2])


def test_a_sweeper_gets_the_best_validation_loss(composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "train.py"))["main"]
    value = main(composed(*TINY, folder=tmp_path))
    assert value == summary(tmp_path)["best_val_loss"]


BAD = {
    "optimizer=adamm": "optimizer=adamm: no such option, did you mean adam? Choose from adagrad, adam, adamw, nadam, ",
    "experiment=nope": "experiment=nope: no such option",
    "speed=11": "speed: no such key, did you mean seed? Choose from epochs, patience",
    "optimizer.speed=11": "optimizer.speed: no such key, choose from optimizer.lr, optimizer.lr_range",
    "epochs=many": "epochs: Value 'many' of type 'str' could not be converted to Integer",
    "epochs=1.5": "epochs: Value '1.5' of type 'float' could not be converted to Integer",
    "plots=maybe": "plots: Value 'maybe' is not a valid bool",
    "epochs=0": "epochs=0: must be 1 or more",
    "optimizer=null": "optimizer: needs one option",
    "~optimizer": "optimizer: needs one option",
    "optimizer=[adam,sgd]": "optimizer: needs one option",
    "optimizer=adam,sgd": "optimizer=adam,sgd: has several values; -m makes a sweep of them",
    "epochs=${nope}": "Interpolation key 'nope' not found",
    "data.batch_size=0": "data.batch_size=0: must be 1 or more",
    "data.batch_size=1301": "data.batch_size=1301: must be 1 to 1,300",
    "data.validation=0": "data.validation=0: must be 1 or more",
    "data.validation=1500": "data.validation=1500: must be 1 to 1,499",
    "model.hidden_layers=[0]": "model.hidden_layers=[0]: must be layers of 1 or more units",
    "optimizer.lr=nan": "optimizer.lr=nan: must be a finite number",
    "seed=-1": "seed=-1: must be 0 to 2^63 - 1",
    "device=tpu": "device=tpu: torch finds",
    "model=lenet": "model.hidden_layers: no such key, choose from model.dropout",
    "+augmentation.crop={_target_:mnist_exp.data.augment.RandomCrop,size:13,padding:2}": "augmentation.crop.size=13: ",
    "+model.x={_target_:os.system,_args_:['touch ran']}": "model._target_=os.system: not run",
    "+model.x={_target_:torch.nn.nowhere.at_all}": "model._target_=torch.nn.nowhere.at_all: can't be loaded",
    "+augmentation.crop={_target_:mnist_exp.data.augment.RandomCrop,sizm:9}": "unexpected keyword argument 'sizm'",
    "model.hidden_layers=[1000000000000]": "model: ",
    "+augmentation.affine=707": "augmentation: 'int' object has no attribute 'num_random'",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_gets_one_line(bad: str, run: Run) -> None:
    outcome = run(*TINY, bad)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert BAD[bad] in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "Traceback" not in outcome.out
    for folder in outcome.folders:
        assert summary(folder)["status"] == "failed"
        assert f"error: {summary(folder)['error']}" == outcome.err
        assert "Traceback" in (folder / "train.log").read_text()
        assert not (folder / "checkpoints").exists()


def test_a_loss_that_runs_away_ends_the_run_and_keeps_the_last_good_checkpoint(run: Run) -> None:
    outcome = run(*TINY, "epochs=5", "schedule=step", "schedule.step_size=1", "schedule.gamma=1e30")
    assert outcome.code == 1
    assert re.search(r"error: the loss became (nan|inf) at epoch [2-5], step \d+: a smaller optimizer.lr", outcome.err)
    (folder,) = outcome.folders
    facts = summary(folder)
    assert facts["status"] == "failed"
    assert facts["epochs"] == len(metrics(folder)) >= 1
    weights = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_run_that_failed_before_it_started_leaves_its_folder_to_the_next(run: Run) -> None:
    assert run(*TINY, "data.batch_size=1301", "hydra.run.dir=outputs/day/mine").code == 1
    assert run(*TINY, "hydra.run.dir=outputs/day/mine").code == 0
    (folder,) = run(
        *TINY, "seed=1", "data.batch_size=1301", "hydra.run.dir=outputs/day/mine"
    ).folders  # now it is taken
    assert (summary(folder)["status"], summary(folder)["seed"]) == ("completed", 0)
    assert "data.batch_size=1301: must be" in (folder / "train.log").read_text()  # the log of the first attempt stays


def test_a_folder_that_holds_a_run_is_left_alone(run: Run) -> None:
    (folder,) = run(*TINY, "hydra.run.dir=outputs/day/mine").folders
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = run(*TINY, "seed=1", "hydra.run.dir=outputs/day/mine")
    assert outcome.code == 1
    assert outcome.err == "error: outputs/day/mine already holds a run: choose another hydra.run.dir"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"no IDX file at all"])
def test_altered_data_stop_the_run(content: bytes, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "here" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    outcome = run("data.root=here")
    assert outcome.code == 1
    assert "data.root=here: here/MNIST/raw/train-images-idx3-ubyte is altered or incomplete" in outcome.err
    assert file.read_bytes() == content


def test_a_data_root_that_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    outcome = run("data.root=here")
    assert outcome.code == 1
    assert outcome.err.startswith("error: data.root=here: ")
    assert "Traceback" not in outcome.out


def test_a_full_disk_keeps_the_last_good_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.fsync
    written: list[int] = []

    def fill_up(file: int) -> None:
        if len(written) >= 5:  # metrics.csv, last.pt and the config at the beginning, last.pt of epochs 1 and 2
            raise OSError(28, "No space left on device")
        plain(file)
        written.append(file)

    monkeypatch.setattr(os, "fsync", fill_up)
    outcome = run(*TINY, "epochs=9")
    assert outcome.code == 1
    assert re.fullmatch(r"error: \S+/checkpoints/(best|last).pt: No space left on device", outcome.err)
    (folder,) = outcome.folders
    assert torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 2
    assert len(metrics(folder)) == 3  # a row is written before its checkpoint


def test_an_output_folder_that_can_not_be_written(run: Run) -> None:
    outcome = run(*TINY, "hydra.run.dir=/proc/nowhere")
    assert outcome.code == 1
    assert outcome.err.startswith("error: /proc/nowhere: ")


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"], ["--info", "defaults"], ["epochs=0"]])
def test_what_needs_no_torch_does_not_wait_for_it(flag: list[str], tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['train.py', *{flag}]\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'torchvision', 'sklearn', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_help_lists_groups_options_and_five_commands(tmp_path: Path) -> None:
    text = python(str(ROOT / "train.py"), "--help", cwd=tmp_path).stdout
    assert "optimizer: adagrad, adam, adamw, nadam, rmsprop, sgd" in text
    assert "model: lenet, linear, mlp" in text
    assert text.count("\n  python train.py") == 5


def test_a_traceback_is_to_be_had(tmp_path: Path) -> None:
    done = python(str(ROOT / "train.py"), *TINY, "epochs=0", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ctrl_c_keeps_what_was_learned(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "epochs=1000000", "hydra.run.dir=here"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not (tmp_path / "here" / "checkpoints" / "best.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == ""
    assert "interrupted; to resume: python train.py resume=" in out
    facts = summary(tmp_path / "here")
    assert facts["status"] == "interrupted"
    assert facts["epochs"] == len(metrics(tmp_path / "here")) >= 1
    assert torch.load(tmp_path / "here" / "checkpoints" / "best.pt", weights_only=True)["epoch"] == facts["best_epoch"]


@pytest.mark.slow
def test_the_default_run_on_the_real_mnist(run: Run) -> None:
    outcome = run(f"data.root={ROOT / 'data'}")
    assert outcome.code == 0, outcome.err
    facts = summary(outcome.folders[0])
    assert facts["parameters"] == 337_674
    assert facts["epochs"] == 5
    assert 0.970 <= facts["test_accuracy"] <= 0.986
    assert {path.name for path in (outcome.folders[0] / "plots").iterdir()} == PICTURES


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_imports_nothing_that_it_does_without(optimizer: str, tmp_path: Path) -> None:
    """Each of these imports takes longer than a small job of a sweep. torch's compiler comes with an optimizer."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', *{[*TINY, 'epochs=1', f'optimizer={optimizer}', 'schedule=cosine']}]\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "slow = {'matplotlib', 'sklearn', 'scipy', 'pandas', 'torchvision', 'torch._dynamo.utils', 'sympy'}\n"
        "slow |= {'PIL', 'jinja2', 'joblib', 'optuna', 'rich', 'torch._inductor', 'torch.onnx'}\n"
        "sys.exit(' '.join(slow & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
