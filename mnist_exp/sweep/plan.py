"""What a sweep is to run: every job composed and checked once, before the first, and set against the ledger."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_exp import config
from mnist_exp.command_line import without_null
from mnist_exp.store import run_folder
from mnist_exp.store.ledger import Job, Ledger, keys_beside_identity
from mnist_exp.system import errors, quoting
from mnist_exp.system.errors import ConfigError

log = logging.getLogger(__name__)

SEED = re.compile(r"seed=(0|[1-9]\d*)")
OF_ONE_JOB = ("sweeper.params", "sweeper.trials", "sweeper.trial_seeds")  # what an option may say of its own jobs
OF_A_SWEEP = ("launcher", "sweeper", "sweep", "callbacks", "hydra_logging")  # sections of hydra that all jobs share


class Composed(str):
    """A job's overrides in one word, which carries the config that they make.

    Launchers hand a job's overrides back to the config loader, in this process or another; so the config travels with
    them, and a YAML file that is edited meanwhile changes nothing.
    """

    packed: bytes

    @classmethod
    def of(cls, overrides: Sequence[str], composed: DictConfig) -> Composed:
        """Pack the config: 10,000 of them as they are would take gigabytes."""
        word = cls(" ".join(overrides))
        word.packed = zlib.compress(pickle.dumps(composed), level=1)
        return word

    def config(self) -> DictConfig:
        """The whole of it, with its `hydra` section."""
        composed: DictConfig = pickle.loads(zlib.decompress(self.packed))
        return composed


class Stop(BaseException):
    """No further job is to begin. Not an Exception: that would be a failed job's."""


class ComposedOnce:
    """Stands for Hydra's config loader before a launcher: composes nothing, and hands out nothing after a stop."""

    def __init__(self, stop: Path) -> None:
        self.stop, self.sweeper = stop, os.getpid()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[Composed]) -> DictConfig:
        """The config of a job. Raises Stop, but not in a worker, where it would kill the others' jobs."""
        if os.getpid() == self.sweeper and self.stop.exists():
            raise Stop
        return sweep_overrides[0].config()


class Trials(NamedTuple):
    """Runs that are to choose an arm's learning rate, in a sweep of their own, before the one that judges."""

    rates: int  # 0: no trials
    seeds: tuple[int, ...]  # of each rate, none of which judges


NO_TRIALS, MOST_RATES = Trials(0, ()), 100


class Point(NamedTuple):
    """A job as it was asked for, composed and checked."""

    job: Job  # of status pending; its number is -1 until it has one
    word: Composed
    trials: Trials  # that come before
    folder: Path  # of the sweep, by this job's config

    def numbered(self, number: int, folder: Path) -> Point:
        """The same with its number, and with its folder in its config."""
        composed = self.word.config()
        with open_dict(composed.hydra):
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = quoting.literal(str(folder)), str(number)
        return self._replace(job=self.job._replace(number=number), word=Composed.of(self.job.overrides, composed))

    def resuming(self, checkpoint: Path) -> Point:
        """The same, going on from a checkpoint."""
        composed = self.word.config()
        composed.resume = quoting.literal(str(checkpoint.absolute()))
        return self._replace(word=Composed.of(self.job.overrides, composed))


class Trial(NamedTuple):
    """One of these runs."""

    arm: str  # that it chooses a rate for
    rate: str  # as an override
    point: Point


def with_arms(points: Sequence[Point]) -> list[tuple[str, Point]]:
    """Each point with the name of its arm."""
    beside = keys_beside_identity(point.job for point in points)
    return [(point.job.arm_beside(beside), point) for point in points]


def arms(points: Sequence[Point]) -> dict[str, Point]:
    """A point of each arm, by the arm's name."""
    return dict(with_arms(points))


def trials(points: Sequence[Point], composed: Callable[[Sequence[str]], Point]) -> list[Trial]:
    """The trials of all arms of `points`: rates over each one's optimizer.lr_range, each with every seed.

    Raises ConfigError where there is no such range, or where somebody else has chosen.
    """
    judging = {point.job.seed for point in points if point.trials.rates}
    return [
        Trial(arm, rate, composed([*words, rate, f"seed={seed}"]))
        for arm, point in arms(points).items()
        if point.trials.rates
        for words, limits in [_to_tune(point, judging)]
        for rate in rates(limits, point.trials.rates)
        for seed in point.trials.seeds
    ]


def _to_tune(point: Point, judging: set[int]) -> tuple[list[str], list[float]]:
    """An arm's overrides, but for the seed, and its range of learning rates. Raises ConfigError."""
    if not 0 < point.trials.rates <= MOST_RATES or not point.trials.seeds:
        raise ConfigError(f"hydra.sweeper.trials: must be 0 to {MOST_RATES}, and trial_seeds one seed or more")
    if both := judging.intersection(point.trials.seeds):
        raise ConfigError(f"seed={min(both)}: one of hydra.sweeper.trial_seeds, which choose and therefore can't judge")
    words = [word for word in point.job.overrides if not SEED.fullmatch(word)]
    for word in words:
        if config.key_of(word) == config.LR:
            raise ConfigError(f"{word}: the trials choose it; leave it out, or say hydra.sweeper.trials=0")
    limits = point.job.choices.get(f"{config.LR}_range")
    if not limits:
        name = f"optimizer={point.job.choices['optimizer']}"
        raise ConfigError(f"{config.LR}_range: {name} has none; trials need [low, high]")
    return words, limits


def rates(limits: Sequence[float], count: int) -> list[str]:
    """So many learning rates within [low, high], evenly spaced by their ratio, as overrides; one is in the middle."""
    low, high = limits
    steps = [step / (count - 1) for step in range(count)] if count > 1 else [0.5]
    return [f"{config.LR}={low * (high / low) ** step:.3g}" for step in steps]


class Composer:
    """Hydra's config loader, for many jobs: those that differ in `seed=N` alone share its work, 55 ms each."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        str(master.hydra.sweep.dir)  # resolves ${now:...}, which Hydra then gives to all jobs alike
        self.of_the_sweep, self.params_of_experiments = _of_the_sweep(master), list[dict[str, str]]()
        self.seedless = dict[tuple[str, ...], Composed]()

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config that the overrides make, with its `hydra` section.

        Raises what Hydra raises, and ConfigError where an option sets for its job what holds for a whole sweep.
        """
        seeds = [word for word in overrides if SEED.fullmatch(word)]
        if len(seeds) != 1:
            return self._load(overrides)
        seedless = tuple("" if word in seeds else word for word in overrides)
        if seedless not in self.seedless:
            composed = self._load(overrides)
            self.seedless[seedless] = Composed.of(seeds, composed)
            return composed
        composed, before = self.seedless[seedless].config(), str(self.seedless[seedless])
        dirname = re.sub(rf"(?<![\w.]){before}(?!\d)", seeds[0], composed.hydra.job.override_dirname)
        with open_dict(composed):
            composed.seed = int(seeds[0].removeprefix("seed="))
            composed.hydra.overrides.task = list(overrides)
            composed.hydra.job.override_dirname = dirname
        return composed

    def params(self, overrides: Sequence[str]) -> dict[str, str]:
        """The hydra.sweeper.params that overrides lead to."""
        return dict(self._compose(overrides).hydra.sweeper.params)

    def option(self, group: str, overrides: Sequence[str]) -> str | None:
        """The option of a group that overrides choose, whatever their other keys are."""
        choices = [without_null(word) for word in overrides if "." not in config.key_of(word)]
        chosen: str | None = self._compose(choices).hydra.runtime.choices.get(group)
        return chosen

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        composed = self._compose(overrides)
        now, options = _of_the_sweep(composed), [word for word in overrides if "." not in config.key_of(word)]
        if now != self.of_the_sweep:
            key = min(key for key in now.keys() | self.of_the_sweep if now.get(key) != self.of_the_sweep.get(key))
            option = next((word for word in options if _of_the_sweep(self._compose([word])) == now), " ".join(options))
            raise ConfigError(
                f"{option}: sets hydra.{key}={now.get(key)}, but all jobs of a sweep share that; take it out of the "
                "option, and type it on the command line"
            )
        params = dict(composed.hydra.sweeper.params)
        if self.params_of_experiments and params not in self.params_of_experiments:
            raise ConfigError(f"{' '.join(options)}: only an experiment may set hydra.sweeper.params")
        return composed

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        return self.loader.load_sweep_config(self.master, list(map(without_null, overrides)))


def _of_the_sweep(composed: DictConfig) -> dict[str, Any]:
    """What the jobs of a sweep share of the section `hydra`, flat."""
    sections = {name: OmegaConf.to_container(composed.hydra[name], resolve=False) for name in OF_A_SWEEP}
    flat = dict[str, Any](config.leaves(sections))
    return {key: value for key, value in flat.items() if not key.startswith(OF_ONE_JOB)}


def compose(composer: Composer, overrides: Sequence[str], more: Sequence[str] = ()) -> Point:
    """Compose one job and check it. `more` are choices for this session alone. Raises what can't be composed or run."""
    try:
        with naming(overrides):
            composed = composer([*overrides, *more])
    except ConfigError as error:
        _name_the_option(error, composer, overrides)
        raise
    if "plots" not in map(config.key_of, (*overrides, *more)):
        composed.plots = False  # a sweep has pictures of its own
    cfg = config.without_hydra(composed)
    with naming(overrides):
        config.check(cfg, composed.hydra)
    ids = config.config_id(cfg), config.config_id(cfg, without=("seed",))
    job = Job(-1, tuple(overrides), *ids, cfg.seed, config.choices(cfg, composed.hydra))
    own = composed.hydra.sweeper
    trials, folder = Trials(own.trials, tuple(own.trial_seeds)), Path(composed.hydra.sweep.dir)
    return Point(job, Composed.of(overrides, composed), trials, folder)


def _name_the_option(error: ConfigError, composer: Composer, overrides: Sequence[str]) -> None:
    """Raise ConfigError where a job's option has not the key that the command sets: it names the option."""
    missing = errors.missing_key(error)
    group, _, name = missing.key.partition(".") if missing else ("", "", "")
    if missing and name and group in config.GROUPS:
        typed = next(word for word in overrides if f"{config.key_of(word)}.".startswith(f"{missing.key}."))
        option = f"{group}={composer.option(group, overrides)}"
        raise ConfigError(f"{typed}: {option} has no key {name}, {missing.others}") from error


@contextmanager
def naming(overrides: Sequence[str]) -> Iterator[None]:
    """Say of what is wrong with a job which job it is."""
    try:
        yield
    except Exception as error:
        if not errors.is_mendable(error):
            raise
        raise ConfigError(
            f"{errors.explain(error)} (in the job {' '.join(overrides) or 'without overrides'})"
        ) from error


def known(folder: Path) -> tuple[list[dict[str, Any]], dict[int, Job]]:
    """What a sweep's ledger says; a job whose results are gone from its folder since it completed is `lost`."""
    ledger = Ledger(folder)
    sessions, jobs = ledger.read() if ledger.path.exists() else ([], {})
    completed = [job for job in jobs.values() if job.status == "completed"]
    gone = [job for job in completed if not run_folder.has_completed(folder / str(job.number), job.config_id)]
    return sessions, jobs | {job.number: job._replace(status="lost") for job in gone}


def unfinished(folder: Path, retry_failed: bool) -> list[tuple[str, ...]]:
    """The overrides of the jobs of a sweep that are still to be run. Raises ConfigError where its ledger is torn."""
    sessions, jobs = known(folder)
    if len(jobs) < sum(session.get("new", 0) for session in sessions):
        raise ConfigError(
            f"{Ledger(folder).path}: a crash tore its list of jobs; type the whole command again, with "
            f"{quoting.override('hydra.sweep.dir', folder)}"
        )
    done = {"completed", "replaced"} if retry_failed else {"completed", "replaced", "failed"}
    return [job.overrides for job in jobs.values() if job.status not in done]


def todo(
    points: Sequence[Point], known: dict[int, Job], folder: Path, *, retry_failed: bool, allow_changed: bool
) -> list[Point]:
    """Of the points asked for, those to run, numbered: what is new, and what the ledger does not have as done.

    A job is known by its config_id and by what else tells the points apart, not by its number; a new one gets a number
    that was never used. Raises ConfigError when the same overrides mean something else now, and `allow_changed` is
    false.
    """
    beside = keys_beside_identity(point.job for point in points)
    by_id = {job.id_beside(beside): job for job in known.values()}
    by_words = {tuple(sorted(job.overrides)): job for job in known.values() if job.status != "replaced"}
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    fresh = max([-1, *known, *taken]) + 1
    chosen = list[Point]()
    for point in points:
        job = by_id.get(point.job.id_beside(beside))
        if job and (job.status == "completed" or (job.status == "failed" and not retry_failed)):
            continue
        changed = by_words.get(tuple(sorted(point.job.overrides)))
        if not job and changed and not allow_changed:
            raise ConfigError(
                f"{' '.join(point.job.overrides)}: job {changed.number} had these overrides and another config: "
                f"{config.difference(changed.choices, point.job.choices)}; "
                "hydra.sweeper.allow_changed=true runs it anew"
            )
        number, fresh = (job.number, fresh) if job else (fresh, fresh + 1)
        chosen.append(point.numbered(number, folder))
    return sorted(chosen, key=lambda point: point.job.number)


def replaced(points: Sequence[Point], known: dict[int, Job]) -> list[Job]:
    """Unfinished jobs of the ledger whose overrides now make another config, one of `points`."""
    now = {tuple(sorted(point.job.overrides)): point.job.config_id for point in points}
    return [
        job
        for job in known.values()
        if job.status not in ("completed", "replaced")
        and now.get(tuple(sorted(job.overrides)), job.config_id) != job.config_id
    ]


def refuse_other_versions(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError when a sweep was begun with other versions of the code, Python or the packages."""
    if before != now:
        raise ConfigError(
            f"the sweep was begun with other versions: {config.difference(before, now)}; "
            "hydra.sweeper.allow_changed=true goes on, and the report says that versions are mixed"
        )


def once_each(points: Sequence[Point]) -> list[Point]:
    """The points without those that equal an earlier one: 0.001 and 1e-3 are the same. It says how many these are."""
    beside = keys_beside_identity(point.job for point in points)
    found = {point.job.id_beside(beside): point for point in reversed(points)}
    kept = list(found.values())[::-1]
    if len(kept) < len(points):
        log.info(f"{len(points) - len(kept):,} of {len(points):,} jobs repeat others; equal ones run once")
    return kept


def announcement(points: Sequence[Point]) -> str:
    """How many jobs, after how many trials, and which keys vary."""
    values = dict[str, dict[str, None]]()
    for word in (word for point in points for word in point.job.overrides):
        key, _, value = word.partition("=")
        values.setdefault(key, {})[value] = None
    varying = [f"{key} ({len(kinds)})" for key, kinds in values.items() if len(kinds) > 1]
    count = sum(point.trials.rates * len(point.trials.seeds) for point in arms(points).values())
    trials = f", after {count:,} trials of {config.LR}" * bool(count)
    return f"{len(points)} job{'s' * (len(points) != 1)}{trials}" + ": " * bool(varying) + " x ".join(varying)
