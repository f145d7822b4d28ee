"""What is kept of the completed runs of a sweep, and what works without the rest."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome

import mnist_exp
from mnist_exp import cli
from mnist_exp.store import keeping, run_folder
from mnist_exp.store.run_folder import BEST, LAST, PREDICTIONS
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import runs
from mnist_exp.use import results

FILES = {
    "all": [
        *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "checkpoints/best.pt"),
        *("checkpoints/last.pt", "metrics.csv", "predictions.npz", "summary.json", "train.log"),
    ],
    "best": [
        *(".hydra/config.yaml", "checkpoints/best.pt", "metrics.csv", "predictions.npz", "summary.json", "train.log"),
    ],
    "none": [".hydra/config.yaml", "metrics.csv", "predictions.npz", "summary.json", "train.log"],
}
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two runs, which kept all."""
    folder = tmp_path_factory.mktemp("swept")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "seed=0,1", f"hydra.sweep.dir={folder}/s"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return folder / "s"


@pytest.fixture
def kept(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copy the sweep to ./s, drop what is not kept, and return the folder of its first run."""
    monkeypatch.chdir(tmp_path)

    def drop(keep: str) -> Path:
        shutil.copytree(swept, "s")
        for name in ("0", "1"):
            keeping.drop(Path("s", name), keep)
        return Path("s", "0")

    return drop


Kept = Callable[[str], Path]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("keep", ["all", "best", "none"])
def test_a_completed_run_has_so_many_files(keep: str, kept: Kept) -> None:
    folder = kept(keep)
    assert _files(folder) == FILES[keep]
    summary = run_folder.read_summary(folder)
    assert summary
    assert summary["dropped"] == (sorted(set(FILES["all"]) - set(FILES[keep])) or None)
    assert (folder / "checkpoints").is_dir() == (keep != "none")


def test_a_sweep_drops_files_of_completed_runs_alone(run: Run) -> None:
    words = ["-m", *TINY, "optimizer=sgd", "optimizer.lr=0.1,1e30", "hydra/launcher=fused", "hydra.sweep.dir=s"]
    ended = run(*words, "hydra.launcher.keep=none")
    assert ended.code == 1
    completed, failed = (_files(folder) for folder in ended.folders)
    assert completed == FILES["none"]
    assert {str(LAST), ".hydra/hydra.yaml", ".hydra/overrides.yaml"} <= set(failed)


@pytest.mark.parametrize("keep", ["best", "none"])
def test_what_reads_works_without_the_dropped_files(keep: str, kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    before = _rows(kept("all"))
    shutil.rmtree("s")
    folder = kept(keep)
    assert _rows(folder) == before
    assert [each.status for each in runs.read(folder.parent).runs] == ["completed"] * 2
    cli.run("mnist-exp", ["report", "s"])
    assert "2 seeds" in capsys.readouterr().out.replace("two seeds", "2 seeds")
    assert {job.status for job in Sweep(folder.parent).read()[1].values()} == {"completed"}


def _rows(folder: Path) -> list[Any]:
    """What the Python API says about a run, and about its sweep."""
    return [repr(results.results(folder)), repr(results.results(folder.parent))]


def test_the_weights_of_the_best_epoch_serve_as_before(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept("best")
    assert mnist_exp.load(folder).test_images().shape[0] > 0
    (folder / PREDICTIONS).unlink()
    cli.run("mnist-exp", ["report", "s", "--predict"])
    assert "predictions computed for 1 of 1 runs that lacked them" in capsys.readouterr().out
    cli.run("mnist-exp", ["draw", str(folder)])
    assert (folder / "draw.html").is_file()
    cli.run("mnist-exp", ["export", str(folder), "--torch-export", "model.pt2", "--noise"])
    assert Path("model.pt2").is_file()


def test_without_weights_one_line_says_why(kept: Kept) -> None:
    first = kept("none")
    with pytest.raises(ConfigError) as error:
        mnist_exp.load(first)
    gone = "was dropped when the run was completed (hydra.launcher.keep)"
    assert str(error.value) == f"{first}: {BEST} {gone}; the command of the run trains it again"


def test_a_copy_resumes_from_its_best_epoch(run: Run, kept: Kept) -> None:
    copy = Path(shutil.copytree(kept("best"), "outputs/a/copy"))
    ended = run(f"resume={copy}", "epochs=3")
    gone = "was dropped when the run was completed (hydra.launcher.keep)"
    best = f"python train.py resume={copy.absolute()}/{BEST}"
    assert ended.err.endswith(f"{copy.absolute()}/{LAST} {gone}; {best} resumes from the best epoch\n".rstrip("\n"))
    assert run(f"resume={copy}/{BEST}", "epochs=3").code == 0
    assert (copy / LAST).is_file()


def test_a_copy_without_weights_can_not_go_on(run: Run, kept: Kept) -> None:
    copy = Path(shutil.copytree(kept("none"), "outputs/a/copy"))
    assert run(f"resume={copy}", "epochs=3").err.endswith("(hydra.launcher.keep); type the command of the run again")
    with pytest.raises(ConfigError, match=r"hydra.yaml was dropped .* is not in the folder above; move it back there$"):
        runs.read(copy)
    with pytest.raises(ConfigError, match=r"move it back there$"):
        results.results(copy)


def test_another_value_is_refused_before_anything_is_written(run: Run) -> None:
    ended = run("-m", *TINY, "seed=0,1", "hydra/launcher=fused", "hydra.launcher.keep=last", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert ended.err.endswith("hydra.launcher.keep=last: must be one of all, best, none")
    assert not Path("s").exists()


def test_a_launcher_without_the_key_keeps_all() -> None:
    assert keeping.of({"_target_": "x"}) == "all"


def test_what_was_recorded_as_dropped_is_deleted_at_last(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after the summary was written leaves files that nobody misses, and a second call deletes them."""
    first = kept("all")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: sys.exit("killed"))
        with pytest.raises(SystemExit):
            keeping.drop(first, "best")
    assert _files(first) == FILES["all"]
    assert keeping.was_dropped(first, LAST)
    keeping.drop(first, "best")
    assert _files(first) == FILES["best"]
