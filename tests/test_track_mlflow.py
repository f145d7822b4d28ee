"""MLflow's store, read back by its own client."""

import os
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from conftest import TINY, Outcome
from helpers.sweeps import sweep

from mnist_exp.report.labels import format_value
from mnist_exp.store import run_folder
from mnist_exp.system import extras
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import beside, runs
from mnist_exp.track.mlflow import ID, MLflow
from mnist_exp.track.runs import TrackedRun

GRID = {"optimizer": ["adam", "sgd"]}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # SQLAlchemy's, of MLflow
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # MLflow closes its databases late
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, which takes seconds to create."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def store(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty database in the current folder."""
    shutil.copy(template, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # MLflow opens each address once


def write(folder: Path) -> int:
    snapshot = runs.read(folder)
    return MLflow(None).write(snapshot, snapshot.runs)


def client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def found() -> dict[str, Any]:
    """MLflow's runs, by our identity."""
    experiment = client().get_experiment_by_name("mnist_exp")
    listed = client().search_runs([experiment.experiment_id], max_results=1000)
    assert len({run.data.tags[ID] for run in listed}) == len(listed)
    return {run.data.tags[ID]: run for run in listed}


def content() -> list[str]:
    """All rows of the database."""
    with sqlite3.connect("mlflow.db") as database:
        lines = sorted(database.iterdump())
    database.close()
    return lines


def ms(seconds: float | None) -> int:
    return round((seconds or 0) * 1000)


def check(found: Any, tracked: TrackedRun) -> None:
    """Compare every figure with the run's files."""
    key, data = found.info.run_id, found.data
    columns = [] if not tracked.rows else list(tracked.rows[0]._fields)
    for column in columns:
        history = client().get_metric_history(key, column)
        assert [(each.step, each.value, each.timestamp) for each in history] == [
            (row.epoch, getattr(row, column), ms(time)) for row, time in zip(tracked.rows, tracked.times, strict=True)
        ]
    assert {name: value for name, value in data.metrics.items() if name not in columns} == dict(tracked.results)
    assert data.params == {name: format_value(value) for name, value in tracked.choices.items()}
    assert tracked.tags.items() <= data.tags.items()
    assert (found.info.start_time, found.info.run_name) == (ms(tracked.started), tracked.name)


def test_every_figure_is_that_of_the_sweep() -> None:
    folder = sweep(Path("s"), GRID, seeds=[0, 1], spoiled={1: "failed", 3: "interrupted"}, epochs=200)
    (folder / "report.html").write_text("page")
    (folder / "report.md").write_text("# Title\n\nadam leads.\n\n## Leaderboard\n")
    assert write(folder) == 4
    snapshot, listed = runs.read(folder), found()
    parent = listed.pop(snapshot.id)
    assert len(listed) == 4
    for tracked in snapshot.runs:
        check(listed[tracked.id], tracked)
        assert listed[tracked.id].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert listed[tracked.id].info.end_time == ms(tracked.ended)
    statuses = [listed[tracked.id].info.status for tracked in snapshot.runs]
    assert statuses == ["FINISHED", "FAILED", "FINISHED", "KILLED"]
    assert (parent.info.status, parent.info.run_name) == ("FAILED", snapshot.name)
    assert parent.data.tags["command"] == "python train.py -m optimizer=adam,sgd seed=0,1"
    assert parent.data.tags["mlflow.note.content"] == "# Title\n\nadam leads.\n"
    page = client().download_artifacts(parent.info.run_id, "report.html")
    assert Path(page).read_text() == "page"


def test_a_run_has_its_files_and_pictures(run: Callable[..., Outcome]) -> None:
    [folder] = run(*TINY, "plots=true", "tags=[a,b]").folders
    write(folder)
    [found_run] = found().values()
    [tracked] = runs.read(folder).runs
    check(found_run, tracked)
    assert found_run.data.tags["tags"] == "a, b"
    assert found_run.data.tags["mlflow.source.git.commit"] == tracked.tags["commit"]
    key = found_run.info.run_id
    paths = {file.path for part in (None, "plots") for file in client().list_artifacts(key, part) if not file.is_dir}
    assert paths == {"summary.json", "metrics.csv", *(f"plots/{name}.png" for name in run_folder.FIGURES)}
    for path in paths:
        assert Path(client().download_artifacts(key, path)).read_bytes() == (folder / path).read_bytes()


def test_an_exported_model_comes_with_its_run() -> None:
    folder = sweep(Path("s"), GRID, seeds=[0])
    write(folder)
    (folder / "1" / "digits.onnx").write_bytes(b"model")
    assert write(folder) == 1
    found_run = found()[runs.read(folder).runs[1].id]
    assert Path(client().download_artifacts(found_run.info.run_id, "digits.onnx")).read_bytes() == b"model"
    assert write(folder) == 0


def test_a_sweep_without_runs_is_a_run_without_others() -> None:
    folder = sweep(Path("s"), GRID, seeds=[0], spoiled={0: "pending", 1: "pending"})
    assert write(folder) == 0
    [parent] = found().values()
    assert (parent.info.status, parent.data.tags[ID]) == ("KILLED", runs.read(folder).id)


def test_a_second_export_changes_nothing() -> None:
    folder = sweep(Path("s"), GRID, seeds=[0])
    assert write(folder) == 2
    before = content()
    assert write(folder.rename("moved")) == 0
    assert content() == before


@pytest.mark.parametrize("calls", range(9))
def test_an_interrupted_export_goes_on(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    folder = sweep(Path("s"), GRID, seeds=[0], epochs=200)
    tracker, snapshot, left = MLflow(None), runs.read(folder), iter(range(calls))

    def interrupt(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return method(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "log_artifact", "set_terminated"):
            patch.setattr(MlflowClient, name, interrupt(getattr(MlflowClient, name)))
        with pytest.raises(KeyboardInterrupt):
            tracker.write(snapshot, snapshot.runs)
    assert write(folder) > 0
    listed = found()
    assert len(listed) == 3
    for tracked in snapshot.runs:
        check(listed[tracked.id], tracked)
    assert write(folder) == 0


def test_a_run_that_goes_on_stays_the_same_run() -> None:
    folder = sweep(Path("s"), {"optimizer": ["adam"]}, seeds=[0])
    tracker, snapshot = MLflow(None), runs.read(folder)
    [run] = snapshot.runs
    for rows in (0, 2, 5):
        part = TrackedRun(**{**vars(run), "rows": run.rows[:rows], "times": run.times[:rows], "status": "running"})
        vars(part).update(ended=None, results={})
        tracker.write(snapshot._replace(status="running"), [part])
        listed = found()
        assert {each.info.status for each in listed.values()} == {"RUNNING"}
        check(listed[run.id], part)
    tracker.write(snapshot, [run])
    listed = found()
    assert {each.info.status for each in listed.values()} == {"FINISHED"}
    check(listed[run.id], run)


@pytest.fixture
def another_server() -> Iterator[str]:
    """The address of a server that is not MLflow's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_does_not_answer_is_said_in_a_line(another_server: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=rf"^{another_server}: API request to [^\n]* error code 404[^\n]*$"):
        MLflow(another_server)
    with pytest.raises(ConfigError, match=r"^http://127.0.0.1:9: the server can't be reached, or fails$"):
        MLflow("http://name:secret@127.0.0.1:9")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("revision", ["0584bdc529eb", "fffffffffff0"])  # an earlier one, and an unknown one
def test_a_store_of_another_version_is_said_in_a_line(revision: str, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect("mlflow.db") as database:
        database.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
    database.close()
    with pytest.raises(ConfigError, match=r"^sqlite:///[^\n]*out-of-date.*mlflow db upgrade[^\n]*$") as error:
        MLflow(None)
    ended = Event()
    ended.set()
    assert beside.read_along("mlflow", [sweep(Path("s"), GRID, seeds=[0])], ended) == 1
    assert capsys.readouterr().out == f"tracker=mlflow: {error.value}\n"


def test_a_store_that_can_not_be_written_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        MLflow("sqlite:////proc/nothing/mlflow.db")
    with pytest.raises(ConfigError, match=r"^nonsense://host: [^\n]+$"):
        MLflow("nonsense://user:secret@host")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "mlflow" else True)
    with pytest.raises(ConfigError, match=r"^mlflow: not installed; type pip install 'mnist_exp\[mlflow\]'$"):
        MLflow(None)
