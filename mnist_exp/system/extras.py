"""Packages that only some commands need: the extras of pyproject.toml."""

from importlib.util import find_spec

from mnist_exp.system.errors import ConfigError

TRACKERS = {  # the extras that `mnist-exp track` and tracker= need, and their packages
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}


def require_trackers(names: list[str]) -> list[str]:
    """Return these names, keys of TRACKERS, unless a package of theirs is not installed: raise ConfigError then."""
    for name in names:
        require(name, *TRACKERS[name])
    return names


def require(extra: str, *packages: str) -> None:
    """Raise ConfigError if packages of an extra are not installed. Nothing is imported."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ConfigError(f"{', '.join(missing)}: not installed; type pip install 'mnist_exp[{extra}]'")
