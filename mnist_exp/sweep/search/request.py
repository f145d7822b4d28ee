"""What a command asks a search for: its arms, its sampler and its finalists, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from mnist_exp import config
from mnist_exp.report.labels import label
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import LR_SEARCH, SEARCH, SEARCHES
from mnist_exp.sweep.arms import one_per_arm, without_seed
from mnist_exp.sweep.compose import Plan, PlannedJob
from mnist_exp.sweep.search import samplers, space
from mnist_exp.sweep.search.journal import Journal
from mnist_exp.sweep.search.pruners import NONE, Pruner
from mnist_exp.sweep.search.samplers import Sampler
from mnist_exp.sweep.search.search import Arm, Search, Spec, differs
from mnist_exp.sweep.search.space import Space
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import quoting
from mnist_exp.system.errors import ConfigError

CAN_GROW = ("trials", "finalists")  # keys that may change if the whole command is typed again
FUSED_TRIALS = 8  # of an arm in a batch of fused groups: fewer fill the cores badly, more learn from each other late


class Options(NamedTuple):
    """What a command says of a search, beside the space.

    Attributes:
        sampler: hydra.sweeper.search.
        pruner: hydra.sweeper.prune.
        finalists: hydra.sweeper.finalists.
        workers: The jobs that its launcher runs at once.
        is_fused: Whether its launcher trains jobs that are alike as one.
        max_jobs: hydra.sweeper.max_jobs.
    """

    sampler: Any
    pruner: Any
    finalists: int
    workers: int
    is_fused: bool
    max_jobs: int


def new(
    planned: Sequence[PlannedJob],
    plan: Plan,
    words: Sequence[str] | None,
    options: Options,
    loader: ConfigLoader,
    folder: Path,
) -> Search | None:
    """Return the search that comes before the jobs of a sweep; None if nothing is searched.

    Args:
        planned: The jobs of the sweep.
        plan: Composes a job.
        words: The overrides that tune; none for a learning-rate search, where trials are asked for. None if the sweep
            is resumed: then its ledger says what to search.
        options: What else the command says.
        loader: Hydra's config loader.
        folder: The folder of the sweep.

    Raises:
        ConfigError: The search can't be.
    """
    pruner = Pruner.read(options.pruner).name
    if words == [] and pruner != NONE:
        raise ConfigError(
            f"hydra.sweeper.prune={pruner}: prunes a search of intervals and choices, and there is none; give a key "
            "interval(LOW,HIGH) or choice(A,B), and hydra.sweeper.trials=N, or remove it"
        )
    searched = {name: each for name, each in one_per_arm(planned).items() if each.search.number}
    if not searched:
        return None
    spec = _spec(words, options, len(searched), folder)
    whole = space.parse(spec.words, loader)
    arms = [
        Arm(
            name,
            without_seed(each.job.overrides),
            label_of,
            space.of_arm(whole, each.job.choices) if whole else space.of_rates(each.job, each.search.number),
            each.search.number,
            each.search.seeds,
            int(each.job.choices["epochs"]),
        )
        for (name, each), label_of in zip(searched.items(), _labels(list(searched.values())), strict=True)
    ]
    _check_seeds(planned, arms, spec, _kept(folder) if spec.words else {}, folder)
    if whole and words is not None:
        _check(arms, whole, spec, plan, options.max_jobs)
    if not whole:
        spec = spec._replace(batch=max(arm.trials for arm in arms))
    folder = folder / (SEARCH if whole else LR_SEARCH)
    return Search(arms, spec, plan, folder, Journal(folder))


def _spec(words: Sequence[str] | None, options: Options, arms: int, folder: Path) -> Spec:
    """Return what to search: of a sweep that exists, what its ledger says. Raises ConfigError if that differs."""
    before = known_spec(folder)
    if words is None and before:
        return before
    if not words:
        return Spec((), Sampler(samplers.GRID), 1, 1, False)
    batch = FUSED_TRIALS if options.is_fused else max(1, -(-options.workers // arms))  # no worker is idle
    sampler, pruner = Sampler.read(options.sampler), Pruner.read(options.pruner)
    spec = Spec(tuple(words), sampler, options.finalists, batch, options.is_fused, pruner)
    return spec.continued(before, folder) if before else spec


def known_spec(folder: Path) -> Spec | None:
    """Return what the search of a sweep searches; None if it has none over intervals and choices."""
    sweep = Sweep(folder / SEARCH)
    saved = [session["search"] for session in (sweep.ledger.read()[0] if sweep.exists else ()) if "search" in session]
    return Spec.read(saved[-1]) if saved else None


def require_kept(master: DictConfig, folder: Path) -> None:
    """Raise ConfigError if a command that resumes a sweep sets a key of its search, and not to what it has.

    Args:
        master: The config of the command.
        folder: The folder of the sweep.
    """
    kept, sweeper = _kept(folder), master.hydra.sweeper
    now = {
        "trials": sweeper.trials,
        "trial_seeds": OmegaConf.to_container(sweeper.trial_seeds),
        "search": Sampler.read(sweeper.search).typed,
        "prune": Pruner.read(sweeper.prune).typed,
        "finalists": sweeper.finalists,
    }
    for word in map(str, master.hydra.overrides.hydra):
        section, _, key = config.key_of(word).partition("sweeper.")
        key = key.partition(".")[0]
        if section != "hydra." or key not in now:
            continue
        if key not in kept:
            raise ConfigError(f"{word}: the sweep in {folder} has no search of settings; remove it")
        if kept[key] != now[key]:
            again = f"type the whole command again with {quoting.override('hydra.sweep.dir', folder)}"
            advice = again if key in CAN_GROW else "begin a new search in another hydra.sweep.dir"
            what_differs = differs(f"hydra.sweeper.{key}", now[key], kept[key], folder)
            raise ConfigError(f"{what_differs}; remove it, or {advice}")


def _kept(folder: Path) -> dict[str, Any]:
    """Return what the ledger says of the search of a sweep: values of keys of hydra.sweeper; none without a search."""
    folders = [folder / name for name in SEARCHES if Sweep(folder / name).exists]
    asked = [session["trials"] for each in folders for session in Ledger(each).read()[0] if "trials" in session]
    spec = known_spec(folder)
    found = [{"trials": trials, "trial_seeds": seeds} for trials, seeds in (asked[-1] if asked else ()) if trials]
    kept: dict[str, Any] = dict(found[-1]) if found else {}
    if spec:
        kept |= {"search": spec.sampler.typed, "prune": spec.pruner.typed, "finalists": spec.finalists}
    return kept


def _labels(planned: Sequence[PlannedJob]) -> list[str]:
    """Return the choices of each arm in a few words: those in which the arms differ."""
    typed = [dict(word.split("=", 1) for word in without_seed(each.job.overrides) if "=" in word) for each in planned]
    keys = [
        key
        for key in dict.fromkeys(key for each in typed for key in each)
        if len({each.get(key) for each in typed}) > 1
    ]
    return [label({key: each[key] for key in keys if key in each}) for each in typed]


def _check_seeds(
    planned: Sequence[PlannedJob], arms: Sequence[Arm], spec: Spec, kept: Mapping[str, Any], folder: Path
) -> None:
    """Raise ConfigError for seeds that both search and judge, or that are not those of a search that exists."""
    what = "the settings and so can't judge them" if spec.words else "the rate and so can't judge it"
    judges = {each.job.seed for each in planned if each.search.number}
    for arm in arms:
        if not arm.seeds:
            raise ConfigError("hydra.sweeper.trial_seeds=[]: must be one seed or more")
        if len(set(arm.seeds)) < len(arm.seeds):
            raise ConfigError(f"hydra.sweeper.trial_seeds={config.spell(list(arm.seeds))}: has a seed twice")
        if (seeds := list(arm.seeds)) != kept.get("trial_seeds", seeds):
            what_differs = differs("hydra.sweeper.trial_seeds", seeds, kept["trial_seeds"], folder)
            raise ConfigError(f"{what_differs}; choose another hydra.sweep.dir")
        if both := judges.intersection(arm.seeds):
            raise ConfigError(f"seed={min(both)}: is also in hydra.sweeper.trial_seeds, which choose {what}")


def _check(arms: Sequence[Arm], whole: Space, spec: Spec, plan: Plan, max_jobs: int) -> None:
    """Raise ConfigError for a key that no arm has, for a value that can't be, or for too many trials."""
    if spec.finalists < 1:
        raise ConfigError(f"hydra.sweeper.finalists={spec.finalists}: must be 1 or more")
    for each in whole:
        if not any(each.key in (own.key for own in arm.space) for arm in arms):
            plan([*arms[0].overrides, *space.words(space.probes((each,))[0])])  # its message names the option's keys
            raise ConfigError(f"{each.key}: no arm has this key; remove it")
    for arm in arms:
        if not arm.space:
            raise ConfigError(f"{arm.label}: has none of the searched keys; remove it, or search a key that it has")
        if arm.trials < 1 or (runs := arm.trials * len(arm.seeds) * len(arms)) > max_jobs:
            raise ConfigError(
                f"hydra.sweeper.trials={arm.trials}: must be 1 or more, and no more runs than "
                f"hydra.sweeper.max_jobs={max_jobs:,}" + (f"; these are {runs:,}" if arm.trials > 0 else "")
            )
        spec.sampler.check(arm.space)
        spec.pruner.check(arm.epochs, len(arm.seeds), [each.key for each in arm.space])
        for setting in space.probes(arm.space):
            plan([*arm.overrides, *space.words(setting)])
