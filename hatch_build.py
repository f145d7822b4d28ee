"""Adds train.py and conf/ to a wheel. An editable install is the clone itself, so nothing is copied there."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TopLevelFiles(BuildHookInterface[Any]):
    """Puts what lies beside the package in a clone into the package of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files; `version` is "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"] |= {"train.py": "mnist_exp/train.py", "conf": "mnist_exp/conf"}
