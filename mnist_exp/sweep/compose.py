"""Composes and checks the config of every job once, before the first one runs."""

from __future__ import annotations

import copy
import os
import pickle
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_exp import config
from mnist_exp.command_line import without_null
from mnist_exp.store.ledger import Job
from mnist_exp.system import errors, quoting
from mnist_exp.system.errors import ConfigError

SEED = re.compile(r"seed=(0|[1-9]\d*)")
JOB_KEYS = ("sweeper.params", "sweeper.trials", "sweeper.trial_seeds")  # of the section hydra; an option may set them
SWEEP_SECTIONS = ("launcher", "sweeper", "sweep", "callbacks", "hydra_logging")  # of hydra; all jobs share them


class PackedConfig(str):
    """The overrides of a job in one string, which carries the config that they compose.

    Launchers hand a job's overrides back to the config loader, in this process or another. The config travels with
    them, so a YAML file that is edited meanwhile changes nothing.
    """

    packed: bytes

    @classmethod
    def pack(cls, overrides: Sequence[str], composed: DictConfig) -> PackedConfig:
        """Compress the config: 10,000 configs take gigabytes otherwise."""
        packed = cls(" ".join(overrides))
        packed.packed = zlib.compress(pickle.dumps(composed), level=1)
        return packed

    def config(self) -> DictConfig:
        """Return the config with its `hydra` section."""
        composed: DictConfig = pickle.loads(zlib.decompress(self.packed))
        return composed


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


class LRSearch(NamedTuple):
    """The learning-rate search of an arm, which runs before the arm itself."""

    rates: int  # how many learning rates it tries; 0: no search
    seeds: tuple[int, ...]  # of each rate; none of them is a seed of the arm


NO_SEARCH = LRSearch(0, ())


class PlannedJob(NamedTuple):
    """A job that a command asks for, composed and checked."""

    job: Job  # its status is pending; its number is -1 until it has one
    config: PackedConfig
    search: LRSearch
    folder: Path  # of the sweep, by this job's config

    def numbered(self, number: int, folder: Path) -> PlannedJob:
        """Return the job with its number, and with the folder of its sweep."""
        composed = self.config.config()
        with open_dict(composed.hydra):
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = quoting.literal(str(folder)), str(number)
        packed = PackedConfig.pack(self.job.overrides, composed)
        return self._replace(job=self.job._replace(number=number), config=packed)

    def again(self, known: Job) -> PlannedJob:
        """Return another attempt at a job that the ledger knows. It stays in its batch, and so in its fused group."""
        return self._replace(job=self.job._replace(attempt=known.attempt + 1, batch=known.batch))

    def resuming(self, checkpoint: Path) -> PlannedJob:
        """Return the job as it resumes from a checkpoint."""
        composed = self.config.config()
        composed.resume = quoting.literal(str(checkpoint.absolute()))
        return self._replace(config=PackedConfig.pack(self.job.overrides, composed))


Plan = Callable[[Sequence[str]], PlannedJob]  # composes the job of some overrides


class Composer:
    """Hydra's config loader for many jobs. Jobs that differ in `seed=N` alone share its work, 55 ms per job.

    Attributes:
        params_of_experiments: The hydra.sweeper.params of the experiments in the command. Only these may set any.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        """Compose jobs of the sweep with the config `master`."""
        self.loader, self.master = loader, master
        str(master.hydra.sweep.dir)  # resolves ${now:...}, so that all jobs get the same time
        self.params_of_experiments: list[dict[str, str]] = []
        self._shared = _shared_keys(master)
        self._without_seed: dict[tuple[str, ...], PackedConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config that the overrides compose, with its `hydra` section.

        Raises:
            ConfigError: An option sets a key that all jobs of a sweep share.
            HydraException: Hydra can't compose the config.
        """
        seeds = [override for override in overrides if SEED.fullmatch(override)]
        if len(seeds) != 1:
            return self._compose_and_check(overrides)
        without_seed = tuple("" if override in seeds else override for override in overrides)
        if without_seed not in self._without_seed:
            composed = self._compose_and_check(overrides)
            self._without_seed[without_seed] = PackedConfig.pack(seeds, composed)
            return composed
        composed, before = self._without_seed[without_seed].config(), str(self._without_seed[without_seed])
        dirname = re.sub(rf"(?<![\w.]){before}(?!\d)", seeds[0], composed.hydra.job.override_dirname)
        with open_dict(composed):
            composed.seed = int(seeds[0].removeprefix("seed="))
            composed.hydra.overrides.task = list(overrides)
            composed.hydra.job.override_dirname = dirname
        return composed

    def plan(self, overrides: Sequence[str], session_overrides: Sequence[str] = ()) -> PlannedJob:
        """Compose a job and check it.

        Args:
            overrides: The overrides of the job.
            session_overrides: Further overrides for this session alone, which the ledger does not keep.

        Raises:
            ConfigError: The job can't be composed, or can't run.
        """
        try:
            with naming_job(overrides):
                composed = self.compose([*overrides, *session_overrides])
        except ConfigError as error:
            self._raise_with_option(error, overrides)
            raise
        if "plots" not in map(config.key_of, (*overrides, *session_overrides)):
            composed.plots = False  # the sweep draws figures of its own
        cfg, hydra = config.without_hydra(composed), composed.hydra
        with naming_job(overrides):
            config.check(cfg, hydra)
        ids = config.config_id(cfg), config.config_id(cfg, without=config.SEEDS)
        job = Job(-1, tuple(overrides), *ids, cfg.seed, config.choices(cfg, hydra))
        search = LRSearch(hydra.sweeper.trials, tuple(hydra.sweeper.trial_seeds))
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
        cfg, options = config.rebuild(job.choices)
        if (found := config.config_id(cfg)) != job.config_id:
            raise ConfigError(
                f"{folder}: job {job.number} has the config_id {job.config_id} and a config with {found}; continue "
                "the sweep with the version that planned it"
            )
        for override in OverridesParser.create().parse_overrides(list(session_overrides)):
            OmegaConf.update(cfg, override.key_or_group, override.value())
        hydra = copy.deepcopy(self.master.hydra)
        with open_dict(hydra), open_dict(cfg):
            words = [*map(without_null, job.overrides), *session_overrides]
            hydra.overrides.task = words
            hydra.job.override_dirname = _override_dirname(words, hydra.job.config.override_dirname)
            hydra.job.num, hydra.job.id = job.number, str(job.number)
            of_hydra = {group: option for group, option in hydra.runtime.choices.items() if group.startswith("hydra/")}
            hydra.runtime.choices = options | of_hydra
            hydra.sweep.dir, hydra.sweep.subdir = quoting.literal(str(folder)), str(job.number)
            cfg.hydra = hydra
        return PlannedJob(job, PackedConfig.pack(job.overrides, cfg), NO_SEARCH, folder)

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


def _override_dirname(overrides: Sequence[str], style: DictConfig) -> str:
    """Return hydra.job.override_dirname, as Hydra writes it."""
    words = sorted(word for word in overrides if config.key_of(word) not in style.exclude_keys)
    return str(style.item_sep.join(words).replace("=", style.kv_sep))


def _shared_keys(composed: DictConfig) -> dict[str, Any]:
    """Return the keys of the section `hydra` that all jobs of a sweep share, flat."""
    sections = {name: OmegaConf.to_container(composed.hydra[name], resolve=False) for name in SWEEP_SECTIONS}
    flat = dict(config.leaves(sections))
    return {key: value for key, value in flat.items() if not key.startswith(JOB_KEYS)}
