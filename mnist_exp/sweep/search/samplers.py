"""The samplers of a search: each suggests the next settings from what earlier ones reached.

A suggestion is a function of the search's seed, of the trials before it and of its number alone: for each number, a
fresh sampler with a seed of its own learns all of them. So a search that is stopped goes on as if nothing had happened.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from mnist_exp.report.labels import format_value
from mnist_exp.sweep.search.space import Interval, Setting, Space
from mnist_exp.system import extras
from mnist_exp.system.errors import ConfigError, offer

GRID, RANDOM, QMC, CMAES, TPE, GP = "grid", "random", "qmc", "cmaes", "tpe", "gp"
OPTUNAS = {TPE: "TPESampler", GP: "GPSampler"}
NAMES = (TPE, RANDOM, QMC, CMAES, GP, GRID)
EXTRAS = {TPE: "optuna", GP: "optuna", CMAES: "cmaes"}  # the package of the extra `search` that a sampler needs
NOT_TYPED = ("seed", "bounds", "mean", "cov", "constraints_func")  # arguments that are no settings of a command
SIGMA = 0.3  # of cmaes at first, as a share of each interval
ATTEMPTS = 10  # at a setting that was not tried yet
MOST_LISTED = 100_000  # settings of a space without intervals, which are counted through when few are left
WORST = 0.0  # what a failed trial reached, if no other trial completed


class Told(NamedTuple):
    """A trial that has ended, as a sampler learns it."""

    setting: Setting
    value: float | None  # the mean validation accuracy; None if it failed
    pruned_after: int | None = None  # epochs, or seeds, whichever are fewer than all; None if it was not pruned

    @property
    def has_result(self) -> bool:
        """Whether the trial can be compared with others: it neither failed nor was pruned."""
        return self.value is not None and self.pruned_after is None


class Sampler(NamedTuple):
    """A sampler, as hydra.sweeper.search names it."""

    name: str = TPE
    seed: int = 0
    options: Mapping[str, Any] = {}  # arguments of Optuna's class, or of cmaes.CMA

    @classmethod
    def read(cls, typed: Any) -> Sampler:
        """Return the sampler that hydra.sweeper.search asks for: its name, or a mapping with `sampler` and `seed`.

        Raises:
            ConfigError: There is no such sampler, or it has no such setting, or its package is not installed.
        """
        options = dict(typed) if isinstance(typed, Mapping) else {"sampler": typed}
        name, seed = options.pop("sampler", TPE), options.pop("seed", 0)
        if name not in NAMES:
            raise ConfigError(
                f"hydra.sweeper.search={format_value(name)}: must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, or a "
                "mapping {sampler:NAME,seed:0}"
            )
        if not (isinstance(seed, int) and seed >= 0):
            raise ConfigError(f"hydra.sweeper.search.seed={seed}: must be a whole number, 0 or more")
        if name in EXTRAS:
            extras.require("search", EXTRAS[name])
        if options and name not in EXTRAS:
            raise ConfigError(f"hydra.sweeper.search.{min(options)}: {name} has no settings but seed")
        sampler = cls(name, seed, options)
        sampler._check_options()
        return sampler

    @property
    def typed(self) -> dict[str, Any]:
        """The mapping from which `read` makes this sampler."""
        return {"sampler": self.name, "seed": self.seed, **self.options}

    def _check_options(self) -> None:
        """Raise ConfigError for settings that the package's class has not, or whose values it can't be made with."""
        known = self._settings()
        for key, value in self.options.items():
            if key not in known:
                raise ConfigError(
                    f"hydra.sweeper.search.{key}: {self.name} has no such setting, {offer(key, sorted(known))}"
                )
            if type(known[key]) in (bool, int, float) and type(value) not in (bool, int, float):
                raise ConfigError(
                    f"hydra.sweeper.search.{key}={format_value(value)}: must be a number, as its default "
                    f"{format_value(known[key])} is"
                )
        try:
            if self.name in OPTUNAS:
                _optunas(self, 0)
            elif self.name == CMAES:
                _cma(self, 2, 0)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"hydra.sweeper.search={self.name}: {error}") from error

    def _settings(self) -> dict[str, Any]:
        """Return the settings of the package's class that may be set, with their defaults."""
        if self.name in OPTUNAS:
            import optuna

            made: Any = getattr(optuna.samplers, OPTUNAS[self.name])
        elif self.name == CMAES:
            import cmaes

            made = cmaes.CMA
        else:
            return {}
        found = inspect.signature(made).parameters
        return {
            key: each.default for key, each in found.items() if key not in NOT_TYPED and not callable(each.default)
        } | ({"sigma": SIGMA} if self.name == CMAES else {})

    def check(self, space: Space) -> None:
        """Raise ConfigError if the sampler can't search a space."""
        if self.name == CMAES and (lists := [each.key for each in space if not isinstance(each, Interval)]):
            raise ConfigError(
                f"hydra.sweeper.search={CMAES}: searches intervals, and {lists[0]} is a choice; use {TPE}, or compare "
                f"{lists[0]}=a,b"
            )

    def suggest(
        self, space: Space, told: Sequence[Told], count: int, trials: int, alike: Collection[str] = ()
    ) -> list[Setting]:
        """Return settings for the next trials, none of which was tried before.

        Args:
            space: The keys to search.
            told: All trials that have ended; the number of the next one is their count.
            count: How many settings to suggest. There are fewer if the space has no more.
            trials: How many settings the whole search tries, for `grid`.
            alike: Keys in which the settings should agree, so that they can be trained as one.
        """
        if self.name == GRID:
            known = [trial.setting for trial in told]
            return [setting for setting in grid(space, trials) if setting not in known][:count]
        ask = self._asker(space, told)
        tried, found = [trial.setting for trial in told], list[Setting]()
        for number in range(len(told), len(told) + count):
            setting = self._new(ask, number, tried, found, alike) or _untried(space, tried)
            if setting is None:
                break
            tried.append(setting)
            found.append(setting)
        return found

    def _new(
        self,
        ask: Callable[[int, int], Setting],
        number: int,
        tried: Sequence[Setting],
        batch: Sequence[Setting],
        alike: Collection[str],
    ) -> Setting | None:
        """Return a setting that was not tried; None if none turns up. The last attempts leave the batch's likeness."""
        for attempt in range(ATTEMPTS):
            setting = ask(number, attempt)
            if batch and attempt < ATTEMPTS // 2:
                setting |= {key: batch[0][key] for key in alike}
            if setting not in tried:
                return setting
        return None

    def _asker(self, space: Space, told: Sequence[Told]) -> Callable[[int, int], Setting]:
        """Return the function that suggests a setting for a number, and another one at each attempt."""
        if self.name in OPTUNAS:
            return _ask_optuna(self, space, told)
        if self.name == CMAES:
            return _ask_cma(self, space, told)
        shares = _sobol if self.name == QMC else _uniform

        def ask(number: int, attempt: int) -> Setting:
            return _at(space, shares(self, len(space), number, attempt))

        return ask


def grid(space: Space, most: int) -> list[Setting]:
    """Return the largest grid of evenly spaced values with at most `most` settings, and at least one per interval."""
    listed = math.prod(len(each.grid(1)) for each in space)
    intervals = sum(isinstance(each, Interval) for each in space)
    points = int((most / listed) ** (1 / intervals) + 1e-9) if intervals else 1
    values = [each.grid(max(1, points)) for each in space]
    return [dict(zip([each.key for each in space], found, strict=True)) for found in product(*values)][:most]


def _untried(space: Space, tried: Sequence[Setting]) -> Setting | None:
    """Return the first setting of a space of lists that was not tried; None if there is none, or an interval."""
    if any(isinstance(each, Interval) for each in space):
        return None
    return next((setting for setting in grid(space, MOST_LISTED) if setting not in tried), None)


def objective(told: Sequence[Told]) -> list[float]:
    """Return what each trial reached, a pruned one so far. A failed one is as bad as the worst: samplers must learn."""
    worst = min((trial.value for trial in told if trial.value is not None), default=WORST)
    return [worst if trial.value is None else trial.value for trial in told]


def distributions(space: Space) -> dict[str, Any]:
    """Return a space as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(each: Any) -> Any:
        if not isinstance(each, Interval):
            return CategoricalDistribution(each.values)
        if each.is_int:
            return IntDistribution(round(each.low), round(each.high), log=each.is_log)
        return FloatDistribution(each.low, each.high, log=each.is_log)

    return {each.key: of(each) for each in space}


def parameters(space: Space, setting: Setting) -> dict[str, Any]:
    """Return a setting as Optuna's parameters."""
    numbers = {each.key: int if each.is_int else float for each in space if isinstance(each, Interval)}
    return {key: numbers.get(key, str)(text) for key, text in setting.items()}


def optunas_trial(space: Space, trial: Told, value: float | None) -> Any:
    """Return a trial as Optuna's, which reached a value; None: it failed."""
    import optuna
    from optuna.trial import TrialState

    state = TrialState.COMPLETE if trial.pruned_after is None else TrialState.PRUNED
    return optuna.create_trial(
        state=TrialState.FAIL if value is None else state,
        params=parameters(space, trial.setting),
        distributions=distributions(space),
        value=value,
        intermediate_values={} if value is None or trial.pruned_after is None else {trial.pruned_after: value},
    )


def _seed(sampler: Sampler, number: int, attempt: int) -> int:
    return int(np.random.SeedSequence([sampler.seed, number, attempt]).generate_state(1)[0])


def _at(space: Space, shares: Sequence[float]) -> Setting:
    return {each.key: each.at(share) for each, share in zip(space, shares, strict=True)}


def _uniform(sampler: Sampler, dimensions: int, number: int, attempt: int) -> Sequence[float]:
    return list(np.random.default_rng(_seed(sampler, number, attempt)).random(dimensions))


def _sobol(sampler: Sampler, dimensions: int, number: int, attempt: int) -> Sequence[float]:
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, seed=np.random.default_rng(_seed(sampler, 0, attempt)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a number of points that is no power of 2
        return list(engine.random(number + 1)[-1])


def _optunas(sampler: Sampler, seed: int) -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some of its options may change
        return getattr(optuna.samplers, OPTUNAS[sampler.name])(seed=seed, **sampler.options)


def _ask_optuna(sampler: Sampler, space: Space, told: Sequence[Told]) -> Callable[[int, int], Setting]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = distributions(space)
    study = optuna.create_study(direction="maximize")
    study.add_trials([optunas_trial(space, trial, value) for trial, value in zip(told, objective(told), strict=True)])

    def ask(number: int, attempt: int) -> Setting:
        study.sampler = _optunas(sampler, _seed(sampler, number, attempt))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = study.ask(kinds).params  # the trial stays open, so that the next one of the batch keeps away
        return {
            each.key: each.text(asked[each.key]) if isinstance(each, Interval) else asked[each.key] for each in space
        }

    return ask


def _cma(sampler: Sampler, dimensions: int, seed: int) -> Any:
    from cmaes import CMA

    arguments: dict[str, Any] = {"mean": np.full(dimensions, 0.5), "sigma": SIGMA, **sampler.options}
    return CMA(bounds=np.array([[0.0, 1.0]] * dimensions), seed=seed, **arguments)


def _ask_cma(sampler: Sampler, space: Space, told: Sequence[Told]) -> Callable[[int, int], Setting]:
    intervals = [each for each in space if isinstance(each, Interval)]
    points = [np.array([each.share(trial.setting[each.key]) for each in intervals]) for trial in told]
    losses = [-value for value in objective(told)]

    def ask(number: int, attempt: int) -> Setting:
        optimizer = _cma(sampler, len(intervals), _seed(sampler, number, attempt))
        size = optimizer.population_size
        for start in range(0, len(told) - size + 1, size):  # whole generations
            optimizer.tell(list(zip(points[start : start + size], losses[start : start + size], strict=True)))
        return _at(space, optimizer.ask().clip(0, 1).tolist())

    return ask
