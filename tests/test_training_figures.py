import string
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers.figures import formulas, is_on_its_page, overlapping, points, text_of, texts
from matplotlib.figure import Figure
from matplotlib.image import imread
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from mnist_exp.store.metrics import Row
from mnist_exp.training import figures

DIGITS = list(string.digits)
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
EMNIST = list(string.digits + string.ascii_uppercase + string.ascii_lowercase)


def row(epoch: int, **facts: float) -> Row:
    """The row of an epoch, of which a test says what matters."""
    usual = {"train_loss": 0.2, "train_accuracy": 0.94, "val_loss": 0.1, "val_accuracy": 0.975}
    return Row(epoch, **(usual | facts), lr=0.001, seconds=1.5)


def all_figures(classes: list[str], side: int) -> dict[str, Figure]:
    """All six figures, of images of noise with many misses."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % len(classes)
    images = torch.randint(0, 256, (600, 1, side, side), generator=generator, dtype=torch.uint8)
    scores = torch.randn(600, len(classes), generator=generator)
    scores[torch.arange(600), labels] += 2
    probabilities = scores.softmax(1)
    return {
        "samples": figures.samples(images, labels, classes),
        "augmented": figures.augmented(images, labels, classes, lambda batch: batch[:, :, 1:-1, 1:-1]),
        "curves": figures.curves([row(epoch, val_loss=abs(epoch - 8) + 0.1) for epoch in range(1, 11)], best_epoch=8),
        "correct": figures.correct(images, labels, probabilities, classes),
        "incorrect": figures.incorrect(images, labels, probabilities, classes),
        "confusion_matrix": figures.confusion_matrix(labels, probabilities.argmax(1), classes),
    }


@pytest.fixture(scope="module")
def fashion() -> dict[str, Figure]:
    return all_figures(FASHION, 28)


@pytest.fixture(scope="module")
def odd_names() -> dict[str, Figure]:
    return all_figures(["$5 and $10", "a_b^c", "Cardigan Welsh corgi", "Ankle boot"], 8)


def numbered(n: int, side: int = 8) -> torch.Tensor:
    """Images that differ: every pixel of the i-th is i + 1."""
    return torch.arange(1, n + 1, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, side, side)


def shown(figure: Figure) -> list[list[list[int]]]:
    """The middle pixel of each tile, by group of tiles and row."""
    groups: list[list[list[int]]] = []
    end = None
    for image in figure.axes[0].images:  # one that begins where the last one ended is of the same group
        left, right, bottom, top = image.get_extent()
        rows = np.asarray(image.get_array())[32::64, 32::64].tolist()  # tiles of 8x8 images: 7 * 8 + 2 * 4
        if end == pytest.approx((left, right, top)):
            groups[-1] += rows
        else:
            groups.append(rows)
        end = left, right, bottom
    return groups


def certain(predicted: list[int], confidence: list[float], classes: int) -> torch.Tensor:
    """Probabilities (N, C) whose maximum is at `predicted`."""
    rest = (1 - torch.tensor(confidence)) / (classes - 1)
    probabilities = rest[:, None].repeat(1, classes)
    probabilities[torch.arange(len(predicted)), predicted] = torch.tensor(confidence)
    return probabilities


def test_figures_are_pngs_with_something_on_them(fashion: dict[str, Figure], tmp_path: Path) -> None:
    assert len(fashion) == 6
    for name, figure in fashion.items():
        path = tmp_path / "plots" / f"{name}.png"
        figures.save(figure, path)
        pixels = imread(path)
        assert pixels.shape[1] == 1200
        assert 500 < pixels.shape[0] < 2600
        assert pixels[::4, ::4, 0].std() > 0.05


def test_figures_need_no_display_and_no_pyplot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    settings = dict(mpl.rcParams)
    figures.save(figures.confusion_matrix(torch.arange(10), torch.arange(10), DIGITS), tmp_path / "matrix.png")
    assert dict(mpl.rcParams) == settings
    assert pyplot.get_fignums() == []
    assert "pyplot" not in Path(figures.__file__).read_text()


def test_nothing_is_cut_off(fashion: dict[str, Figure], odd_names: dict[str, Figure]) -> None:
    drawn = [*fashion.items(), *odd_names.items(), *all_figures(EMNIST, 28).items()]
    assert len(drawn) == 18
    assert not [name for name, figure in drawn if not is_on_its_page(figure)]


def test_captions_do_not_touch(odd_names: dict[str, Figure]) -> None:
    captions = odd_names["incorrect"].axes[0].texts
    assert len(captions) == 48
    assert overlapping(captions) == []


def test_a_dollar_in_a_name_starts_no_formula(odd_names: dict[str, Figure]) -> None:
    with_names = {name: figure for name, figure in odd_names.items() if name != "curves"}
    assert [name for name, figure in with_names.items() if "$5 and $10" in text_of(figure)] == list(with_names)
    assert not [name for name, figure in odd_names.items() if formulas(figure)]


def test_samples_are_the_first_of_each_class() -> None:
    labels = torch.tensor([1, 0, 0, 1, 1, 0, 0, 3])
    figure = figures.samples(numbered(8), labels, ["zero", "one", "two", "three"], per_class=3)
    assert shown(figure) == [[[2, 3, 6], [1, 4, 5], [0, 0, 0], [8, 0, 0]]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["zero", "one", "two", "three"]


def test_many_classes_go_on_in_a_second_block() -> None:
    figure = figures.samples(numbered(62), torch.arange(62), EMNIST, per_class=1)
    first, second = shown(figure)
    assert first == [[i] for i in range(1, 32)]
    assert second == [[i] for i in range(32, 63)]
    names = figure.axes[0].texts
    assert [name.get_text() for name in names] == EMNIST
    assert names[0].get_position()[1] == names[31].get_position()[1]


def test_images_keep_their_pixels() -> None:
    image = torch.randint(0, 256, (1, 1, 28, 28), dtype=torch.uint8)
    sheet = np.asarray(figures.samples(image, torch.tensor([0]), ["a"], per_class=1).axes[0].images[0].get_array())
    assert sheet.shape == (64, 64)
    assert (sheet[4:-4:2, 4:-4:2] == image[0, 0].numpy()).all()
    assert (sheet[5:-4:2, 5:-4:2] == image[0, 0].numpy()).all()


def test_coloured_images_keep_their_colours_on_white_paper() -> None:
    image = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8)
    figure = figures.samples(image, torch.tensor([0]), ["a"], per_class=2)
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    assert sheet.shape == (64, 2 * 64, 3)
    assert (sheet[4:60:2, 4:60:2] == image[0].permute(1, 2, 0).numpy()).all()
    assert (sheet[:2] == 255).all()  # around the images
    assert (sheet[2:4, 2:62] == 255 - figures.EDGE).all()
    assert (sheet[4:-4, 68:-4] == 255).all()  # an image that the class lacks
    figure = figures.correct(image, torch.tensor([0]), torch.tensor([[0.9, 0.1]]), ["a", "b"])
    assert (np.asarray(figure.axes[0].images[0].get_array()) == sheet[:, :64]).all()


def test_colours_reach_the_file(tmp_path: Path) -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    figure = figures.augmented(red, torch.tensor([0, 0, 1, 1]), ["a", "b"], lambda batch: batch.flip(1))
    figures.save(figure, tmp_path / "augmented.png")
    colours = {tuple(pixel) for pixel in imread(tmp_path / "augmented.png")[::7, ::7, :3].reshape(-1, 3).tolist()}
    assert {(1, 0, 0), (0, 0, 1), (1, 1, 1)} <= colours


def test_augmented_shows_the_original_and_what_augment_made_of_it() -> None:
    batches: list[torch.Tensor] = []

    def augment(batch: torch.Tensor) -> torch.Tensor:
        batches.append(batch)
        return batch[:, :, 2:-2, 1:-1] + 10 * torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)

    figure = figures.augmented(numbered(4), torch.tensor([1, 1, 0, 0]), ["zero", "one"], augment, copies=3)
    assert [batch.shape for batch in batches] == [(6, 1, 8, 8)]
    assert shown(figure) == [[[3], [1]], [[3, 13, 23], [31, 41, 51]]]
    assert any("8x8 pixels before, 4x6 after" in text for text in texts(figure))


def test_curves_name_and_ring_the_best_epoch() -> None:
    rows = [row(1, val_loss=0.2), row(2, val_loss=0.1234, val_accuracy=0.98765), row(3, val_loss=0.3)]
    figure = figures.curves(rows, best_epoch=2)
    assert "Best epoch 2: validation loss 0.1234, accuracy 98.77 %" in texts(figure)
    assert "best epoch: 2" in texts(figure)
    loss, accuracy = figure.axes
    train, val, ring = loss.lines
    assert points(train) == [[1, 0.2], [2, 0.2], [3, 0.2]]
    assert points(val) == [[1, 0.2], [2, 0.1234], [3, 0.3]]
    assert points(ring) == [[2, 0.1234]]
    assert [points(line)[0][1] for line in accuracy.lines] == pytest.approx([94, 97.5, 98.765])
    assert accuracy.get_ylabel() == "accuracy (%)"


@pytest.mark.parametrize("epochs", [1, 2, 5, 20, 200])
def test_epoch_ticks_are_whole(epochs: int) -> None:
    figure = figures.curves([row(epoch) for epoch in range(1, epochs + 1)], best_epoch=1)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert 1 <= len(ticks) <= 9
        assert all(tick == round(tick) for tick in ticks)


def test_curves_of_a_run_that_diverged_are_drawn(tmp_path: Path) -> None:
    rows = [row(1), row(2, train_loss=float("inf"), val_loss=float("nan"))]
    figures.save(figures.curves(rows, best_epoch=1), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_incorrect_shows_misses_by_confidence() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    probabilities = certain([1, 1, 0, 2, 0], [0.6, 0.9, 0.8, 0.99999, 0.7], classes=3)
    figure = figures.incorrect(numbered(5), labels, probabilities, ["Bag", "Coat", "Shirt"])
    assert "4 misses of 5 test images (80.00 %)" in texts(figure)
    assert shown(figure) == [[[4]], [[3]], [[5]], [[1]]]
    assert [text.get_text() for text in figure.axes[0].texts] == [
        *("Bag", "→ Shirt  >99.9 %"),
        *("Shirt", "→ Bag  80.0 %"),
        *("Coat", "→ Bag  70.0 %"),
        *("Bag", "→ Coat  60.0 %"),
    ]


def test_incorrect_stops_at_count() -> None:
    probabilities = certain([1] * 30, [0.6 + i / 100 for i in range(30)], classes=2)
    figure = figures.incorrect(numbered(30), torch.zeros(30, dtype=torch.long), probabilities, ["a", "b"], count=7)
    assert shown(figure) == [[[i]] for i in range(30, 23, -1)]
    assert any(text.startswith("Shown: 7, ") for text in texts(figure))


def test_correct_is_evenly_spaced_over_the_test_set() -> None:
    labels = torch.tensor([0, 1] * 50)
    probabilities = certain([0, 1] * 49 + [1, 1], [0.75] * 100, classes=2)
    figure = figures.correct(numbered(100), labels, probabilities, ["a", "b"], count=4)
    assert "99 of 100 test images right (99.00 %)" in texts(figure)
    assert shown(figure) == [[[1]], [[34]], [[66]], [[100]]]
    assert [text.get_text() for text in figure.axes[0].texts][:4] == ["a", "→ a  75.0 %", "b", "→ b  75.0 %"]


@pytest.mark.parametrize(("function", "predicted"), [(figures.incorrect, 0), (figures.correct, 1)])
def test_nothing_to_show_is_said(function: Callable[..., Figure], predicted: int, tmp_path: Path) -> None:
    probabilities = certain([predicted] * 9, [0.9] * 9, classes=2)
    figure = function(numbered(9), torch.zeros(9, dtype=torch.long), probabilities, ["a", "b"])
    assert "None to show." in texts(figure)
    assert {"0 misses of 9 test images (0.00 %)", "0 of 9 test images right (0.00 %)"} & set(texts(figure))
    figures.save(figure, tmp_path / "none.png")
    assert imread(tmp_path / "none.png").min() == 0


def test_one_miss_is_singular() -> None:
    figure = figures.confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"])
    assert "1 miss of 2 test images (50.00 %)" in texts(figure)


@pytest.mark.parametrize("classes", [DIGITS, FASHION + FASHION, EMNIST])
def test_confusion_counts_are_those_of_sklearn(classes: list[str]) -> None:
    n = len(classes)
    labels = torch.randint(0, n, (5000,), generator=torch.Generator().manual_seed(1))
    predicted = torch.where(torch.arange(5000) % 3 == 0, labels * 7 % n, labels)
    expected = sklearn_confusion_matrix(labels, predicted, labels=range(n))
    axes = figures.confusion_matrix(labels, predicted, classes).axes[0]
    cells = axes.images[0].get_array()
    assert isinstance(cells, np.ma.MaskedArray)
    assert (cells.data == expected).all()
    assert (cells.mask == np.eye(n, dtype=bool)).all()
    numbers = {text.get_position()[::-1]: int(text.get_text().replace(",", "")) for text in axes.texts}
    counts = {(i, j): expected[i, j] for i, j in np.argwhere(expected).tolist()}
    assert numbers == (counts if n <= 20 else {})
    assert [tick.get_text() for tick in axes.get_yticklabels()] == classes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == classes
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, n - 0.5), (n - 0.5, -0.5))


def test_recall_stands_beside_each_row() -> None:
    figure = figures.confusion_matrix(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), ["a", "b", "no images"])
    (recall,) = figure.axes[0].child_axes
    assert [tick.get_text() for tick in recall.get_yticklabels()] == ["66.7", "100.0", "-"]


def test_a_matrix_without_misses_is_drawn(tmp_path: Path) -> None:
    labels = torch.arange(30) % 3
    figure = figures.confusion_matrix(labels, labels, ["a", "b", "c"])
    assert "0 misses of 30 test images (0.00 %)" in texts(figure)
    figures.save(figure, tmp_path / "confusion_matrix.png")
    assert (tmp_path / "confusion_matrix.png").exists()


def test_save_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    figures.save(figures.curves([row(1)], best_epoch=1), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(tmp_path.iterdir()) == [path]
