import re
from pathlib import Path

import numpy as np
import pytest
from helpers.own_data import noise

from mnist_exp.data import own
from mnist_exp.data.images import NO_IMAGES
from mnist_exp.data.own import Labelled


def labelled(labels: str, size: int = 4) -> Labelled:
    """One image for each letter."""
    return Labelled(noise(len(labels), size=(1, size, size))[0], list(labels))


def test_numbers_sort_by_their_value_and_the_rest_by_its_characters() -> None:
    names = ["10", "9", "a2", "a10", "A", "img12.png", "img2.png", "01", "1", "ä", ""]
    expected = ["", "01", "1", "9", "10", "A", "a2", "a10", "img2.png", "img12.png", "ä"]
    assert sorted(names, key=own.natural) == expected


def test_a_data_set_has_the_classes_of_its_training_images() -> None:
    data = own.data_set("set", {"train": labelled("bbaa"), "test": labelled("ab")}, "crop")
    assert (data.name, data.classes, data.preparation) == ("set", ("a", "b"), "crop")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1, 1, 0, 0], [0, 1])
    assert data.val is NO_IMAGES
    np.testing.assert_array_equal(data.train.images, labelled("bbaa").images)
    assert own.data_set("", {"train": labelled("bbaa")}, "", ("b", "a")).train.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("parts", "classes", "message"),
    [
        ({}, None, "has no training images"),
        ({"test": labelled("aabb")}, None, "has no training images"),
        ({"train": labelled("")}, None, "has no training images"),
        ({"train": labelled("aaa")}, None, "all training images are of one class, a; a model needs two"),
        ({"train": labelled("aab")}, None, "each class needs 2 training images or more: b has 1"),
        ({"train": labelled("aabb")}, ("a", "b", "c"), "each class needs 2 training images or more: c has 0"),
        (
            {"train": labelled("aabb"), "val": labelled("az")},
            None,
            "the val images have the class z, which the training",
        ),
        (
            {"train": labelled("aabb"), "test": labelled("a", 5)},
            None,
            "different shapes (C, H, W): [1, 5, 5] and [1, 4, 4]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_model_can_learn_is_refused(
    parts: dict[str, Labelled], classes: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        own.data_set("set", parts, "pad", classes)


def test_parts_are_slices_of_the_images() -> None:
    images = noise(5, size=(1, 2, 2))[0]
    found = own.parts(["test", "train", "train", "train", "val"], images, list("abcde"))
    assert [(part, each.labels) for part, each in found.items()] == [
        ("test", ["a"]), ("train", ["b", "c", "d"]), ("val", ["e"]),
    ]  # fmt: skip
    assert all(np.shares_memory(each.images, images) for each in found.values())
    assert own.parts([], images[:0], []) == {}


def test_a_data_set_is_called_like_its_folder_or_file(tmp_path: Path) -> None:
    (tmp_path / "photos.v2").mkdir()
    names = {"photos.v2": "photos.v2", "photos.v2/mnist.npz": "mnist", "photos.v2/train.csv": "photos.v2"}
    assert {name: own.name_of(tmp_path / name) for name in names} == names
    assert own.part_of("validation-00000-of-00001.parquet") == "val"
    assert own.part_of("trains.csv") is None
