"""The keys that tell runs apart, and their values in a few words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mnist_exp import config
from mnist_exp.report.runs import RunResult
from mnist_exp.store.ledger import keys_beside_identity

# Groups whose options are understood without the name of the group.
SELF_EXPLANATORY = ("experiment", "data", "model", "activation", "optimizer", "loss")
AMBIGUOUS = ("seed", "_target_")  # last parts of keys that say too little, or something else, on their own


def swept_keys(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return the typed keys that vary, without the seeds, and without runtime keys that tell no two runs apart.

    Such a key is `predictions`, where only some commands kept them. In sweeps of older versions, data.seed tells arms
    apart.
    """
    overrides = dict.fromkeys(override for run in runs for override in run.job.overrides)
    typed = dict.fromkeys(map(config.key_of, overrides))
    beside = keys_beside_identity(run.job for run in runs)
    telling = [key for key in typed if key not in config.RUNTIME_KEYS or key in beside]
    varying = [key for key in telling if _varies(runs, key)]
    splits: dict[str, set[int]] = {}
    for run in runs:
        splits.setdefault(run.job.arm, set()).add(run.job.seeds.split)
    seeds = config.SEEDS if any(len(found) > 1 for found in splits.values()) else ("seed",)
    return tuple(key for key in varying if key not in seeds)


def _varies(runs: Sequence[RunResult], key: str) -> bool:
    first = format_value(runs[0].job.choices.get(key))
    return any(format_value(run.job.choices.get(key)) != first for run in runs)


def shown_keys(runs: Sequence[RunResult], swept: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that tell runs apart, without the seed: the swept ones, and data.seed if it varies."""
    splits = {run.job.seeds.split for run in runs}
    return tuple(swept) if len(splits) < 2 or "data.seed" in swept else (*swept, "data.seed")


def format_value(value: Any) -> str:
    """Return the value of a key as a table shows it."""
    if isinstance(value, str):
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):  # as JSON has it, and faster
        return repr(value)
    return json.dumps(value).replace(" ", "")


def label(choices: Mapping[str, str]) -> str:
    """Return choices in a few words, such as "sgd max_norm=1.5".

    A key is shortened to its last part, or to more if keys share that part or it would mislead.
    """
    return " ".join(_short_pair(key, value, choices) for key, value in choices.items()) or "default"


def _short_pair(key: str, value: str, keys: Iterable[str]) -> str:
    if key in SELF_EXPLANATORY and value.isidentifier() and value != "null":
        return value
    others = [f".{other}" for other in (*AMBIGUOUS, *keys) if other != key]
    parts = key.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    short = next((end for end in endings if not any(other.endswith(f".{end}") for other in others)), key)
    return f"{short}={value if value and not set(value) & set(' =') else json.dumps(value, ensure_ascii=False)}"
