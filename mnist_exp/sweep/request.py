"""What a command asks a sweep for: its folder, and every job, composed and checked, each choice once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from mnist_exp import command_line, config
from mnist_exp.store import run_folder
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.sweep import plan
from mnist_exp.sweep.plan import Point
from mnist_exp.system import quoting
from mnist_exp.system.errors import ConfigError

log = logging.getLogger(__name__)

Compose = Callable[[Sequence[str]], Point]


class Request(NamedTuple):
    """A sweep as it was asked for."""

    folder: Path
    points: list[Point]
    compose: Compose  # makes more points of the kind


def read(
    loader: ConfigLoader,
    master: DictConfig,
    params: Mapping[str, str],
    arguments: Sequence[str],
    max_jobs: int,
    retry_failed: bool,
) -> Request:
    """Compose and check what a command asks for: a grid, or the jobs that are left in a folder. Raises ConfigError."""
    if OmegaConf.to_container(master.hydra.sweep, resolve=False)["subdir"] != "${hydra.job.num}":  # type: ignore
        raise ConfigError("hydra.sweep.subdir: can't be changed, for a sweep finds its jobs by their numbers")
    arguments = command_line.as_typed(arguments)
    asked = [word for word in arguments if config.key_of(word) == "resume" and word != "resume=null"]
    if asked and master.resume is None:
        raise ConfigError(f"{asked[0]}: takes the folder of one sweep, or latest")
    composer = plan.Composer(loader, master)
    if asked:
        more = _for_this_session([word for word in arguments if word not in asked], loader)
        compose = partial(plan.compose, composer, more=more)
        folder = find(master.resume)
        points = _left(folder, compose, retry_failed)
        if more:
            log.info(f"{' '.join(more)}: for the jobs still to run, {len(points)}; completed ones stay as they are")
        return Request(folder, points, compose)
    compose = partial(plan.compose, composer)
    points = plan.once_each(_compose_all(grids(params, arguments, composer, max_jobs), compose))
    folders = {point.folder for point in points}
    if len(folders) > 1:
        raise ConfigError(f"hydra.sweep.dir: a sweep has one folder, and these jobs ask for {len(folders)}")
    folder = folders.pop()
    if (owner := run_folder.owner(folder)) not in (None, run_folder.SWEEP):
        raise ConfigError(f"{folder} holds {owner}: choose another hydra.sweep.dir")
    log.info(plan.announcement(points))
    return Request(folder, points, compose)


def grids(
    params: Mapping[str, str], arguments: Sequence[str], composer: plan.Composer, max_jobs: int
) -> list[tuple[str, ...]]:
    """The overrides of every job: for each experiment that a command names, the grid of its own params and the command.

    `params` are those of the command, where it names one experiment or none. Raises ConfigError.
    """
    every = axes(arguments, composer.loader, max_jobs)
    experiments = {key: values for key, values in every.items() if _is_of_experiments(key, composer.loader)}
    found = list[tuple[str, ...]]()
    for chosen in product(*experiments.values()):
        own = composer.params(chosen) if any(len(values) > 1 for values in experiments.values()) else params
        within = axes([f"{key}={values}" for key, values in own.items()], composer.loader, max_jobs)
        within |= every | {key: [word] for key, word in zip(experiments, chosen, strict=True)}
        if len(found) + math.prod(map(len, within.values())) > max_jobs:
            raise ConfigError(f"more than {max_jobs:,} jobs: say hydra.sweeper.max_jobs=N if that is meant")
        found += product(*within.values())
        composer.params_of_experiments.append(dict(own))
    return found


def axes(arguments: Sequence[str], loader: ConfigLoader, most: int) -> dict[str, list[str]]:
    """The values that overrides name for each key, each as an override of one value. Raises ConfigError."""
    found = dict[str, list[str]]()
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        key, word = override.get_key_element(), str(override.input_line)
        if not override.is_sweep_override():
            found[key] = [word]
        elif override.is_discrete_sweep():
            found[key] = [f"{key}={value}" for value in islice(override.sweep_string_iterator(), most + 1)]
        else:
            raise ConfigError(f"{word}: a sweep takes values one by one: a,b,c or range(...) or glob(*)")
    if most < 1:
        raise ConfigError(f"hydra.sweeper.max_jobs={most}: must be 1 or more")
    if empty := [key for key, values in found.items() if not values]:
        raise ConfigError(f"{', '.join(empty)}: no value to try, so the sweep has no jobs")
    return found


def _is_of_experiments(key: str, loader: ConfigLoader) -> bool:
    """Whether a key is that of a group whose options may bring params of their own: experiment, and a user's own."""
    group = config.key_of(key)
    return group not in config.GROUPS and bool(loader.get_group_options(group))


def _compose_all(wanted: Sequence[Sequence[str]], compose: Compose) -> list[Point]:
    return [compose(overrides) for overrides in tqdm(wanted, desc="checking", unit="job", leave=False, disable=None)]


def _left(folder: Path, compose: Compose, retry_failed: bool) -> list[Point]:
    """The jobs that are still to be run in a sweep's folder, with the trials that come before them."""
    if Ledger(folder).path.exists():  # the trials, if there were any, are over
        points = _compose_all(plan.unfinished(folder, retry_failed), compose)
        return [point._replace(trials=plan.NO_TRIALS) for point in points]
    sessions = Ledger(folder / run_folder.LR_SEARCH).read()[0]
    session = next(session for session in reversed(sessions) if "then" in session)  # find has seen one
    return [
        compose(overrides)._replace(trials=plan.Trials(rates, tuple(seeds)))
        for overrides, (rates, seeds) in zip(session["then"], session["trials"], strict=True)
    ]


def _for_this_session(arguments: list[str], loader: ConfigLoader) -> list[str]:
    """Choices that may be added when a sweep goes on; raises ConfigError for those that would change its results."""
    for override in OverridesParser.create(config_loader=loader).parse_overrides(arguments):
        if config.key_of(str(override.input_line)) not in config.RUNTIME_KEYS or override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: a sweep goes on with its own choices; only {', '.join(config.RUNTIME_KEYS)} "
                "may change, to one value. For new points type the whole grid again, with hydra.sweep.dir=FOLDER"
            )
    return arguments


def find(asked: str) -> Path:
    """The sweep folder that `resume=` names; `latest` is that under multirun/ at which work went on last.

    Raises ConfigError for what is no sweep of this program.
    """
    if asked == "latest":
        ledgers = list(Path("multirun").rglob(run_folder.LEDGER))
        if not ledgers:
            raise ConfigError(f"resume=latest: no sweep under {Path('multirun').resolve()}")
        folder = max(ledgers, key=lambda path: path.stat().st_mtime).parent
        return folder.parent if _holds_trials(folder) else folder
    folder = Path(asked)
    if asked and ((folder / run_folder.LEDGER).is_file() or _holds_trials(folder / run_folder.LR_SEARCH)):
        return folder
    if not asked or not folder.is_dir():
        reason = "no such folder"
    elif (folder / METRICS).exists():
        reason = f"a single run; without -m, {quoting.command(quoting.override('resume', asked))} goes on with it"
    else:
        reason = f"no sweep of this program, for it has no {run_folder.LEDGER}"
    raise ConfigError(f"resume={asked}: {reason}")


def _holds_trials(folder: Path) -> bool:
    """Whether it is the folder of trials, after which a sweep in the folder above it was to come."""
    return (folder / run_folder.LEDGER).is_file() and any("then" in session for session in Ledger(folder).read()[0])
