"""The configs of jobs: composed by Hydra, and built without it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from mnist_exp import config
from mnist_exp.limits import LIMITS
from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger, introductions
from mnist_exp.sweep.compose import Composer, PlannedJob
from mnist_exp.sweep.launchers import grouping
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


def outcome(composer: Composer, overrides: list[str]) -> tuple[str, ...]:
    """The job as the composer plans it, with its whole config; or its error."""
    try:
        planned = composer.plan(overrides)
    except ConfigError as error:
        return (str(error),)
    return str(planned.config), str(planned[:1] + planned[2:]), str(OmegaConf.to_container(planned.config.config()))


NESTEROV = "optimizer=sgd optimizer.nesterov=true"
TEXTS = ("val_loss", "val_accuracy", "high", "bilinear", "nearest", "crop", "gray", "other")


def changed(key: str, value: Any) -> Any:
    """Another value that the key may have."""
    if isinstance(value, list):
        return [changed("", item) for item in value] or ["a", "b"]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2 or 0.25
    limit = LIMITS.get(key)
    others = TEXTS if isinstance(value, str) else (3, [28, 28], [0.5], "other", "mlflow")
    return next(other for other in others if other != value and (not limit or limit.allows(other)))


@pytest.mark.parametrize(
    "option",
    [(), *(option for option in OPTIONS if "experiment" not in option[0])],
    ids=lambda option: option[0] if option else "defaults",
)
def test_every_value_can_be_set_on_a_composed_config_as_hydra_sets_it(
    composer: Composer, option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = config.key_of(option[0]) if option and not option[0].startswith("experiment") else ""
    cfg = config.without_hydra(composer.plan(option).config.config())
    values = {
        key: value
        for key, value in config.leaves(OmegaConf.to_container(cfg))
        if "[" not in key
        and key not in ("resume", *map(config.key_of, option))
        and (not group or key.startswith(group))
    }
    before = [f"{key}={config.spell(value)}" for key, value in values.items()]
    after = [f"{key}={config.spell(changed(key, value))}" for key, value in values.items()]
    expected = outcome(Composer(composer.loader, composer.master), [*option, *after])
    shared = Composer(composer.loader, composer.master)
    shared.plan([*option, *before])
    monkeypatch.setattr(shared, "_plan_by_hydra", None)
    assert outcome(shared, [*option, *after]) == expected
    assert len(expected) == 3, expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("optimizer.lr=1 seed=0", "optimizer.lr=1e-3 seed=0"),
        ("optimizer.lr=0.1", "optimizer.lr=1_0.5e-1"),
        ("optimizer.lr=0.1", "optimizer.lr=-1"),
        ("optimizer.lr=0.1", "optimizer.lr=nan"),
        ("optimizer.lr=0.1", "optimizer.lr='0.1'"),
        ("optimizer.lr=0.1", "optimizer.lr=true"),
        ("optimizer.lr=0.1", "optimizer.lr=${optimizer.eps}"),
        ("seed=0 data.seed=${seed}", "seed=7 data.seed=${seed}"),
        ("seed=0", "seed=-1"),
        ("seed=0", "seed=0.5"),
        ("seed=0", "seed=007"),
        ("seed=0", "seed=null"),
        ("seed=0", "seed=???"),
        ("seed=0", "seed="),
        ("seed=0", "seed={a:1}"),
        ("seed=0 seed=1", "seed=1 seed=0"),
        ("epochs=5", "epochs=[5]"),
        ("tags=[]", "tags=[1,two]"),
        ("tags=[]", "tags=null"),
        ("patience=3", "patience=null"),
        ("plots=true seed=1", "plots=false seed=2"),
        ("model.hidden_layers=[8]", "model.hidden_layers=[]"),
        ("model.hidden_layers=[8,9,10]", "model.hidden_layers=[7]"),
        ("model.hidden_layers=[8]", "model.hidden_layers=[8.5]"),
        ("model.hidden_layers=[8]", "model.hidden_layers=[0]"),
        ("model.hidden_layers=[8]", "model.hidden_layers=8"),
        ("model.max_norm=null", "model.max_norm=2"),
        ("data.validation=5000", "data.validation=0.5"),
        ("data.validation=5000", "data.validation=0"),
        ("optimizer.fused=true", "optimizer.fused=1"),
        ("+optimizer.amsgrad=true seed=0", "+optimizer.amsgrad=false seed=0"),
        ("+optimizer.amsgrad=true optimizer.amsgrad=true", "+optimizer.amsgrad=true optimizer.amsgrad=false"),
        ("optimizer.lr=0.1 ~optimizer.lr", "optimizer.lr=0.2 ~optimizer.lr"),
        ("optimizer.lr=0.1 ++optimizer.lr=3", "optimizer.lr=0.2 ++optimizer.lr=3"),
        ("optimizer.lr=${optimizer.eps} optimizer.lr=1", "optimizer.lr=${optimizer.eps} optimizer.lr=2"),
        (f"{NESTEROV} optimizer.momentum=0.9", f"{NESTEROV} optimizer.momentum=0"),
        ("augmentation.crop.padding=2", "augmentation.crop.padding=-1"),
        ("experiment=null seed=0", "experiment=null seed=1"),
        ("resume=a seed=0", "resume=a seed=1"),
    ],
)
def test_a_value_means_the_same_whatever_was_composed_before(composer: Composer, before: str, after: str) -> None:
    shared = Composer(composer.loader, composer.master)
    with suppress(ConfigError):
        shared.plan(before.split())
    assert outcome(shared, after.split()) == outcome(Composer(composer.loader, composer.master), after.split())


def test_a_job_gets_its_folder_and_its_checkpoint(composer: Composer, tmp_path: Path) -> None:
    for seed in (0, 1):
        planned = composer.plan([f"seed={seed}"]).numbered(7, tmp_path / "a b=c").resuming(tmp_path / "last.pt")
        cfg = planned.config.config()
        assert (cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir, cfg.seed) == (str(tmp_path / "a b=c"), "7", seed)
        assert cfg.resume == str(tmp_path / "last.pt")
        assert cfg.hydra.overrides.task == [f"seed={seed}"]


def test_planned_jobs_are_grouped_as_their_configs_are(composer: Composer, tmp_path: Path) -> None:
    grid = [
        ["data=digits", f"model.hidden_layers=[{units}]", f"optimizer.lr={lr}", f"threads={threads}", f"seed={seed}"]
        for units, lr, threads, seed in product((8, 9), (0.1, 0.2), (1, 2), (3, 0, 1))
    ]
    planned = [composer.plan(words).numbered(number, tmp_path) for number, words in enumerate(grid)]
    planned[5] = planned[5].resuming(tmp_path / "last.pt")
    rebuilt = [composer.rebuild(each.job, tmp_path) for each in planned]
    groups = grouping.group_jobs(each.config.config() for each in planned)
    assert grouping.group_planned(planned) == grouping.group_planned(rebuilt) == groups
    assert [len(group.jobs) for group in groups] == [6, 6, 6, 6]
