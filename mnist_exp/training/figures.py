"""Every picture of a run, as figures that need no display and touch no global state.

The tensors of one call share a device. Pages of images are measured in inches and drawn as a few large arrays in one
Axes: an Axes per image would cost seconds. Images are ink on paper (0 white, 255 black): so MNIST was scanned, and
Fashion-MNIST was negated from photographs on white.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mnist_exp.data.batches import Split
from mnist_exp.store.metrics import Row
from mnist_exp.system import files

WIDTH, DPI = 8.0, 150  # inches, dots an inch: 1.5 times the 800 px of a README
MARGIN, HEAD, GUTTER = 0.15, 0.72, 0.1  # inches: round a page; for its title and note; between a name and its images
TILE, PICTURE, ROW = 0.84, 0.92, 1.42  # inches: an image in a table at most; one in a gallery; that with its caption
TITLE, TEXT = 11, 9  # points
TALL, NUMBERED = 12, 20  # classes: a table of more has two blocks, a confusion matrix of more has no numbers
NAME = 16  # characters of a class name that fit under an image
EDGE = 24  # of 255: the light gray line round an image
BLUE, ORANGE, VERMILION, GRAY = "#0072B2", "#E69F00", "#D55E00", "0.4"  # Okabe and Ito 2008: safe for colour-blind eyes
MISSES = LinearSegmentedColormap.from_list("misses", ["white", VERMILION]).with_extremes(bad="0.88")
KEY = "Below each: its true class; the class predicted, with its probability."


def samples(images: Tensor, labels: Tensor, classes: Sequence[str], per_class: int = 10) -> Figure:
    """Show the first few images of each class, a row a class; where a class has fewer, its row ends white.

    `images` (N, 1, H, W) uint8, `labels` (N,) int64.
    """
    height, width = images.shape[-2:]
    title = f"The first {per_class} images of each class"
    note = f"{len(images):,} images of {height}x{width} pixels, {len(classes)} classes"
    tiles = _first(images, labels, len(classes), per_class)
    return _table(title, note, classes, [_framed(tiles, max(height, width))])


def augmented(
    images: Tensor, labels: Tensor, classes: Sequence[str], augment: Callable[[Tensor], Tensor], copies: int = 8
) -> Figure:
    """Show the first image of each class beside random versions of it, all at one scale.

    `images` (N, 1, H, W) uint8, `labels` (N,) int64, `augment` (n, 1, H, W) uint8 -> (n, 1, h, w) uint8.
    """
    originals = _first(images, labels, len(classes), 1)  # (C, 1, H, W)
    versions = augment(originals.repeat_interleave(copies, 0))  # (C*copies, 1, h, w)
    versions = versions.reshape(len(classes), copies, *versions.shape[2:])
    (height, width), (new_height, new_width) = originals.shape[-2:], versions.shape[-2:]
    title = f"One image of each class (left) and {copies} random augmentations of it"
    note = f"{height}x{width} pixels before, {new_height}x{new_width} after; every epoch draws new ones"
    side = max(height, width, new_height, new_width)
    return _table(title, note, classes, [_framed(originals, side), _framed(versions, side)])


def curves(rows: Sequence[Row], best_epoch: int) -> Figure:
    """Show loss and accuracy (percent) against the epoch, and the epoch that validation chose.

    `rows` holds at least one row, one of them of `best_epoch`.
    """
    best = {row.epoch: row for row in rows}[best_epoch]
    figure = _chart(
        f"Best epoch {best_epoch}: validation loss {best.val_loss:.4f}, accuracy {_percent(best.val_accuracy)}",
        "Validation chose that epoch; its weights are the ones tested.",
        height=4.3,
    )
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    _curve(loss, epochs, [row.train_loss for row in rows], [row.val_loss for row in rows])
    _curve(accuracy, epochs, [100 * row.train_accuracy for row in rows], [100 * row.val_accuracy for row in rows])
    ring = {"marker": "o", "markersize": 11, "markeredgewidth": 2, "fillstyle": "none", "linestyle": "none"}
    loss.plot(best_epoch, best.val_loss, color=VERMILION, label=f"best epoch: {best_epoch}", **ring)
    accuracy.plot(best_epoch, 100 * best.val_accuracy, color=VERMILION, **ring)
    loss.set_ylabel("loss (mean over images)")
    accuracy.set_ylabel("accuracy (%)")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return figure


def correct(images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], count: int = 24) -> Figure:
    """Show test images that the model has right, evenly spaced over the test set.

    `images` (N, 1, H, W) uint8, `labels` (N,) int64, `probabilities` (N, C).
    """
    right = (probabilities.argmax(1) == labels).nonzero().flatten()
    chosen = right[torch.linspace(0, len(right) - 1, min(count, len(right))).round().long()]
    title = f"{len(right):,} of {len(labels):,} test images right ({_percent(len(right) / len(labels))})"
    note = f"Shown: {len(chosen)}, evenly spaced. {KEY}"
    return _gallery(title, note, BLUE, images[chosen], labels[chosen], probabilities[chosen], classes)


def incorrect(images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str], count: int = 24) -> Figure:
    """Show test images that the model has wrong, the most confident mistake first.

    `images` (N, 1, H, W) uint8, `labels` (N,) int64, `probabilities` (N, C).
    """
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]
    title = _missed(len(wrong), len(labels))
    note = f"Shown: {len(chosen)}, the most confident first. {KEY}"
    return _gallery(title, note, VERMILION, images[chosen], labels[chosen], probabilities[chosen], classes)


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> Figure:
    """Show how many test images of each class were taken for each class, coloured by the misses alone.

    `labels` and `predicted` (N,) int64. Beside each row stands its recall, a dash for a class without images.
    """
    n = len(classes)
    counts = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n).cpu()
    misses = np.ma.masked_array(counts.numpy(), mask=np.eye(n, dtype=bool))
    title = _missed(int(misses.sum()), len(labels))
    figure = _chart(title, "Colour: the misses, on a square-root scale. Gray: the diagonal. Blank: 0.", height=8)
    axes = figure.add_subplot()
    norm = PowerNorm(0.5, vmin=0, vmax=max(1, int(misses.max())))
    cells = axes.imshow(misses, cmap=MISSES, norm=norm, interpolation="nearest")
    lines, ends = np.arange(n - 1) + 0.5, (-0.5, n - 0.5)
    axes.hlines(lines, *ends, color="0.92", linewidth=0.5)
    axes.vlines(lines, *ends, color="0.92", linewidth=0.5)
    axes.set_anchor("N")
    _name_cells(axes, counts, classes)
    if n <= NUMBERED:
        _number_cells(axes, counts)
    else:
        ticks = MaxNLocator(nbins=5, integer=True, min_n_ticks=1)
        bar = figure.colorbar(cells, ax=axes, location="bottom", ticks=ticks, shrink=0.5, aspect=40, pad=0.01)
        bar.set_label("misses (images)")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path`, in a folder that is made if need be, as a PNG that is whole or not there at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(exist_ok=True)
    files.write(path, buffer.getbuffer())


def _first(images: Tensor, labels: Tensor, classes: int, k: int) -> Tensor:
    """The first k images of each class, white where it has fewer: (N, 1, H, W), (N,) -> (C, k, H, W)."""
    found = [images[(labels == c).nonzero().flatten()[:k], 0] for c in range(classes)]
    return torch.stack([F.pad(some, (0, 0, 0, 0, 0, k - len(some))) for some in found])


def _framed(tiles: Tensor, side: int) -> Tensor:
    """Tiles with an edge and a gap, in the middle of white squares for `side` pixels: (R, K, H, W) -> (R, K, S, S)."""
    scale = max(1, 56 // side)  # an edge of 2 is thin beside pictures of at least 56
    framed = F.pad(tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3), (2, 2, 2, 2), value=EDGE)
    down, across = (side * scale + 8 - size for size in framed.shape[2:])
    return F.pad(framed, (across // 2, across - across // 2, down // 2, down - down // 2))


def _sheet(axes: Axes, tiles: Tensor, left: float, top: float, side: float) -> None:
    """Lay square tiles (R, K, S, S) in R rows and K columns, `side` inches each."""
    for row, line in enumerate(tiles):  # an image each: to draw one takes 50 bytes a dot
        axes.imshow(
            line.transpose(0, 1).flatten(1).cpu().numpy(),  # (K, S, S) -> (S, K*S)
            cmap="gray_r",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            aspect="auto",
            extent=(left, left + line.shape[0] * side, top + (row + 1) * side, top + row * side),
        )


def _table(title: str, note: str, classes: Sequence[str], groups: Sequence[Tensor]) -> Figure:
    """Groups of tiles (C, k, S, S) side by side, a row a class; many classes go on in a second block at the right."""
    names = [_short(name) for name in classes]
    blocks = 1 if len(names) <= TALL else 2
    rows = math.ceil(len(names) / blocks)
    block = (WIDTH - MARGIN) / blocks
    label = max(_inches(name) for name in names) + GUTTER
    columns = sum(group.shape[1] for group in groups)
    side = min(TILE, (block - MARGIN - label - GUTTER * (len(groups) - 1)) / columns)
    figure, axes = _page(title, note, HEAD + rows * side + MARGIN)
    for i, name in enumerate(names):
        x, y = MARGIN + i // rows * block + label - GUTTER, HEAD + (i % rows + 0.5) * side
        axes.text(x, y, name, size=TEXT, ha="right", va="center_baseline", parse_math=False)
    for i in range(blocks):
        left = MARGIN + i * block + label
        for group in groups:
            _sheet(axes, group[i * rows : (i + 1) * rows], left, HEAD, side)
            left += group.shape[1] * side + GUTTER
    return figure


def _gallery(
    title: str, note: str, color: str, images: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str]
) -> Figure:
    """Images in rows of six, each above its true class and, in `color`, the class predicted and its probability."""
    confidence, predicted = probabilities.max(1)
    truths = [_short(classes[i]) for i in labels.tolist()]
    guesses = [
        f"→ {_short(classes[i])}  {_chance(p)}" for i, p in zip(predicted.tolist(), confidence.tolist(), strict=True)
    ]
    tiles = _framed(images, max(images.shape[2:])).unsqueeze(1)  # (n, 1, S, S) -> (n, 1, 1, S, S)
    cell = (WIDTH - 2 * MARGIN) / 6
    size = TEXT * min([1.0, *(0.95 * cell / _inches(guess) for guess in guesses)])
    figure, axes = _page(title, note if guesses else "None to show.", HEAD + math.ceil(len(tiles) / 6) * ROW)
    for i, (tile, truth, guess) in enumerate(zip(tiles, truths, guesses, strict=True)):
        middle, top = MARGIN + (i % 6 + 0.5) * cell, HEAD + i // 6 * ROW
        _sheet(axes, tile, middle - PICTURE / 2, top, PICTURE)
        axes.text(middle, top + PICTURE + 0.17, truth, size=size, ha="center", parse_math=False)
        axes.text(middle, top + PICTURE + 0.34, guess, size=size, ha="center", parse_math=False, color=color)
    return figure


def _curve(axes: Axes, epochs: Sequence[int], train: Sequence[float], val: Sequence[float]) -> None:
    """Draw one quantity of training and validation against the epoch."""
    dot = min(5, 100 / len(epochs))  # points: dots for a few epochs, a mere line for many
    axes.plot(epochs, train, "s-", color=ORANGE, markersize=dot, label="training (mean while learning, as augmented)")
    axes.plot(epochs, val, "o-", color=BLUE, markersize=dot, label="validation (after the epoch)")
    axes.set_xlabel("epoch")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _name_cells(axes: Axes, counts: Tensor, classes: Sequence[str]) -> None:
    """Name the rows and columns of a confusion matrix, and write each row's recall beside it."""
    names, places = [_short(name) for name in classes], range(len(classes))
    size = min(TEXT, 420 / len(names))  # points
    crowded = max(_inches(name) for name in names) * size / TEXT > 6 / len(names)
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
    """Write each count that is not 0 into its cell."""
    size = min(TEXT, 140 / len(counts))  # points
    for row, column in counts.nonzero().tolist():
        number = axes.text(column, row, f"{counts[row, column]:,}", size=size, ha="center", va="center_baseline")
        number.set_in_layout(False)  # it lies inside the Axes, and measuring 400 of them is slow


def _chart(title: str, note: str, height: float) -> Figure:
    """A figure whose Axes, once added, fill the place below its title and note."""
    below = (0, 0, 1, 1 - (HEAD - MARGIN / 2) / height)
    layout = ConstrainedLayoutEngine(rect=below, w_pad=MARGIN, h_pad=MARGIN / 2)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)
    _head(figure, title, note)
    return figure


def _page(title: str, note: str, height: float) -> tuple[Figure, Axes]:
    """A figure that is one Axes, its unit the inch, from the top left corner right and down; HEAD is taken."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    _head(figure, title, note)
    return figure, axes


def _head(figure: Figure, title: str, note: str) -> None:
    """Write the title and, below it, the note into the uppermost HEAD inches."""
    width, height = figure.get_size_inches()
    figure.text(MARGIN / width, 1 - 0.17 / height, title, size=TITLE, weight="bold", va="top")
    figure.text(MARGIN / width, 1 - 0.42 / height, note, size=TEXT, color=GRAY, va="top")


def _missed(wrong: int, total: int) -> str:
    """2, 360 -> "2 misses of 360 test images (0.56 %)"."""
    return f"{wrong:,} {'miss' if wrong == 1 else 'misses'} of {total:,} test images ({_percent(wrong / total)})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _chance(probability: float) -> str:
    """A probability in percent that never rounds to certainty."""
    return ">99.9 %" if probability > 0.9995 else f"{100 * probability:.1f} %"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _inches(text: str) -> float:
    """The width of `text` at TEXT points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), ismath=False)
    return float(width) / 72


def draw_data(folder: Path, data: Split, generator: torch.Generator) -> None:
    """Draw samples.png and augmented.png of the training images.

    Args:
        folder: Where the files go.
        data: The data set.
        generator: Draws the augmentation's random numbers.
    """
    augmentation, images, labels = data.train.augment, data.train.images.cpu(), data.train.labels.cpu()

    def augment(images: Tensor) -> Tensor:
        return augmentation(images, torch.rand(len(images), augmentation.num_random, generator=generator))

    save(samples(images, labels, data.classes), folder / "samples.png")
    save(augmented(images, labels, data.classes, augment), folder / "augmented.png")


def draw_results(folder: Path, rows: Sequence[Row], best: Row, data: Split, probabilities: Tensor) -> None:
    """Draw curves.png, and correct.png, incorrect.png and confusion_matrix.png of the test images.

    Args:
        folder: Where the files go.
        rows: One row per epoch.
        best: The row of the best epoch.
        data: The data set.
        probabilities: The predicted probability of each class for each test image, (N, C).
    """
    images, labels, probabilities = data.test.images.cpu(), data.test.labels.cpu(), probabilities.cpu()
    save(curves(rows, best.epoch), folder / "curves.png")
    save(correct(images, labels, probabilities, data.classes), folder / "correct.png")
    save(incorrect(images, labels, probabilities, data.classes), folder / "incorrect.png")
    save(confusion_matrix(labels, probabilities.argmax(dim=1), data.classes), folder / "confusion_matrix.png")
