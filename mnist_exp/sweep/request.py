"""What a command asks a sweep for: its folder, and every job, composed and checked."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from mnist_exp import command_line, config
from mnist_exp.report.sequential import Rule
from mnist_exp.store import run_folder, sweep_folder
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import LEDGER, SEARCHES
from mnist_exp.sweep import plan, rounds
from mnist_exp.sweep.compose import NO_SEARCH, Composer, Plan, PlannedJob, Trials
from mnist_exp.sweep.rounds import Until
from mnist_exp.sweep.search import request as search_request
from mnist_exp.sweep.search import space
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import quoting
from mnist_exp.system.errors import ConfigError

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """The sweep that a command asks for."""

    folder: Path
    jobs: list[PlannedJob]
    plan: Plan  # composes further jobs for the same sweep
    rule: Rule | None  # when a sequential sweep stops; None for fixed seeds
    tuned: list[str] | None  # the overrides that a search tunes; None for a resumed sweep, whose ledger has them


def read(
    loader: ConfigLoader,
    master: DictConfig,
    params: Mapping[str, str],
    arguments: Sequence[str],
    max_jobs: int,
    retry_failed: bool,
    until: Until,
) -> Request:
    """Compose and check a new grid, or the jobs that are left in the folder of a sweep.

    Args:
        loader: Hydra's config loader.
        master: The config of the sweep.
        params: hydra.sweeper.params.
        arguments: The overrides on the command line.
        max_jobs: More jobs than this are taken for a mistake.
        retry_failed: Whether failed jobs of a resumed sweep run again.
        until: When a sequential sweep stops.

    Raises:
        ConfigError: The command asks for something that can't work.
    """
    if OmegaConf.to_container(master.hydra.sweep, resolve=False)["subdir"] != "${hydra.job.num}":  # type: ignore
        raise ConfigError("hydra.sweep.subdir: can't be changed, because a sweep finds its jobs by their numbers")
    until.check()
    arguments = command_line.as_typed(arguments)
    resume = [word for word in arguments if config.key_of(word) == "resume" and word != "resume=null"]
    if resume and master.resume is None:
        raise ConfigError(f"{resume[0]}: takes the folder of one sweep, or latest")
    trackers = [word for word in arguments if config.key_of(word) == "tracker" and word != "tracker=null"]
    if trackers and master.tracker is None:
        raise ConfigError(
            f"{trackers[0]}: all jobs of a sweep have the same trackers; a list names several: [mlflow,wandb]"
        )
    composer = Composer(loader, master)
    if resume:
        return _resumed(composer, [word for word in arguments if word not in resume], retry_failed, until)
    seeds = rounds.FIRST_SEEDS if until.until else ()
    params, arguments, tuned = _divide(params, arguments, composer)
    wanted = _plan_all(grids(params, arguments, composer, max_jobs, seeds), composer.plan)
    jobs = plan.unique(wanted)
    if len(jobs) < len(wanted):
        log.info(f"{len(wanted) - len(jobs):,} of {len(wanted):,} jobs repeat others; equal ones run once")
    folder = _folder_of(jobs)
    exists = Sweep(folder).exists
    rule = until.rule_of(folder, rounds.known_rule(folder)) if exists else until.new_rule()
    if rule and not tuned:  # a search adds arms: the defaults and the finalists
        rounds.require_comparable(jobs, rule)
    if not tuned:
        log.info(plan.describe(jobs))
    if rule and exists:  # the rounds that followed what is typed
        jobs = plan.unique([*jobs, *_of_ledger(folder, composer.plan, retry_failed)])
    return Request(folder, jobs, composer.plan, rule, tuned)


def _folder_of(jobs: Sequence[PlannedJob]) -> Path:
    """Return the folder of the sweep of these jobs. Raises ConfigError if they ask for several, or a run is in it."""
    folders = {job.folder for job in jobs}
    if len(folders) > 1:
        raise ConfigError(f"hydra.sweep.dir: a sweep has one folder, and these jobs ask for {len(folders)}")
    folder = folders.pop()
    if (owner := run_folder.owner(folder)) not in (None, run_folder.SWEEP):
        raise ConfigError(f"{folder} holds {owner}: choose another hydra.sweep.dir")
    return folder


def _resumed(composer: Composer, arguments: list[str], retry_failed: bool, until: Until) -> Request:
    _require_session_keys(arguments, composer.loader)
    folder, plan_job = find(composer.master.resume), partial(composer.plan, session_overrides=arguments)
    _require_nothing_new(composer.master, folder)
    search_request.require_kept(composer.master, folder)
    jobs = _unfinished(folder, plan_job, retry_failed)
    if arguments:
        log.info(f"{' '.join(arguments)}: for the {len(jobs)} jobs still to run; completed ones stay as they are")
    return Request(folder, jobs, plan_job, until.rule_of(folder, rounds.known_rule(folder)), None)


def _divide(
    params: Mapping[str, str], arguments: Sequence[str], composer: Composer
) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the params and the overrides that compare, and those of both that tune: none without trials."""
    if not composer.master.hydra.sweeper.trials:
        return dict(params), list(arguments), []
    composer.params_of_experiments.append(dict(params))
    last = {config.key_of(word): word for word in arguments}  # as everywhere, the last word for a key counts
    compared, tuned = space.divide(list(last.values()), composer.loader)
    typed = set(map(config.key_of, arguments))
    words = [f"{key}={values}" for key, values in params.items() if key not in typed]
    of_params, tuned_params = space.divide(words, composer.loader)
    return dict(word.split("=", 1) for word in of_params), compared, [*tuned_params, *tuned]


def grids(
    params: Mapping[str, str], arguments: Sequence[str], composer: Composer, max_jobs: int, seeds: Sequence[int] = ()
) -> list[tuple[str, ...]]:
    """Return the overrides of every job.

    Each experiment that the command names has a grid of its own: its params and the values on the command line.

    Args:
        params: hydra.sweeper.params, if the command names one experiment or none.
        arguments: The overrides on the command line.
        composer: Composes the params of each experiment.
        max_jobs: More jobs than this are taken for a mistake.
        seeds: The seeds of a grid without any.

    Raises:
        ConfigError: There are too many jobs, or a key has no values.
    """
    typed = axes(arguments, composer.loader, max_jobs)
    experiments = {key: values for key, values in typed.items() if _is_of_experiments(key, composer.loader)}
    are_several = any(len(values) > 1 for values in experiments.values())
    jobs: list[tuple[str, ...]] = []
    for chosen in product(*experiments.values()):
        own = composer.params(chosen) if are_several else params
        searched = (
            config.SEARCHED if composer.master.hydra.sweeper.trials else config.INTERVAL
        )  # without trials, choice is a list
        if are_several and (tuned := [f"{key}={values}" for key, values in own.items() if searched.search(values)]):
            raise ConfigError(
                f"{' '.join(chosen)}: holds a search, {tuned[0]}, and searches of several experiments are sweeps of "
                "their own; name one experiment in a command"
            )
        grid = axes([f"{key}={values}" for key, values in own.items()], composer.loader, max_jobs)
        grid |= typed | {key: [override] for key, override in zip(experiments, chosen, strict=True)}
        if seeds and "seed" not in map(config.key_of, grid):
            grid["seed"] = [f"seed={seed}" for seed in seeds]
        if len(jobs) + math.prod(map(len, grid.values())) > max_jobs:
            raise ConfigError(f"more than {max_jobs:,} jobs; hydra.sweeper.max_jobs=N allows that many")
        jobs += product(*grid.values())
        composer.params_of_experiments.append(dict(own))
    return jobs


def axes(arguments: Sequence[str], loader: ConfigLoader, most: int) -> dict[str, list[str]]:
    """Return the values that overrides list for each key, each as an override of one value.

    Args:
        arguments: Overrides, each with one value or several.
        loader: Expands glob(*).
        most: Read no more values of a key than one more than this.

    Raises:
        ConfigError: An override is not a list of values, or has none.
    """
    values: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        key, typed = override.get_key_element(), str(override.input_line)
        if not override.is_sweep_override():
            values[key] = [typed]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in islice(override.sweep_string_iterator(), most + 1)]
        else:
            raise ConfigError(
                f"{typed}: a sweep takes a list of values, a,b,c or range(...) or glob(*); hydra.sweeper.trials=40 "
                "searches the interval"
            )
    if most < 1:
        raise ConfigError(f"hydra.sweeper.max_jobs={most}: must be 1 or more")
    if empty := [key for key, found in values.items() if not found]:
        raise ConfigError(f"{', '.join(empty)}: has no values, so the sweep has no jobs")
    return values


def _is_of_experiments(key: str, loader: ConfigLoader) -> bool:
    """Return whether the options of a group may have params of their own: experiment, and groups of a user's own."""
    group = config.key_of(key)
    return group not in config.GROUPS and bool(loader.get_group_options(group))


def _plan_all(jobs: Sequence[Sequence[str]], plan: Plan) -> list[PlannedJob]:
    return [plan(overrides) for overrides in tqdm(jobs, desc="checking", unit="job", leave=False, disable=None)]


def _of_ledger(folder: Path, plan: Plan, retry_failed: bool) -> list[PlannedJob]:
    """Return the jobs that are left to run of those in a sweep's ledger."""
    jobs = _plan_all(Sweep(folder).unfinished(retry_failed), plan)
    return [job._replace(search=NO_SEARCH) for job in jobs]


def _unfinished(folder: Path, plan: Plan, retry_failed: bool) -> list[PlannedJob]:
    """Return the jobs that are left to run in a sweep's folder, and the searches that come before them."""
    if Sweep(folder).exists:  # the search, if there was one, is over
        Sweep(folder).require_whole_list()
        return _of_ledger(folder, plan, retry_failed)
    searches = [folder / name for name in SEARCHES if sweep_folder.is_search(folder / name)]
    sessions = Ledger(searches[0]).read()[0]
    session = next(session for session in reversed(sessions) if "then" in session)  # find has seen one
    return [
        plan(overrides)._replace(search=Trials(number, tuple(seeds)))
        for overrides, (number, seeds) in zip(session["then"], session["trials"], strict=True)
    ]


def _require_session_keys(arguments: list[str], loader: ConfigLoader) -> None:
    """Raise ConfigError for overrides that would change the results of a resumed sweep."""
    for override in OverridesParser.create(config_loader=loader).parse_overrides(arguments):
        if config.key_of(str(override.input_line)) not in config.RUNTIME_KEYS or override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: a resumed sweep keeps its configs; only {', '.join(config.RUNTIME_KEYS)} "
                "may change, to one value. To add jobs, type the whole grid again, with hydra.sweep.dir=FOLDER"
            )


def _require_nothing_new(master: DictConfig, folder: Path) -> None:
    """Raise ConfigError for keys of the section `hydra` that only a new sweep can have."""
    for word in map(str, master.hydra.overrides.hydra):
        key = config.key_of(word)
        if key == "hydra.sweep.dir" and Path(master.hydra.sweep.dir).resolve() != folder.resolve():
            raise ConfigError(f"{word}: the sweep stays where it is, in {folder}; remove it")
        if key == "hydra.sweeper.max_jobs" or key.startswith("hydra.sweeper.params"):
            raise ConfigError(
                f"{word}: is for a new sweep, and a resumed one has its jobs; remove it. To add jobs, type the whole "
                f"grid again, with {quoting.override('hydra.sweep.dir', folder)}"
            )


def find(target: str) -> Path:
    """Return the folder of the sweep that `resume=target` means.

    Args:
        target: The folder of a sweep, or `latest`: the sweep under multirun/ whose ledger was written last.

    Raises:
        ConfigError: The target is not a sweep of this program.
    """
    if target == run_folder.LATEST:
        return sweep_folder.latest(f"resume={target}")
    folder = Path(target)
    if target and sweep_folder.is_sweep(folder):
        return folder
    if not target or not folder.is_dir():
        reason = "no such folder"
    elif (folder.parent / LEDGER).is_file():
        command = quoting.command("-m", quoting.override("resume", folder.parent))
        reason = f"this is a job of a sweep; {command} resumes the sweep"
    elif (folder / METRICS).exists():
        command = quoting.command(quoting.override("resume", target))
        reason = f"this is a single run; without -m, {command} resumes it"
    else:
        reason = f"this is not a sweep of this program: it has no {LEDGER}"
    raise ConfigError(f"resume={target}: {reason}")
