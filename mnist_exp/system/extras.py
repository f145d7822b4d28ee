"""Packages that only some commands need: the extras of pyproject.toml."""

from importlib.util import find_spec

from mnist_exp.system.errors import ConfigError


def require(extra: str, *packages: str) -> None:
    """Raise ConfigError if packages of an extra are not installed. Nothing is imported."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ConfigError(f"{', '.join(missing)}: not installed; type pip install 'mnist_exp[{extra}]'")
