"""The configs of jobs: composed by Hydra, and built without it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger, introductions
from mnist_exp.sweep.compose import Composer, PlannedJob
from mnist_exp.system.errors import ConfigError

PATHS = {"folder": "photos", "csv": "it.csv", "npz": "it.npz", "parquet": "it.parquet"}
OPTIONS = [
    (f"{file.parent.name}={file.stem}", *([f"data.path={PATHS[file.stem]}"] if file.stem in PATHS else []))
    for group in (*config.GROUPS, "experiment")
    for file in sorted((ROOT / "conf" / group).glob("*.yaml"))
]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        master = compose("config", return_hydra_config=True)
        yield Composer(GlobalHydra.instance().config_loader(), master)


def contents(planned: PlannedJob, resolve: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of a job and its section `hydra`."""
    cfg = planned.config.config()
    hydra = cast(dict[str, Any], OmegaConf.to_container(cfg.hydra))
    return cast(dict[str, Any], OmegaConf.to_container(config.without_hydra(cfg), resolve=resolve)), hydra


def stored(job: Job, folder: Path) -> Job:
    """The job as a ledger has it."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder)
    ledger.append({"program": PROGRAM, "ledger": VERSION}, *introductions([job]))
    return ledger.read()[1][job.number]


@pytest.mark.parametrize("overrides", OPTIONS, ids=lambda overrides: overrides[0])
def test_a_job_of_the_ledger_has_the_config_that_was_composed(
    composer: Composer, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    planned = composer.plan([*overrides, "seed=3", "tags=[a,b]"]).numbered(7, tmp_path)
    rebuilt = composer.rebuild(stored(planned.job, tmp_path), tmp_path)
    (expected, of_hydra), (found, hydra) = contents(planned, resolve=True), contents(rebuilt, resolve=False)
    assert found == expected
    assert str(found["augmentation"]) == str(expected["augmentation"])  # they are applied in this order
    assert (rebuilt.job, rebuilt.folder) == (planned.job, tmp_path)
    assert (hydra["job"]["num"], hydra["job"]["id"]) == (7, "7")
    for section, keys in {"job": ("override_dirname",), "overrides": ("task",), "runtime": ("choices",)}.items():
        for key in keys:
            assert hydra[section][key] == of_hydra[section][key]
    assert hydra["sweep"] == of_hydra["sweep"]


def test_a_session_changes_runtime_keys_of_a_job_of_the_ledger(composer: Composer, tmp_path: Path) -> None:
    job = stored(composer.plan(["seed=3"]).numbered(0, tmp_path).job, tmp_path)
    rebuilt = composer.rebuild(job, tmp_path, ["threads=2", "data.root=elsewhere"])
    cfg = rebuilt.config.config()
    assert (cfg.threads, cfg.data.root, rebuilt.job) == (2, "elsewhere", job)
    assert cfg.hydra.overrides.task == ["seed=3", "threads=2", "data.root=elsewhere"]


def test_a_ledger_of_an_older_version_lacks_keys(composer: Composer, tmp_path: Path) -> None:
    job = composer.plan(["seed=3"]).job
    older = job._replace(choices={key: value for key, value in job.choices.items() if key not in config.OFF})
    cfg = composer.rebuild(older, tmp_path).config.config()
    assert {key: cfg[key] for key in config.OFF} == config.OFF


@pytest.mark.parametrize(
    "change",
    [
        lambda choices: choices | {"optimizer.lr": 0.5},
        lambda choices: choices | {"optimizer.momentum": 0.5},
        lambda choices: {key: value for key, value in choices.items() if key != "epochs"},
    ],
)
def test_choices_that_are_not_those_of_the_config_id_are_refused(
    composer: Composer, change: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    job = composer.plan(["seed=3"]).job
    with pytest.raises(ConfigError, match=r"job -1 has the config_id .* continue the sweep with the version"):
        composer.rebuild(job._replace(choices=change(job.choices)), tmp_path)
