import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.own_data import keras, noise

from mnist_exp.data.images import DataSet
from mnist_exp.data.npz import npz
from mnist_exp.system import resources

X, Y = noise()


def load(path: Path, **arrays: Any) -> DataSet:
    """The data set in an archive of these arrays."""
    if arrays:
        np.savez(path, **arrays)
    return npz(str(path), str(path.parent / "root"), None, "pad", "auto")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "some.npz"


def test_keras_names(archive: Path) -> None:
    parts = {"train": noise(classes=10, count=40), "test": noise(10, classes=10, seed=1)}
    data = load(keras(archive, parts))
    assert (data.name, data.classes, len(data.val.images)) == ("some", tuple("0123456789"), 0)
    for part, (images, labels) in zip((data.train, data.test), parts.values(), strict=True):
        np.testing.assert_array_equal(part.images[:, 0], images)
        np.testing.assert_array_equal(part.labels, labels)


def test_the_log_names_arrays_that_are_left_out(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = load(archive, x_train=X, y_train=Y, x_test=X)
    assert (len(data.train.images), len(data.test.images)) == (len(X), 0)
    assert caplog.messages == ["some: other arrays are left out: x_test"]


def test_medmnist_names_and_shapes(archive: Path) -> None:
    parts = {part: noise(8 + seed, size=(5, 5, 3), seed=seed) for seed, part in enumerate(("train", "val", "test"))}
    arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
    data = load(archive, **arrays, **{f"{part}_labels": labels[:, None] for part, (_, labels) in parts.items()})
    for found, (images, labels) in zip((data.train, data.val, data.test), parts.values(), strict=True):
        np.testing.assert_array_equal(found.images.permute(0, 2, 3, 1), images)
        np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize(
    "same",
    [
        X,
        X[:, None],
        X[..., None],
        X.reshape(24, 36),
        X.astype(np.int64),
        X.astype(np.float64),
        X / np.float32(255),
        X / 255,
    ],
    ids=["N H W", "N 1 H W", "N H W 1", "flat", "int64", "float", "0 to 1", "0 to 1 in double"],
)
def test_pixels_may_be_arranged_and_scaled_in_several_ways(same: Any, archive: Path) -> None:
    np.testing.assert_array_equal(load(archive, x=same, y=Y).train.images[:, 0], X)


def test_pixels_may_be_bits_and_labels_text_or_whole_floats(archive: Path) -> None:
    bits = X > 99
    data = load(archive, images=bits, labels=np.array(["dog", "cat"])[Y])
    assert data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.train.images[:, 0], bits * 255)
    assert load(archive, x=X, y=Y * 10.0).classes == ("0", "10")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"foo": X}, "holds foo; it needs x_train and y_train, or train_images and train_labels"),
        ({"x_train": X}, "holds x_train; it needs x_train and y_train"),
        ({"x_test": X, "y_test": Y}, "has no training images"),
        ({"x": X, "y": Y[:-1]}, "x has 24 images, and y has 23 labels"),
        ({"x": X, "y": Y + 0.5}, "y has labels that are not whole numbers"),
        ({"x": X, "y": Y + np.nan}, "y has labels that are not whole numbers"),
        ({"x": X, "y": np.eye(2)[Y]}, "y has the shape [24, 2]; each image has one label: (N,) or (N, 1)"),
        ({"x": X, "y": Y.astype("S")}, "y has the type |S21; labels are whole numbers or text"),
        ({"x": X - 1.0, "y": Y}, "x has pixels below 0"),
        ({"x": X * np.nan, "y": Y}, "x has pixels below 0, or that are not numbers"),
        ({"x": X.astype(np.int64) * 257, "y": Y}, "x has pixels up to "),
        ({"x": X + 0.5, "y": Y}, "they are whole numbers from 0 to 255, or 0 to 1"),
        ({"x": X.astype(str), "y": Y}, "x has the type <U3; pixels are numbers"),
        ({"x": X[:, :, :5].reshape(24, 30), "y": Y}, "x has the shape [24, 30]: the images are (N, H, W)"),
        ({"x": np.zeros((24, 5, 5, 4), np.uint8), "y": Y}, "x has the shape [24, 5, 5, 4]: the images are (N, H, W)"),
        ({"x": np.zeros((24, 3, 5, 3), np.uint8), "y": Y}, "x has the shape [24, 3, 5, 3]: both ends may be channels"),
    ],
)  # fmt: skip
def test_bad_arrays_are_refused_in_one_line(arrays: dict[str, Any], message: str, archive: Path) -> None:
    with pytest.raises(ValueError, match=r"^path=.*some.npz: ") as caught:
        load(archive, **arrays)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("names", [("x", "y"), ("y", "x")])
def test_pickles_are_never_loaded(names: tuple[str, str], archive: Path) -> None:
    arrays = {names[0]: np.array([Evil()], dtype=object), names[1]: Y}
    with pytest.raises(ValueError, match=r"contains pickled objects, which could run any code; they are not loaded"):
        load(archive, **arrays)


def test_files_that_are_no_archives_are_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match=rf"^path={archive}: no such file$"):
        load(archive)
    file = io.BytesIO()
    np.save(file, X)
    for content in (b"", b"hello", file.getvalue(), b"\x80\x04K\x01."):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=r"path=.*: is not an archive of arrays \(.npz\), or is incomplete$"):
            load(archive)
    load(archive, x=X, y=Y)
    damaged = bytearray(archive.read_bytes())
    damaged[200] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"path=.*: is damaged: "):
        load(archive)


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("x", "y"):
            file.writestr(f"{name}.npy", bytes(10**6))
    monkeypatch.setattr(resources, "free_memory", lambda device: 10**6)
    with pytest.raises(ValueError, match=r"some.npz: needs 4.0 MB of memory .* 1.0 MB are free on the cpu"):
        load(archive)
