"""Keeps torch from importing its compiler, which takes a second and 150 MB, where nothing is compiled.

An optimizer's construction and each of its steps import `torch._dynamo`, to tell a compiler where not to look:
`torch.optim.Optimizer.add_param_group` and `torch.optim.optimizer._use_grad_for_differentiable` (torch 2.11 to 2.15). A
module in its place answers these two calls, and imports the real one as soon as anything else is asked of it.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


class _Dynamo(ModuleType):
    """The two functions of torch._dynamo that an optimizer calls, as they are where nothing is compiled."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """Return the function, which no compiler looks into."""
        return function

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """Do nothing, because there is no graph."""

    def __getattr__(self, name: str) -> Any:
        """Import the real module, and return its attribute. Whoever looks through all modules does not need it."""
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
        return getattr(import_module(NAME), name)


def install() -> None:
    """Put the module in its place, unless the real one is imported already."""
    sys.modules.setdefault(NAME, _Dynamo(NAME))
