"""Draws the figures of a run. A single run has a process for it, so that training does not wait for matplotlib."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_exp import build
from mnist_exp.data.batches import Batches, Split
from mnist_exp.data.images import Part
from mnist_exp.store.metrics import Row
from mnist_exp.system import files
from mnist_exp.system.fork import Helper


class Drawing:
    """The figures of a run: those of its data are drawn from the start on, those of its results when it finishes."""

    def __init__(self, folder: Path, data: Split, generator: torch.Generator, beside: bool) -> None:
        """Begin to draw.

        Args:
            folder: Where the files go.
            data: The data set.
            generator: Draws the augmentation's random numbers.
            beside: Draw in a process of its own; otherwise in this one, when all is to be drawn.

        Raises:
            OSError: The folder can't be created.
        """
        folder.mkdir(exist_ok=True)
        train, test = (_on_cpu(part) if beside else part for part in (data.train, data.test))

        def draw(sent: Iterator[Any]) -> None:
            from mnist_exp.training import figures  # imports matplotlib

            with build.torch_settings_kept():
                torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
                figures.draw_data(folder, _on_cpu(train), data.classes, data.train.augment, generator)
                for rows, best, probabilities in sent:
                    shown = rows, best, torch.from_numpy(probabilities)
                    figures.draw_results(folder, _on_cpu(test), data.classes, *shown)

        self._folder, self._helper = folder, Helper(draw, beside)

    def finish(self, rows: Sequence[Row], best: Row, probabilities: Tensor) -> None:
        """Draw the results, and wait until all figures are drawn.

        Args:
            rows: One row per epoch.
            best: The row of the best epoch.
            probabilities: The predicted probability of each class for each test image, (N, classes).

        Raises:
            OSError: A file can't be written.
        """
        self._helper.send((rows, best, probabilities.cpu().numpy()))
        self._helper.finish()

    def close(self) -> None:
        """End without what is not drawn yet."""
        self._helper.close()
        for path in self._folder.glob(files.TEMPORARY):
            path.unlink()


def _on_cpu(part: Part | Batches) -> Part:
    """Return images and labels, which a forked process can't get from a GPU."""
    return Part(part.images.cpu(), part.labels.cpu())
