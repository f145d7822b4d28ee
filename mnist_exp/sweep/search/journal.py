"""Writes the trials of a search for optuna-dashboard: optuna.journal, made from the ledger and never read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mnist_exp.sweep.search import samplers
from mnist_exp.sweep.search.samplers import Told
from mnist_exp.sweep.search.space import Space

log = logging.getLogger(__name__)

JOURNAL = "optuna.journal"


class Journal:
    """The journal of a search, with one study per arm; without Optuna there is none.

    The first `write` of a process begins a new file, further ones append what has been added.
    """

    def __init__(self, folder: Path) -> None:
        """Describe the journal of a search's folder, without touching it."""
        self.path, self._written = folder / JOURNAL, dict[str, int]()
        self._storage: Any = None

    def write(self, studies: Mapping[str, tuple[Space, Sequence[Told]]]) -> None:
        """Bring the file up to date.

        Args:
            studies: The space and the trials of each arm, by its name.
        """
        if find_spec("optuna") is None or not any(told for _, told in studies.values()):
            return
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if self._storage is None:
                self.path.unlink(missing_ok=True)
                self._storage = JournalStorage(JournalFileBackend(str(self.path)))
            for name, (space, told) in studies.items():
                study = optuna.create_study(
                    storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
                )
                new = told[self._written.get(name, 0) :]
                study.add_trials([samplers.optunas_trial(space, trial, trial.value) for trial in new])
                self._written[name] = len(told)
        except OSError as error:  # a full disk: the search itself goes on
            log.warning(f"{self.path}: {error}")
