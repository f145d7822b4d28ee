"""What a sweep is to run: every job composed and checked once, before the first, and set against the ledger."""

from __future__ import annotations

import math
import os
import pickle
import re
import shlex
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_exp import config, errors, record
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.ledger import Job, Ledger

SEED = re.compile(r"seed=(0|[1-9]\d*)")


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


class Point(NamedTuple):
    """A job as it was asked for, composed and checked."""

    job: Job  # of status pending; its number is -1 until it has one
    word: Composed

    def numbered(self, number: int, folder: Path) -> Point:
        """The same with its number, and with its folder in its config."""
        composed = self.word.config()
        with open_dict(composed.hydra):
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = str(folder), str(number)
        return Point(self.job._replace(number=number), Composed.of(self.job.overrides, composed))

    def resuming(self, checkpoint: Path) -> Point:
        """The same, going on from a checkpoint."""
        composed = self.word.config()
        composed.resume = str(checkpoint.absolute())
        return Point(self.job, Composed.of(self.job.overrides, composed))


def grid(arguments: Sequence[str], loader: ConfigLoader, max_jobs: int) -> list[tuple[str, ...]]:
    """Every combination of the values that a command names, the last key varying fastest. Raises ConfigError."""
    axes = dict[str, list[str]]()
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in islice(override.sweep_string_iterator(), max_jobs + 1)]
        else:
            raise ConfigError(f"{override.input_line}: a sweep takes values one by one: a,b,c or range(...) or glob(*)")
    if max_jobs < 1:
        raise ConfigError(f"hydra.sweeper.max_jobs={max_jobs}: must be 1 or more")
    empty = [key for key, values in axes.items() if not values]
    if empty:
        raise ConfigError(f"{', '.join(empty)}: no value to try, so the sweep has no jobs")
    count = math.prod(map(len, axes.values()))
    if count > max_jobs:
        raise ConfigError(f"more than {max_jobs:,} jobs: say hydra.sweeper.max_jobs=N if that is meant")
    return list(product(*axes.values()))


class Trials(NamedTuple):
    """Runs that are to choose each arm's learning rate: a sweep of its own, before the one that judges."""

    rates: int  # of each arm; 0: no trials
    seeds: list[int]  # of each rate, none of which judges


NO_TRIALS, MOST_RATES = Trials(0, []), 100


class Trial(NamedTuple):
    """One of these runs."""

    arm: str  # that it chooses a rate for
    rate: str  # as an override
    point: Point


def trials(points: Sequence[Point], asked: Trials, composed: Callable[[Sequence[str]], Point]) -> list[Trial]:
    """The trials of all arms of `points`: rates over each one's optimizer.lr_range, each with every seed.

    Raises ConfigError where there is no such range, or where somebody else has chosen.
    """
    if not asked.rates:
        return []
    if not 0 < asked.rates <= MOST_RATES or not asked.seeds:
        raise ConfigError(f"hydra.sweeper.trials: must be 0 to {MOST_RATES}, and trial_seeds one seed or more")
    if both := {point.job.seed for point in points}.intersection(asked.seeds):
        raise ConfigError(f"seed={min(both)}: one of hydra.sweeper.trial_seeds, which choose and therefore can't judge")
    return [
        Trial(arm, rate, composed([*words, rate, f"seed={seed}"]))
        for arm, words, limits in _arms_to_tune(points)
        for rate in rates(limits, asked.rates)
        for seed in asked.seeds
    ]


def _arms_to_tune(points: Sequence[Point]) -> Iterator[tuple[str, list[str], list[float]]]:
    """Each arm with its overrides, but for the seed, and its range of learning rates."""
    for arm, job in {point.job.arm: point.job for point in points}.items():
        words = [word for word in job.overrides if not SEED.fullmatch(word)]
        for word in words:
            if config.key_of(word) == record.RATE:
                raise ConfigError(f"{word}: the trials choose it; leave it out, or say hydra.sweeper.trials=0")
        limits = job.choices.get(f"{record.RATE}_range")
        if not limits:
            raise ConfigError(
                f"{record.RATE}_range: optimizer={job.choices['optimizer']} has none; trials need [low, high]"
            )
        yield arm, words, limits


def rates(limits: Sequence[float], count: int) -> list[str]:
    """So many learning rates within [low, high], evenly spaced by their ratio, as overrides; one is in the middle."""
    low, high = limits
    steps = [step / (count - 1) for step in range(count)] if count > 1 else [0.5]
    return [f"{record.RATE}={low * (high / low) ** step:.3g}" for step in steps]


class Composer:
    """Hydra's config loader, for many jobs: those that differ in `seed=N` alone share its work, 55 ms each."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self.seedless = dict[tuple[str, ...], Composed]()

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config that the overrides make, with its `hydra` section. Raises what Hydra raises."""
        seeds = [word for word in overrides if SEED.fullmatch(word)]
        if len(seeds) != 1:
            return self.loader.load_sweep_config(self.master, list(overrides))
        seedless = tuple("" if word in seeds else word for word in overrides)
        if seedless not in self.seedless:
            composed = self.loader.load_sweep_config(self.master, list(overrides))
            self.seedless[seedless] = Composed.of(seeds, composed)
            return composed
        composed, before = self.seedless[seedless].config(), str(self.seedless[seedless])
        dirname = re.sub(rf"(?<![\w.]){before}(?!\d)", seeds[0], composed.hydra.job.override_dirname)
        with open_dict(composed):
            composed.seed = int(seeds[0].removeprefix("seed="))
            composed.hydra.overrides.task = list(overrides)
            composed.hydra.job.override_dirname = dirname
        return composed


def compose(composer: Composer, overrides: Sequence[str], more: Sequence[str] = ()) -> Point:
    """Compose one job and check it. `more` are choices for this session alone. Raises what can't be composed or run."""
    with naming(overrides):
        composed = composer([*overrides, *more])
    if "plots" not in map(config.key_of, (*overrides, *more)):
        composed.plots = False  # a sweep has pictures of its own
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        hydra.set_config(composed)
        cfg = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        with naming(overrides):
            config.check(cfg)
        ids = config.config_id(cfg), config.config_id(cfg, without=("seed",))
        job = Job(-1, tuple(overrides), *ids, cfg.seed, config.choices(cfg))
    finally:
        hydra.cfg = before
        OmegaConf.set_readonly(composed.hydra, None)  # set_config has done that, and launchers write there
    return Point(job, Composed.of(overrides, composed))


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


def unfinished(ledger: Ledger, retry_failed: bool) -> list[tuple[str, ...]]:
    """The overrides of the jobs of a ledger that are still to be run. Raises ConfigError where its list is torn."""
    sessions, jobs = ledger.read()
    if len(jobs) < sum(session.get("new", 0) for session in sessions):
        raise ConfigError(
            f"{ledger.path}: a crash tore its list of jobs; type the whole command again, with "
            f"hydra.sweep.dir={ledger.path.parent}"
        )
    done = {"completed", "replaced"} if retry_failed else {"completed", "replaced", "failed"}
    return [job.overrides for job in jobs.values() if job.status not in done]


def todo(
    points: Sequence[Point], known: dict[int, Job], folder: Path, *, retry_failed: bool, allow_changed: bool
) -> list[Point]:
    """Of the points asked for, those to run, numbered: what is new, and what the ledger does not have as done.

    A job is known by its config_id, not by its number; a new one gets a number that was never used.
    Raises ConfigError when the same overrides now mean something else and `allow_changed` is false.
    """
    by_id = {job.config_id: job for job in known.values()}
    by_words = {tuple(sorted(job.overrides)): job for job in known.values() if job.status != "replaced"}
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    fresh = max([-1, *known, *taken]) + 1
    chosen = list[Point]()
    for point in points:
        job = by_id.get(point.job.config_id)
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


def find(asked: str) -> Path:
    """The sweep folder that `resume=` names; `latest` is that under multirun/ at which work went on last.

    Raises ConfigError for what is no sweep of this program.
    """
    if asked == "latest":
        ledgers = list(Path("multirun").rglob(record.LEDGER))
        if not ledgers:
            raise ConfigError(f"resume=latest: no sweep under {Path('multirun').resolve()}")
        folder = max(ledgers, key=lambda path: path.stat().st_mtime).parent
        return folder.parent if _holds_trials(folder) else folder
    folder = Path(asked)
    if asked and ((folder / record.LEDGER).is_file() or _holds_trials(folder / record.TUNING)):
        return folder
    if not asked or not folder.is_dir():
        reason = "no such folder"
    elif (folder / "metrics.csv").exists():
        reason = f"a single run; without -m, python train.py resume={asked} goes on with it"
    else:
        reason = f"no sweep of this program, for it has no {record.LEDGER}"
    raise ConfigError(f"resume={asked}: {reason}")


def _holds_trials(folder: Path) -> bool:
    """Whether it is the folder of trials, after which a sweep in the folder above it was to come."""
    return (folder / record.LEDGER).is_file() and any("then" in session for session in Ledger(folder).read()[0])


def command(*words: str) -> str:
    """What to type to give train.py these words."""
    return shlex.join(["python", "train.py", *words])


def kept_flags(arguments: Sequence[str]) -> list[str]:
    """Of a command's words, those without which another one would find other configs: --config-dir and its like."""
    flags = list[str]()
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word.startswith(("--config-", "-cd", "-cn", "-cp")):
            flags += [word] if "=" in word else [word, following]
    return flags


def announcement(points: Sequence[Point], before: Trials) -> str:
    """How many jobs, after how many trials, and which keys vary."""
    values = dict[str, dict[str, None]]()
    for word in (word for point in points for word in point.job.overrides):
        key, _, value = word.partition("=")
        values.setdefault(key, {})[value] = None
    varying = [f"{key} ({len(kinds)})" for key, kinds in values.items() if len(kinds) > 1]
    count = len({point.job.arm for point in points}) * before.rates * len(before.seeds)
    trials = f", after {count:,} trials of {record.RATE}" * bool(count)
    return f"{len(points)} job{'s' * (len(points) != 1)}{trials}" + ": " * bool(varying) + " x ".join(varying)
