"""Event files, read back by TensorBoard itself."""

import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.sweeps import edit_ledger, edit_summary, set_accuracy, sweep

from mnist_exp.system import extras
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import runs
from mnist_exp.track.runs import TrackedRun
from mnist_exp.track.tensorboard import TensorBoard

GRID: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.001, 0.01]}
CURVES = {
    "epochs/train_loss": "train_loss",
    "epochs/train_accuracy": "train_accuracy",
    "epochs/val_loss": "val_loss",
    "epochs/val_accuracy": "val_accuracy",
    "lr": "lr",
    "seconds": "seconds",
}


def write(folder: Path, to: Path) -> int:
    snapshot = runs.read(folder)
    return TensorBoard(str(to)).write(snapshot, snapshot.runs)


def accumulate(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
        accumulator.Reload()
    return accumulator


def single(value: float) -> float:
    """The value in single precision, which is all that TensorBoard keeps."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def check(accumulator: Any, tracked: TrackedRun) -> None:
    """Compare every figure with the run's files."""
    for tag, column in CURVES.items():
        events = accumulator.Scalars(tag)
        assert [event.step for event in events] == [row.epoch for row in tracked.rows]
        assert [event.value for event in events] == [single(getattr(row, column)) for row in tracked.rows]
        assert [event.wall_time for event in events] == list(tracked.times)
    found = {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"] if tag not in CURVES}
    assert found.keys() == {f"results/{key}" for key in tracked.results}
    for key, value in tracked.results.items():
        [event] = found[f"results/{key}"]
        assert (event.step, event.value) == (len(tracked.rows), single(value))


def test_every_figure_is_that_of_the_sweep(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0, 1], spoiled={3: "failed"})
    assert write(folder, tmp_path / "tb") == 8
    [home] = (tmp_path / "tb").iterdir()
    assert len(list(home.iterdir())) == 8
    for tracked in runs.read(folder).runs:
        [path] = home.glob(f"{tracked.number}_*")
        check(accumulate(path), tracked)
    assert (home / "6_sgd_lr=0.01_seed=0").is_dir()


def test_a_run_has_pictures_and_hyperparameters(run: Callable[..., Outcome], tmp_path: Path) -> None:
    [folder] = run(*TINY, "plots=true").folders
    write(folder, tmp_path / "tb")
    [home] = (tmp_path / "tb").iterdir()
    accumulator = accumulate(home)
    [tracked] = runs.read(folder).runs
    check(accumulator, tracked)
    assert set(accumulator.Tags()["images"]) == {f"pictures/{path.stem}" for path in tracked.pictures}
    [picture] = accumulator.Images("pictures/curves")
    assert picture.encoded_image_string == (folder / "plots" / "curves.png").read_bytes()
    assert (picture.width, picture.height) == (1200, 645)

    from tensorboard.plugins.hparams import metadata

    contents = accumulator.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    end = metadata.parse_session_end_info_plugin_data(contents[metadata.SESSION_END_INFO_TAG])
    assert (start.start_time_secs, end.end_time_secs, end.status) == (tracked.started, tracked.ended, 1)
    assert start.hparams["optimizer"].string_value == "adam"
    assert start.hparams["optimizer.lr"].number_value == 0.001
    assert start.hparams["model.hidden_layers"].string_value == "[16]"
    assert not {"device", "optimizer._target_", "patience"} & set(start.hparams)


def test_the_hparams_tab_has_the_choices_with_their_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    write(folder, tmp_path / "tb")
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "tb"))
    multiplexer.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, "logs")))
    content = context.hparams_metadata(RequestContext(), "")
    found = context.experiment_from_metadata(RequestContext(), "", True, content, [])
    assert [info.name for info in found.hparam_infos[:2]] == ["optimizer", "optimizer.lr"]  # those that differ
    metrics = {info.name.tag for info in found.metric_infos}
    assert {"results/test_accuracy", "epochs/val_accuracy"} <= metrics


def test_a_second_export_changes_nothing(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    more = {f"key{number}": number for number in range(40)}
    edit_ledger(folder, lambda entry: entry["choices"].update(more) if "choices" in entry else None)
    write(folder, tmp_path / "tb")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "tb").rglob("*tfevents*")}
    folder = folder.rename(tmp_path / "moved")
    words = ["-m", "mnist_exp", "track", "tensorboard", str(folder), "--to", str(tmp_path / "tb")]
    again = subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert b": 4 runs, 0 with something new\n" in again.stdout  # by another process, whose dictionaries may differ
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "tb").rglob("*tfevents*")}
    assert len(before) == 4
    assert before == after


@pytest.mark.parametrize("kept", [0, 1, 100, 700])
def test_an_interrupted_export_goes_on(tmp_path: Path, kept: int) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0])
    write(folder, tmp_path / "tb")
    [path] = (tmp_path / "tb").rglob("*tfevents*")
    whole, inode = path.read_bytes(), path.stat().st_ino
    os.truncate(path, kept)
    assert write(folder, tmp_path / "tb") == 1
    assert (path.read_bytes(), path.stat().st_ino) == (whole, inode)  # TensorBoard may have it open


def test_a_run_that_goes_on_extends_its_file(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0])
    [run] = runs.read(folder).runs
    snapshot = runs.read(folder)
    tracker = TensorBoard(str(tmp_path / "tb"))
    unfinished = [TrackedRun(**{**vars(run), "rows": run.rows[:n], "times": run.times[:n]}) for n in (0, 2, 5)]
    for part in unfinished:
        vars(part).update(ended=None, status="running")
    sizes = []
    for part in (*unfinished, run):
        assert tracker.write(snapshot, [part]) == 1
        [path] = (tmp_path / "tb").rglob("*tfevents*")
        sizes.append((path.stat().st_ino, path.stat().st_size))
    assert len({inode for inode, _ in sizes}) == 1
    assert sizes == sorted(sizes)
    check(accumulate(path.parent), run)


def test_a_changed_run_is_written_anew(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, seeds=[0])
    write(folder, tmp_path / "tb")
    set_accuracy(folder, 0, 0.5)
    edit_summary(folder / "0", {"test_accuracy": 0.25})
    assert write(folder, tmp_path / "tb") == 1
    [path] = (tmp_path / "tb").glob("*/0_*")
    check(accumulate(path), runs.read(folder).runs[0])


def test_what_can_not_be_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write(sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0]), tmp_path / "file")
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^tensorboard: not installed; type pip install 'mnist_exp\[tensorboard\]'$"):
        TensorBoard(None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0])
    write(folder, tmp_path / "tb")
    [path] = (tmp_path / "tb").rglob("*tfevents*")
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as error:
        write(folder, tmp_path / "tb")
    assert error.value.filename == str(path)
