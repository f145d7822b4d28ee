"""Composes and checks the config of every job once, before the first one runs."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_exp import config
from mnist_exp.command_line import without_null
from mnist_exp.store.ledger import Job, is_same
from mnist_exp.store.run_folder import PRUNED
from mnist_exp.sweep.template import PackedConfig, Template, shape
from mnist_exp.system import errors, quoting
from mnist_exp.system.errors import ConfigError

SEED = re.compile(r"seed=(0|[1-9]\d*)")
JOB_KEYS = ("sweeper.params", "sweeper.trials", "sweeper.trial_seeds")  # of the section hydra; an option may set them
SWEEP_SECTIONS = ("launcher", "sweeper", "sweep", "callbacks", "hydra_logging")  # of hydra; all jobs share them


class StopLaunching(BaseException):
    """The sweep starts no further job. Not an Exception, which would count as the failure of a job."""


class PackedConfigLoader:
    """Takes the place of Hydra's config loader in a launcher: it unpacks configs, and composes none."""

    def __init__(self, stop_file: Path) -> None:
        self.stop_file, self.sweep_pid = stop_file, os.getpid()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[PackedConfig]) -> DictConfig:
        """Return the config of a job.

        Raises:
            StopLaunching: The sweep is asked to stop. A worker process never raises it: that would kill other jobs.
        """
        if os.getpid() == self.sweep_pid and self.stop_file.exists():
            raise StopLaunching
        return sweep_overrides[0].config()


class Trials(NamedTuple):
    """The trials of an arm, of settings or of learning rates, which run before the arm itself."""

    number: int  # 0: no search
    seeds: tuple[int, ...]  # of each trial; none of them is a seed of the arm


NO_SEARCH = Trials(0, ())


class PlannedJob(NamedTuple):
    """A job that a command asks for, composed and checked."""

    job: Job  # its status is pending; its number is -1 until it has one
    config: PackedConfig
    search: Trials
    folder: Path  # of the sweep, by this job's config

    def numbered(self, number: int, folder: Path) -> PlannedJob:
        """Return the job with its number, and with the folder of its sweep."""
        changes = {"hydra.sweep.dir": quoting.literal(str(folder)), "hydra.sweep.subdir": str(number)}
        return self._replace(job=self.job._replace(number=number), config=self.config.changed(changes))

    def again(self, known: Job) -> PlannedJob:
        """Return another attempt at a job that the ledger knows. It stays in its batch, and what prunes it too."""
        again = self._replace(job=self.job._replace(attempt=known.attempt + 1, batch=known.batch))
        return again.pruned_by({key: self.job.choices.get(key) or known.choices.get(key) for key in config.PRUNING})

    def pruned_by(self, limits: Mapping[str, Any]) -> PlannedJob:
        """Return the job with what ends it early: values of config.PRUNING, None for no limit."""
        changes = {key: value for key, value in limits.items() if value != self.job.choices.get(key)}
        job = self.job._replace(choices=self.job.choices | changes)
        return self._replace(job=job, config=self.config.changed(changes)) if changes else self

    def goes_beyond(self, known: Job) -> bool:
        """Return whether the job trains further than a pruned one that the ledger knows."""
        after = self.job.choices.get("stop_after")
        return known.status == PRUNED and after is not None and after > (known.choices.get("stop_after") or after)

    def resuming(self, checkpoint: Path) -> PlannedJob:
        """Return the job as it resumes from a checkpoint."""
        changes = {"resume": quoting.literal(str(checkpoint.absolute()))}
        return self._replace(config=self.config.changed(changes))


Plan = Callable[[Sequence[str]], PlannedJob]  # composes the job of some overrides


class Composer:
    """Hydra's config loader for many jobs. Jobs that differ in values alone share its work, 55 ms per job.

    Attributes:
        params_of_experiments: The hydra.sweeper.params of the experiments in the command. Only these may set any.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        """Compose jobs of the sweep with the config `master`."""
        self.loader, self.master = loader, master
        str(master.hydra.sweep.dir)  # resolves ${now:...}, so that all jobs get the same time
        self.params_of_experiments: list[dict[str, str]] = []
        self._shared = _shared_keys(master)
        self._templates: dict[tuple[str, ...], tuple[Template, PlannedJob]] = {}  # each with the job it is made of
        self._rebuilt: dict[tuple[str | None, ...], tuple[dict[str, Any], PackedConfig]] = {}  # with their values

    def plan(self, overrides: Sequence[str], session_overrides: Sequence[str] = ()) -> PlannedJob:
        """Compose a job and check it.

        Args:
            overrides: The overrides of the job.
            session_overrides: Further overrides for this session alone, which the ledger does not keep.

        Raises:
            ConfigError: The job can't be composed, or can't run.
        """
        words = [*overrides, *session_overrides]
        template, first = self._templates.get(shape(words), (None, None))
        settings = template.settings(words) if template else None
        if template is None or first is None or settings is None:
            return self._plan_by_hydra(overrides, words)
        packed = template.built(overrides, list(map(without_null, words)), settings)
        if not template.is_plain:
            return self._checked(overrides, packed.config())
        return first._replace(job=Job(-1, tuple(overrides), *template.facts(settings)), config=packed)

    def _plan_by_hydra(self, overrides: Sequence[str], words: Sequence[str]) -> PlannedJob:
        """Compose a job by Hydra, and check it. Jobs that differ in values alone are built from it."""
        try:
            with naming_job(overrides):
                composed = self._compose_and_check(words)
        except ConfigError as error:
            self._raise_with_option(error, overrides)
            raise
        if "plots" not in map(config.key_of, words):
            composed.plots = False  # the sweep draws figures of its own
        planned = self._checked(overrides, composed)
        self._templates.setdefault(shape(words), (Template(words, composed, planned.job.choices), planned))
        return planned

    def _checked(self, overrides: Sequence[str], composed: DictConfig) -> PlannedJob:
        """Check the config of a job."""
        cfg, hydra = config.without_hydra(composed), composed.hydra
        with naming_job(overrides):
            config.check(cfg, hydra)
        ids = config.config_id(cfg), config.config_id(cfg, without=config.SEEDS)
        job = Job(-1, tuple(overrides), *ids, cfg.seed, config.choices(cfg, hydra))
        search = Trials(hydra.sweeper.trials, tuple(hydra.sweeper.trial_seeds))
        return PlannedJob(job, PackedConfig.pack(overrides, composed), search, Path(hydra.sweep.dir))

    def rebuild(self, job: Job, folder: Path, session_overrides: Sequence[str] = ()) -> PlannedJob:
        """Return a job of a ledger as it was planned. Nothing is composed, so YAML that was edited changes nothing.

        Args:
            job: The job.
            folder: The folder of its sweep.
            session_overrides: Values of config.RUNTIME_KEYS for this session alone.

        Raises:
            ConfigError: This version understands its config as another one, or knows less than all of it.
        """
        values = config.values(job.choices)
        identity = config.identity_of(pair for key, value in values.items() for pair in config.leaves(value, key))
        if (found := config.id_of(identity)) != job.config_id:
            raise ConfigError(
                f"{folder}: job {job.number} has the config_id {job.config_id} and a config with {found}; continue "
                "the sweep with the version that planned it"
            )
        options = {group: option for group, option in job.choices.items() if group not in values}
        key = (*job.choices, *options.values())
        if key not in self._rebuilt:
            self._rebuilt[key] = values, PackedConfig.pack([], self._rebuild(values, options))
        before, packed = self._rebuilt[key]
        changes = {name: value for name, value in values.items() if not is_same(value, before[name])}
        for override in OverridesParser.create().parse_overrides(list(session_overrides)):
            changes[override.key_or_group] = override.value()
        changes |= {"hydra.job.num": job.number, "hydra.job.id": str(job.number)}
        words = [*map(without_null, job.overrides), *session_overrides]
        planned = PlannedJob(job, packed.of_job(job.overrides, words, changes), NO_SEARCH, folder)
        return planned.numbered(job.number, folder)

    def _rebuild(self, values: Mapping[str, Any], options: Mapping[str, str | None]) -> DictConfig:
        """Return the config with these values, and with the section `hydra` of the sweep."""
        cfg, hydra = config.rebuild(values), copy.deepcopy(self.master.hydra)
        of_hydra = {group: option for group, option in hydra.runtime.choices.items() if group.startswith("hydra/")}
        with open_dict(hydra), open_dict(cfg):
            hydra.runtime.choices = {**options, **of_hydra}
            cfg.hydra = hydra
        return cfg

    def params(self, overrides: Sequence[str]) -> dict[str, str]:
        """Return the hydra.sweeper.params that the overrides compose."""
        return dict(self._compose(overrides).hydra.sweeper.params)

    def _raise_with_option(self, error: ConfigError, overrides: Sequence[str]) -> None:
        """Raise ConfigError with the option's name if the option that a job chooses lacks a key of the command."""
        missing = errors.missing_key(error)
        group, _, name = missing.key.partition(".") if missing else ("", "", "")
        if missing and name and group in config.GROUPS:
            typed = next(word for word in overrides if f"{config.key_of(word)}.".startswith(f"{missing.key}."))
            option = f"{group}={self._option(group, overrides)}"
            raise ConfigError(f"{typed}: {option} has no key {name}, {missing.others}") from error

    def _option(self, group: str, overrides: Sequence[str]) -> str | None:
        """Return the option of a group that the overrides choose, whatever their other keys are."""
        choices = [override for override in overrides if "." not in config.key_of(override)]
        chosen: str | None = self._compose(choices).hydra.runtime.choices.get(group)
        return chosen

    def _compose_and_check(self, overrides: Sequence[str]) -> DictConfig:
        composed = self._compose(overrides)
        shared, options = _shared_keys(composed), [word for word in overrides if "." not in config.key_of(word)]
        if shared != self._shared:
            key = min(key for key in shared.keys() | self._shared if shared.get(key) != self._shared.get(key))
            option = next((word for word in options if _shared_keys(self._compose([word])) == shared), None)
            raise ConfigError(
                f"{option or ' '.join(options)}: sets hydra.{key}={shared.get(key)}, but all jobs of a sweep share "
                "that key; remove it from the option, and type it on the command line"
            )
        params = dict(composed.hydra.sweeper.params)
        if self.params_of_experiments and params not in self.params_of_experiments:
            raise ConfigError(f"{' '.join(options)}: only an experiment may set hydra.sweeper.params")
        return composed

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return self.loader.load_sweep_config(self.master, list(map(without_null, overrides)))


@contextmanager
def naming_job(overrides: Sequence[str]) -> Iterator[None]:
    """Add the job's overrides to the message of an error that the user can correct."""
    try:
        yield
    except Exception as error:
        if not errors.is_mendable(error):
            raise
        raise ConfigError(
            f"{errors.explain(error)} (in the job {' '.join(overrides) or 'without overrides'})"
        ) from error


def _shared_keys(composed: DictConfig) -> dict[str, Any]:
    """Return the keys of the section `hydra` that all jobs of a sweep share, flat."""
    sections = {name: OmegaConf.to_container(composed.hydra[name], resolve=False) for name in SWEEP_SECTIONS}
    flat = dict(config.leaves(sections))
    return {key: value for key, value in flat.items() if not key.startswith(JOB_KEYS)}
