"""Writes runs into an MLflow tracking store: a database file, or a server.

What is there already is asked from the store: a run is found by its tag ID, the last epoch that it has is its metric
`epoch`, and it is complete once its tag STATE says so.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any

from mnist_exp.report.labels import format_value
from mnist_exp.system import extras, files, quoting
from mnist_exp.system.errors import ConfigError
from mnist_exp.track.runs import Snapshot, TrackedRun

DATABASE = "sqlite:///mlflow.db"  # in the current folder
EXPERIMENT = "mnist_exp"  # where MLFLOW_EXPERIMENT_NAME names no other
ID, STATE = "mnist_exp.id", "mnist_exp.state"  # tags
SOURCE = {"mlflow.source.name": "mnist_exp", "mlflow.source.type": "LOCAL"}  # tags; the page shows the commit with them
STATUSES = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
AT_ONCE = 90  # params, and epochs, in one call: MLflow takes 100 params and 1,000 values in all
DEFAULTS = {  # of MLflow's environment variables
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that does not answer is reported after seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MLflow:
    """An experiment in a tracking store. A sweep is a run, and its runs are nested in it."""

    def __init__(self, to: str | None) -> None:
        """Open the store `to`; by default MLFLOW_TRACKING_URI, or DATABASE.

        Raises:
            ConfigError: MLflow is not installed, or the store can't be used.
        """
        extras.require("mlflow", *extras.TRACKERS["mlflow"])
        os.environ.update({key: value for key, value in DEFAULTS.items() if key not in os.environ})
        self.uri = to or os.environ.get("MLFLOW_TRACKING_URI") or DATABASE
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # what they say with a traceback is raised, too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with _in_one_line(self.uri):
            self.client = MlflowClient(self.uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
            experiment = self.client.get_experiment_by_name(name)
            self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(name)

    @property
    def hint(self) -> str:
        """The command, or the address, that shows the runs."""
        if self.uri.startswith("http"):
            return self.uri
        return f"mlflow ui --backend-store-uri {quoting.for_shell(self.uri)}"

    def write(self, snapshot: Snapshot, runs: Sequence[TrackedRun]) -> int:
        """Write what is new of the runs, and return how many had something new.

        Raises:
            ConfigError: The store can't be used.
        """
        with _in_one_line(self.uri):
            if snapshot.command is None:
                known = self._find(f"tags.`{ID}` = '{snapshot.id}'")
                return sum(self._write(run, known.get(run.id), {}) for run in runs)
            parent = self._parent(snapshot)
            nested = {"mlflow.parentRunId": parent.info.run_id}
            known = self._find(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
            changed = sum(self._write(run, known.get(run.id), nested) for run in runs)
            self._finish_parent(snapshot, parent)
            return changed

    def close(self) -> None:
        """Do nothing: every call is complete."""

    def _find(self, query: str) -> dict[str, Any]:
        """Return the runs that a query finds, by their tag ID."""
        found: list[Any] = []
        token: str | None = None
        while token != "":
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            found += page
            token = page.token or ""
        return {run.data.tags[ID]: run for run in found if ID in run.data.tags}

    def _create(self, run_id: str, name: str, started: float, tags: Mapping[str, str]) -> Any:
        return self.client.create_run(
            self.experiment, start_time=_ms(started), tags={ID: run_id, **tags}, run_name=name
        )

    def _write(self, run: TrackedRun, known: Any, more_tags: Mapping[str, str]) -> bool:
        """Write what is new of a run, and return whether anything is."""
        from mlflow.entities import RunTag

        if known and known.data.tags.get(STATE) == run.state:
            return False
        tags = {**_tags(run), **more_tags}
        known = known or self._create(run.id, run.name, run.started, tags)
        key = known.info.run_id
        if run.ended is not None:
            for path in (*run.files, *run.models):
                self.client.log_artifact(key, str(path))
            for path in run.pictures:
                self.client.log_artifact(key, str(path), "plots")
        self._set_status(key, run.status, run.ended)
        for batch in _batches(run, known.data):
            self.client.log_batch(key, **batch)
        tags |= {STATE: run.state}  # last, or what an interruption left out would stay out
        self.client.log_batch(key, tags=[RunTag(*item) for item in tags.items()])
        return True

    def _set_status(self, key: str, status: str, ended: float | None) -> None:
        if ended is None:  # a run that is resumed runs again
            self.client.update_run(key, STATUSES[status])
        else:
            self.client.set_terminated(key, STATUSES[status], _ms(ended))

    def _parent(self, snapshot: Snapshot) -> Any:
        """Return the run of a sweep, which is created where there is none."""
        started = min((run.started for run in snapshot.runs), default=0.0)
        tags = {"command": str(snapshot.command), **SOURCE}
        known = self._find(f"tags.`{ID}` = '{snapshot.id}'")
        return known.get(snapshot.id) or self._create(snapshot.id, snapshot.name, started, tags)

    def _finish_parent(self, snapshot: Snapshot, parent: Any) -> None:
        """Write the report and the status of a sweep, if they are new."""
        key, report = parent.info.run_id, snapshot.report
        state = " ".join([snapshot.status, *map(files.sha256, report)])
        if self.client.get_run(key).data.tags.get(STATE) == state:
            return
        for path in report:
            self.client.log_artifact(key, str(path))
        self.client.set_tag(key, "mlflow.note.content", snapshot.answer)
        running = snapshot.status == "running"
        self._set_status(
            key, snapshot.status, None if running else max((run.ended or 0.0 for run in snapshot.runs), default=0.0)
        )
        self.client.set_tag(key, STATE, state)


def _tags(run: TrackedRun) -> dict[str, str]:
    """Return a run's tags; MLflow's own tag of the commit, too."""
    commit = {"mlflow.source.git.commit": run.tags.get("commit", "")}
    tags = {**run.tags, "tags": ", ".join(run.labels), **SOURCE, **commit}
    return {key: value for key, value in tags.items() if value}


def _batches(run: TrackedRun, known: Any) -> Iterator[dict[str, Any]]:
    """Yield what a run has beyond the data of the known run, in parts as large as MLflow takes."""
    from mlflow.entities import Metric, Param

    choices = {key: format_value(value) for key, value in run.choices.items()}
    params = [Param(*item) for item in choices.items() if item[0] not in known.params]  # MLflow lets none be changed
    points: list[tuple[int, float, Mapping[str, float]]] = [
        (row.epoch, time, row._asdict())
        for row, time in zip(run.rows, run.times, strict=True)
        if row.epoch > known.metrics.get("epoch", 0)
    ]
    if run.ended is not None:
        points.append((0, run.ended, run.results))  # MLflow's step of single figures, which its page shows as bars
    metrics = [[Metric(*item, _ms(time), step) for item in values.items()] for step, time, values in points]
    for some_params, some_metrics in zip_longest(_parts(params), _parts(metrics), fillvalue=()):
        yield {"params": some_params, "metrics": list(chain.from_iterable(some_metrics))}


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


@contextmanager
def _in_one_line(uri: str) -> Iterator[None]:
    """Raise what MLflow raises as a ConfigError."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        silent = "failed with exception" in str(error)  # of a connection
        message = "the server can't be reached, or fails" if silent else " ".join(str(error).partition("\n")[0].split())
        raise ConfigError(f"{re.sub('//[^/@]*@', '//', uri)}: {message}") from error  # without a password


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
