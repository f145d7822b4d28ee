"""Makes Hydra read, parse and merge the same files of conf/ once for all configs that the tests of a process compose.

Composing takes 3.5 times as long otherwise, and tests compose by the thousand. Commands that tests start as processes
compose as they do for a user, and so do configs with a search path beyond the checkout's conf/ and what is installed.
"""

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omegaconf._utils
import omegaconf.base
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from omegaconf import grammar_parser

CONF = Path(__file__).parents[2] / "conf"


def share(patch: pytest.MonkeyPatch) -> None:
    """Share this work until the patch is undone."""
    parse = functools.cache(grammar_parser.parse)  # what interpolations are made of; nothing changes a parse tree
    for module in (omegaconf.base, omegaconf._utils):
        patch.setattr(module, "parse", parse)
    patch.setattr(ConfigRepository, "load_config", _once(ConfigRepository.load_config, _key_of_file))
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", _once(merge, _key_of_defaults))


def _once(function: Callable[..., Any], key_of: Callable[..., object | None]) -> Callable[..., Any]:
    """Call the function once for each key, and return a copy of its result; each time if the key is None."""
    results: dict[object, bytes] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        key = key_of(*args, **kwargs)
        if key is None:
            return function(*args, **kwargs)
        if key not in results:
            results[key] = pickle.dumps(function(*args, **kwargs))
        return pickle.loads(results[key])

    return call


def _key_of_file(repository: Any, config_path: str) -> object | None:
    sources = _sources(repository)
    return sources and (config_path, sources)


def _key_of_defaults(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> object | None:
    sources = _sources(repo)
    return sources and (repr(defaults), sources)


def _sources(repository: Any) -> tuple[str, ...] | None:
    """Return where configs come from; None if tests may change these places."""
    places = tuple(source.full_path() for source in repository.get_sources())
    return places if all(_is_fixed(place) for place in places) else None


def _is_fixed(place: str) -> bool:
    scheme, _, path = place.partition("://")
    return scheme in ("pkg", "structured") or Path(path) == CONF
