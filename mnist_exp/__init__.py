"""Experiments in image classification at MNIST's scale, composed by Hydra: see train.py.

From Python, `train("optimizer=sgd", "epochs=3")` does a run, `load("outputs/...")` returns one that is done, and
`results("multirun/...")` returns the results of many as a table.
"""

from typing import TYPE_CHECKING

__all__ = ["ConfigError", "TrainedRun", "__version__", "load", "results", "train"]

if TYPE_CHECKING:
    from mnist_exp.system.errors import ConfigError
    from mnist_exp.use.in_process import train
    from mnist_exp.use.results import results
    from mnist_exp.use.trained_run import TrainedRun, load

    __version__: str
else:  # imported at their first use, because torch takes seconds, and the command's help does without
    HOMES = {
        "ConfigError": "mnist_exp.system.errors",
        "TrainedRun": "mnist_exp.use.trained_run",
        "load": "mnist_exp.use.trained_run",
        "results": "mnist_exp.use.results",
        "train": "mnist_exp.use.in_process",
    }

    def __getattr__(name):
        from importlib import import_module, metadata

        from mnist_exp.system import signals

        if name == "__version__":
            return metadata.version("mnist_exp")
        if name not in HOMES:
            raise AttributeError(f"module 'mnist_exp' has no attribute {name!r}")
        with signals.deferred():  # an exception in the middle of torch's import ends the process
            return getattr(import_module(HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *__all__})
