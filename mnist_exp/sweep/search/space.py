"""The space of a search: the keys whose values a command leaves open, as interval(...) and choice(...) say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Transformer, ValueType

from mnist_exp import config
from mnist_exp.store.ledger import Job
from mnist_exp.system.errors import ConfigError

MAX_RATES, RATE_DIGITS = 100, 3  # of a search for the learning rate
DIGITS = 4  # significant ones of a number that is tried: the text of its override is the truth
# Keys that decide what a run is judged by, and with which luck.
NOT_SEARCHED = (*config.SEEDS, "data", "data.path", "data.validation", "data.test", "best_by")

Setting = dict[str, str]  # the text of each searched key's value


class Interval(NamedTuple):
    """A key whose values are the numbers of an interval, both ends included."""

    key: str
    low: float
    high: float
    is_log: bool = False  # equal ratios are equally likely, not equal differences
    is_int: bool = False
    digits: int = DIGITS

    def at(self, share: float) -> str:
        """Return the value at a share of the interval, from 0 to 1."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.is_int else (self.low, self.high)
        value = low * (high / low) ** share if self.is_log else low + share * (high - low)
        return self.text(value)

    def share(self, text: str) -> float:
        """Return where a value lies: the inverse of `at`."""
        value, low, high = (
            (float(text), self.low - 0.5, self.high + 0.5) if self.is_int else (float(text), self.low, self.high)
        )
        return math.log(value / low) / math.log(high / low) if self.is_log else (value - low) / (high - low)

    def text(self, value: float) -> str:
        """Return a number as an override has it, rounded and within the interval."""
        rounded = round(value) if self.is_int else float(f"{value:.{self.digits}g}")
        inside = min(max(rounded, self.low), self.high)
        return str(round(inside)) if self.is_int else f"{inside:g}" if inside == rounded else repr(inside)

    def grid(self, count: int) -> list[str]:
        """Return `count` evenly spaced values; one is the middle."""
        return list(dict.fromkeys(map(self.at, _shares(count))))


class Choice(NamedTuple):
    """A key whose values are listed."""

    key: str
    values: tuple[str, ...]

    def at(self, share: float) -> str:
        """Return the value at a share of the list, from 0 to 1."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def grid(self, count: int) -> list[str]:
        """Return all values, whatever their count."""
        return list(self.values)


Space = tuple[Interval | Choice, ...]


def divide(words: Sequence[str], loader: ConfigLoader) -> tuple[list[str], list[str]]:
    """Divide overrides into those that compare, or set one value, and those that tune."""
    compared: list[str] = []
    tuned: list[str] = []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(words)):
        (tuned if is_tuned(override) else compared).append(str(override.input_line))
    return compared, tuned


def is_tuned(override: Override) -> bool:
    """Return whether a search chooses the value of an override's key."""
    return override.value_type in (ValueType.INTERVAL_SWEEP, ValueType.CHOICE_SWEEP)


def parse(words: Sequence[str], loader: ConfigLoader) -> Space:
    """Return the space that overrides describe.

    Raises:
        ConfigError: A key can't be searched, or its interval or list makes no sense.
    """
    keys: dict[str, Interval | Choice] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(words)):
        key, typed, value = override.get_key_element(), str(override.input_line), override.value()
        name = config.key_of(key)
        if name in (*NOT_SEARCHED, *config.EXCLUDED_FROM_ID) or name.startswith("hydra"):
            reason = "decides by what runs are judged" if name in NOT_SEARCHED else "changes no result"
            raise ConfigError(f"{typed}: {name} {reason}, so a search can't choose it; give it values: a,b,c")
        if isinstance(value, IntervalSweep):
            keys[key] = _interval(key, typed, value)
        else:
            keys[key] = _choice(key, typed, cast(ChoiceSweep, value))
    return tuple(keys.values())


def of_arm(space: Space, choices: Mapping[str, Any]) -> Space:
    """Return the part of a space that an arm has.

    Args:
        space: The keys of the search.
        choices: The value of every key of the arm's config. Where it is a whole number, so are the values to try.
    """
    return tuple(
        each._replace(is_int=each.is_int or type(choices.get(each.key)) is int) if isinstance(each, Interval) else each
        for each in space
        if each.key.startswith("+") or each.key in choices
    )


def of_rates(job: Job, trials: int) -> Space:
    """Return the learning rates that an arm may have, optimizer.lr_range: equally likely by ratio.

    Args:
        job: One of the arm.
        trials: How many rates are tried.

    Raises:
        ConfigError: The optimizer has no lr_range, the command sets the rate, or there are too many rates.
    """
    if not 0 < trials <= MAX_RATES:
        raise ConfigError(f"hydra.sweeper.trials={trials}: must be 0 to {MAX_RATES} learning rates")
    for override in job.overrides:
        if config.key_of(override) == config.LR:
            raise ConfigError(f"{override}: the search chooses this key; remove it, or set hydra.sweeper.trials=0")
    limits = job.choices.get(f"{config.LR}_range")
    if not limits:
        name = f"optimizer={job.choices['optimizer']}"
        raise ConfigError(f"{config.LR}_range: {name} has none; a learning-rate search needs [low, high]")
    return (Interval(config.LR, limits[0], limits[1], is_log=True, digits=RATE_DIGITS),)


def probes(space: Space) -> list[Setting]:
    """Return settings that together hold both ends of each interval and each value of each list."""
    values = [each.values if isinstance(each, Choice) else each.grid(2) for each in space]
    count = max(map(len, values), default=0)
    return [
        {each.key: found[min(place, len(found) - 1)] for each, found in zip(space, values, strict=True)}
        for place in range(count)
    ]


def words(setting: Setting) -> list[str]:
    """Return a setting as overrides."""
    return [f"{key}={value}" for key, value in setting.items()]


def _shares(count: int) -> list[float]:
    return [step / (count - 1) for step in range(count)] if count > 1 else [0.5]


def _interval(key: str, typed: str, value: IntervalSweep) -> Interval:
    low, high = cast(float, value.start), cast(float, value.end)
    is_log = "log" in value.tags
    if unknown := sorted(value.tags - {"log"}):
        raise ConfigError(f"{typed}: {', '.join(unknown)} is no tag of a search; log is one")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{typed}: needs two numbers, the lower one first")
    if is_log and low <= 0:
        raise ConfigError(f"{typed}: a logarithmic interval begins above 0, as in tag(log,interval(1e-4,{high:g}))")
    return Interval(key, low, high, is_log, isinstance(low, int) and isinstance(high, int))


def _choice(key: str, typed: str, value: ChoiceSweep) -> Choice:
    if value.tags:
        raise ConfigError(f"{typed}: a choice has no tags; interval has one, log")
    values = tuple(dict.fromkeys(map(Transformer.str, value.list)))
    if len(values) < 2:
        raise ConfigError(f"{typed}: needs two values or more to choose from")
    return Choice(key, values)
