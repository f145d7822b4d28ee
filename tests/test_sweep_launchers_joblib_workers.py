"""The workers of joblib that start while a sweep is being checked."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from mnist_exp.sweep.launchers import joblib_workers
from mnist_exp.system import signals


def launcher(**settings: Any) -> dict[str, Any]:
    """The config of hydra/launcher=joblib."""
    plugin = pytest.importorskip("hydra_plugins.hydra_joblib_launcher.config", reason="the extra `parallel`")
    config: dict[str, Any] = vars(plugin.JobLibLauncherConf(**settings))
    return config


@pytest.mark.slow
def test_joblib_reuses_the_workers() -> None:
    settings = launcher(n_jobs=2, backend="loky")
    from joblib import Parallel, delayed

    with joblib_workers.started(settings, 2):
        pass
    del settings["_target_"]
    assert Parallel(**settings)([delayed(eval)("'torch' in __import__('sys').modules")] * 2) == [True, True]


def test_workers_start_with_their_signals_blocked(tmp_path: Path) -> None:
    """Until they have their handlers. In a process of its own, because the first workers differ from later ones."""
    launcher()
    script = """
import functools, os
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from mnist_exp.sweep.launchers import joblib_workers
joblib_workers._prepare_worker = functools.partial(os.system, "grep SigBlk /proc/$PPID/status >> blocked")
with joblib_workers.started(vars(JobLibLauncherConf(n_jobs=2)), 2):
    pass
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    masks = [int(line.split()[1], base=16) for line in (tmp_path / "blocked").read_text().splitlines()]
    assert len(masks) == 2
    for number in signals.STOP_SIGNALS:
        assert all(mask >> (number - 1) & 1 for mask in masks), signal.Signals(number).name


@pytest.mark.parametrize(
    ("target", "count"),
    [("hydra_plugins.mnist_exp.launcher.FusedLauncher", 2), ("hydra_plugins.hydra_joblib_launcher.joblib", 1)],
)
def test_other_launchers_and_a_single_worker_start_none(
    target: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(joblib_workers, "_start", lambda *arguments: started.append(arguments))
    with joblib_workers.started({"_target_": target}, count):
        pass
    assert not started


def test_workers_that_cannot_start_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launch meets the same error, and reports it."""
    started: list[dict[str, Any]] = []

    def fail(**settings: Any) -> None:
        started.append(settings)
        raise OSError("no more processes")

    settings = launcher(n_jobs=2)
    monkeypatch.setattr("joblib.Parallel", fail)
    with joblib_workers.started(settings, 2):
        pass
    assert [each["n_jobs"] for each in started] == [2]
