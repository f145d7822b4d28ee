"""The figures of a run.

All tensors are on the CPU. A page of images is a few large arrays in one Axes, measured in inches:
one Axes per image would take seconds. Greyscale images are ink on paper (0 is white, 255 is black), which is how MNIST
was scanned; Fashion-MNIST was negated from photographs on white. Images of three channels are drawn in their colours.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mnist_exp.data.augment import Transform
from mnist_exp.data.images import Part
from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, add_page, new_figure, text_width, to_png, write_head
from mnist_exp.store.metrics import Row
from mnist_exp.system import files

HEAD, GUTTER = 0.72, 0.1  # inches: the title and the note; the gap between a name and its images
TILE, PICTURE, ROW = 0.84, 0.92, 1.42  # inches: largest image of a table; image of a gallery, without and with caption
COLUMNS = 6  # images in a row of a gallery
ONE_BLOCK = 12  # classes: a table of more has two blocks
NUMBERED = 20  # classes: a confusion matrix of more has no numbers
NAME = 16  # characters of a class name that fit under an image
EDGE = 24  # of 255: the light gray line around an image
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"  # Okabe and Ito 2008: safe for colour-blind eyes
MISSES = LinearSegmentedColormap.from_list("misses", ["white", VERMILION]).with_extremes(bad="0.88")
KEY = "Below each: its true class; the class predicted, with its probability."


def draw_data(
    folder: Path, train: Part, classes: Sequence[str], augmentation: Transform, generator: torch.Generator
) -> None:
    """Draw samples.png and augmented.png of the training images.

    Args:
        folder: Where the files go.
        train: The training images.
        classes: The names of the classes.
        augmentation: The augmentation.
        generator: Draws the augmentation's random numbers.
    """

    def augment(images: Tensor) -> Tensor:
        return augmentation(images, torch.rand(len(images), augmentation.num_random, generator=generator))

    save(samples(*train, classes), folder / "samples.png")
    save(augmented(*train, classes, augment), folder / "augmented.png")


def draw_results(
    folder: Path, test: Part, classes: Sequence[str], rows: Sequence[Row], best: Row, probabilities: Tensor
) -> None:
    """Draw curves.png, and correct.png, incorrect.png and confusion_matrix.png of the test images.

    Args:
        folder: Where the files go.
        test: The test images.
        classes: The names of the classes.
        rows: One row per epoch.
        best: The row of the best epoch.
        probabilities: The predicted probability of each class for each test image, (N, classes).
    """
    save(curves(rows, best.epoch), folder / "curves.png")
    save(correct(*test, probabilities, classes), folder / "correct.png")
    save(incorrect(*test, probabilities, classes), folder / "incorrect.png")
    save(confusion_matrix(test.labels, probabilities.argmax(dim=1), classes), folder / "confusion_matrix.png")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, whole or not at all; make its folder if need be."""
    path.parent.mkdir(exist_ok=True)
    files.write(path, to_png(figure))


def samples(images: Tensor, labels: Tensor, classes: Sequence[str], per_class: int = 10) -> Figure:
    """Show the first images of each class, one row per class. The row of a class with fewer images ends white.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        classes: The names of the classes.
        per_class: How many images of each class to show.
    """
    height, width = images.shape[-2:]
    title = f"The first {per_class} images of each class"
    note = f"{len(images):,} images of {height}x{width} pixels, {len(classes)} classes"
    tiles = _first_of_each_class(images, labels, len(classes), per_class)
    return _table(title, note, classes, [_framed(tiles, max(height, width))])


def augmented(
    images: Tensor, labels: Tensor, classes: Sequence[str], augment: Callable[[Tensor], Tensor], copies: int = 8
) -> Figure:
    """Show the first image of each class beside random versions of it, all at one scale.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        classes: The names of the classes.
        augment: Maps images (n, C, H, W) uint8 to their random versions (n, C, h, w) uint8.
        copies: How many random versions of each image to show.
    """
    originals = _first_of_each_class(images, labels, len(classes), 1)  # (classes, 1, C, H, W)
    versions = augment(originals[:, 0].repeat_interleave(copies, 0))  # (classes*copies, C, h, w)
    versions = versions.unflatten(0, (len(classes), copies))
    (height, width), (new_height, new_width) = originals.shape[-2:], versions.shape[-2:]
    title = f"One image of each class (left) and {copies} random augmentations of it"
    note = f"{height}x{width} pixels before, {new_height}x{new_width} after; every epoch draws new ones"
    side = max(height, width, new_height, new_width)
    return _table(title, note, classes, [_framed(originals, side), _framed(versions, side)])


def curves(rows: Sequence[Row], best_epoch: int) -> Figure:
    """Show the loss and the accuracy (percent) by epoch, and mark the epoch that validation chose.

    Args:
        rows: One row per epoch, one of them of `best_epoch`.
        best_epoch: The epoch to mark.
    """
    best = {row.epoch: row for row in rows}[best_epoch]
    figure = _chart(
        f"Best epoch {best_epoch}: validation loss {best.val_loss:.4f}, accuracy {_percent(best.val_accuracy)}",
        "Validation chose that epoch; its weights are the ones tested.",
        height=4.3,
    )
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    _draw_curve(loss, epochs, [row.train_loss for row in rows], [row.val_loss for row in rows])
    _draw_curve(accuracy, epochs, [100 * row.train_accuracy for row in rows], [100 * row.val_accuracy for row in rows])
    ring = {"marker": "o", "markersize": 11, "markeredgewidth": 2, "fillstyle": "none", "linestyle": "none"}
    loss.plot(best_epoch, best.val_loss, color=VERMILION, label=f"best epoch: {best_epoch}", **ring)
    accuracy.plot(best_epoch, 100 * best.val_accuracy, color=VERMILION, **ring)
    loss.set_ylabel("loss (mean over images)")
    accuracy.set_ylabel("accuracy (%)")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return figure


def correct(images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], count: int = 24) -> Figure:
    """Show test images that the model classifies correctly, evenly spaced over the test set.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        probabilities: The predicted probability of each class, (N, classes).
        classes: The names of the classes.
        count: How many images to show at most.
    """
    right = (probabilities.argmax(1) == labels).nonzero().flatten()
    chosen = right[torch.linspace(0, len(right) - 1, min(count, len(right))).round().long()]
    title = f"{len(right):,} of {len(labels):,} test images right ({_percent(len(right) / len(labels))})"
    note = f"Shown: {len(chosen)}, evenly spaced. {KEY}"
    return _gallery(title, note, BLUE, images[chosen], labels[chosen], probabilities[chosen], classes)


def incorrect(images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], count: int = 24) -> Figure:
    """Show test images that the model misclassifies, the most confident mistake first.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        probabilities: The predicted probability of each class, (N, classes).
        classes: The names of the classes.
        count: How many images to show at most.
    """
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]
    title = _misses(len(wrong), len(labels))
    note = f"Shown: {len(chosen)}, the most confident first. {KEY}"
    return _gallery(title, note, VERMILION, images[chosen], labels[chosen], probabilities[chosen], classes)


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> Figure:
    """Show how many test images of each class were predicted as each class. Only misses are coloured.

    The recall of each class stands beside its row; a dash marks a class without images.

    Args:
        labels: (N,) int64.
        predicted: (N,) int64.
        classes: The names of the classes.
    """
    n = len(classes)
    counts = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n).cpu()
    misses = np.ma.masked_array(counts.numpy(), mask=np.eye(n, dtype=bool))
    title = _misses(int(misses.sum()), len(labels))
    figure = _chart(title, "Colour: the misses, on a square-root scale. Gray: the diagonal. Blank: 0.", height=8)
    axes = figure.add_subplot()
    norm = PowerNorm(0.5, vmin=0, vmax=max(1, int(misses.max())))
    cells = axes.imshow(misses, cmap=MISSES, norm=norm, interpolation="nearest")
    lines, ends = np.arange(n - 1) + 0.5, (-0.5, n - 0.5)
    axes.hlines(lines, *ends, color="0.92", linewidth=0.5)
    axes.vlines(lines, *ends, color="0.92", linewidth=0.5)
    axes.set_anchor("N")
    _label_cells(axes, counts, classes)
    if n <= NUMBERED:
        _number_cells(axes, counts)
    else:
        ticks = MaxNLocator(nbins=5, integer=True, min_n_ticks=1)
        bar = figure.colorbar(cells, ax=axes, location="bottom", ticks=ticks, shrink=0.5, aspect=40, pad=0.01)
        bar.set_label("misses (images)")
    return figure


def _first_of_each_class(images: Tensor, labels: Tensor, classes: int, k: int) -> Tensor:
    """The first k images of each class, padded with white ones: (N, C, H, W), (N,) -> (classes, k, C, H, W)."""
    found = [images[(labels == c).nonzero().flatten()[:k]] for c in range(classes)]
    return torch.stack([F.pad(some, (0, 0, 0, 0, 0, 0, 0, k - len(some)), value=_white(images)) for some in found])


def _framed(tiles: Tensor, side: int) -> Tensor:
    """Tiles with an edge, centred on white squares with room for `side` pixels: (..., H, W) -> (..., S, S)."""
    scale, white = max(1, 56 // side), _white(tiles)  # an edge of 2 pixels is thin beside an image of 56 or more
    enlarged = tiles.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    framed = F.pad(enlarged, (2, 2, 2, 2), value=abs(white - EDGE))
    down, across = (side * scale + 8 - size for size in framed.shape[-2:])
    return F.pad(framed, (across // 2, across - across // 2, down // 2, down - down // 2), value=white)


def _white(images: Tensor) -> int:
    """The value of white in images (..., C, H, W): see the top of this file."""
    return 0 if images.shape[-3] == 1 else 255


def _draw_tiles(axes: Axes, tiles: Tensor, left: float, top: float, side: float) -> None:
    """Draw square tiles (R, K, C, S, S) in R rows and K columns, `side` inches each."""
    for row, line in enumerate(tiles):  # one array per row: matplotlib takes 50 bytes per dot to draw an array
        axes.imshow(  # (K, C, S, S) -> (S, K*S, C), or (S, K*S), of which alone matplotlib heeds cmap, vmin and vmax
            line.permute(2, 0, 3, 1).flatten(1, 2).squeeze(2).cpu().numpy(),
            cmap="gray_r",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            aspect="auto",
            extent=(left, left + line.shape[0] * side, top + (row + 1) * side, top + row * side),
        )


def _table(title: str, note: str, classes: Sequence[str], groups: Sequence[Tensor]) -> Figure:
    """Groups of tiles (classes, k, C, S, S) side by side, a row for each class, in two blocks if there are many."""
    names = [_short(name) for name in classes]
    blocks = 1 if len(names) <= ONE_BLOCK else 2
    rows = math.ceil(len(names) / blocks)
    block = (WIDTH - MARGIN) / blocks
    label = max(text_width(name) for name in names) + GUTTER
    columns = sum(group.shape[1] for group in groups)
    side = min(TILE, (block - MARGIN - label - GUTTER * (len(groups) - 1)) / columns)
    figure, page = _page(title, note, HEAD + rows * side + MARGIN)
    for i, name in enumerate(names):
        x, y = MARGIN + i // rows * block + label - GUTTER, HEAD + (i % rows + 0.5) * side
        page.text(x, y, name, size=TEXT, ha="right", va="center_baseline", parse_math=False)
    for i in range(blocks):
        left = MARGIN + i * block + label
        for group in groups:
            _draw_tiles(page, group[i * rows : (i + 1) * rows], left, HEAD, side)
            left += group.shape[1] * side + GUTTER
    return figure


def _gallery(
    title: str, note: str, color: str, images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str]
) -> Figure:
    """Images above their true class and, in `color`, the predicted class with its probability."""
    confidence, predicted = probabilities.max(1)
    truths = [_short(classes[i]) for i in labels.tolist()]
    guesses = [
        f"→ {_short(classes[i])}  {_probability(p)}"
        for i, p in zip(predicted.tolist(), confidence.tolist(), strict=True)
    ]
    tiles = _framed(images, max(images.shape[2:]))[:, None, None]  # (n, C, S, S) -> (n, 1, 1, C, S, S)
    cell = (WIDTH - 2 * MARGIN) / COLUMNS
    size = TEXT * min([1.0, *(0.95 * cell / text_width(guess) for guess in guesses)])
    figure, page = _page(title, note if guesses else "None to show.", HEAD + math.ceil(len(tiles) / COLUMNS) * ROW)
    for i, (tile, truth, guess) in enumerate(zip(tiles, truths, guesses, strict=True)):
        middle, top = MARGIN + (i % COLUMNS + 0.5) * cell, HEAD + i // COLUMNS * ROW
        _draw_tiles(page, tile, middle - PICTURE / 2, top, PICTURE)
        page.text(middle, top + PICTURE + 0.17, truth, size=size, ha="center", parse_math=False)
        page.text(middle, top + PICTURE + 0.34, guess, size=size, ha="center", parse_math=False, color=color)
    return figure


def _draw_curve(axes: Axes, epochs: Sequence[int], train: Sequence[float], val: Sequence[float]) -> None:
    """Draw one quantity of training and validation by epoch."""
    dot = min(5, 100 / len(epochs))  # points: visible for a few epochs, no wider than the line for many
    axes.plot(epochs, train, "s-", color=ORANGE, markersize=dot, label="training (mean while learning, as augmented)")
    axes.plot(epochs, val, "o-", color=BLUE, markersize=dot, label="validation (after the epoch)")
    axes.set_xlabel("epoch")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _label_cells(axes: Axes, counts: Tensor, classes: Sequence[str]) -> None:
    """Label the rows and columns of a confusion matrix, and write the recall beside each row."""
    names, places = [_short(name) for name in classes], range(len(classes))
    size = min(TEXT, 420 / len(names))  # points
    crowded = max(text_width(name) for name in names) * size / TEXT > 6 / len(names)
    slope, ha, va = (min(90, 4.5 * len(names)), "right", "center") if crowded else (0, "center", "top")  # degrees
    recalls = [f"{100 * row[i] / sum(row):.1f}" if sum(row) else "-" for i, row in enumerate(counts.tolist())]
    axes.set_xticks(places, names, size=size, parse_math=False, rotation=slope, rotation_mode="anchor", ha=ha, va=va)
    axes.set_yticks(places, names, size=size, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(places, recalls, size=size)
    recall.set_ylabel("recall (%)")
    for ticks in (axes, recall):
        ticks.tick_params(length=0)


def _number_cells(axes: Axes, counts: Tensor) -> None:
    """Write each count except 0 into its cell."""
    size = min(TEXT, 140 / len(counts))  # points
    for row, column in counts.nonzero().tolist():
        number = axes.text(column, row, f"{counts[row, column]:,}", size=size, ha="center", va="center_baseline")
        number.set_in_layout(False)  # all lie inside the Axes, and measuring 400 of them is slow


def _chart(title: str, note: str, height: float) -> Figure:
    """A figure with a title and a note. The Axes that are added to it fill the space below."""
    figure = new_figure(height)
    below = (0, 0, 1, 1 - (HEAD - MARGIN / 2) / height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=below, w_pad=MARGIN, h_pad=MARGIN / 2))
    write_head(figure, title, [note])
    return figure


def _page(title: str, note: str, height: float) -> tuple[Figure, Axes]:
    """A figure with a title and a note in its uppermost HEAD inches, and its page."""
    figure = new_figure(height)
    page = add_page(figure)
    write_head(figure, title, [note])
    return figure, page


def _misses(wrong: int, total: int) -> str:
    """2, 360 -> "2 misses of 360 test images (0.56 %)"."""
    return f"{wrong:,} {'miss' if wrong == 1 else 'misses'} of {total:,} test images ({_percent(wrong / total)})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _probability(probability: float) -> str:
    """A probability in percent that never rounds to certainty."""
    return ">99.9 %" if probability > 0.9995 else f"{100 * probability:.1f} %"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
