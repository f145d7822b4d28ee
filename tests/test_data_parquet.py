"""Parquet files in Hugging Face's layout."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.own_data import noise, parquet, png

from mnist_exp.data import parquet as source
from mnist_exp.data.images import DataSet

X, Y = noise()


def load(path: Path, **choices: Any) -> DataSet:
    keys = {"label": "label", "image": "image", "size": None, "fit": "pad", "color": "auto", "skip_broken": False}
    return source.parquet(str(path), root=str(path.parent / "root"), **(keys | choices))


def test_parts_and_shards_and_class_names(tmp_path: Path) -> None:
    names = {"train-00001-of-00002": 1, "train-00000-of-00002": 0, "validation-00000-of-00001": 2, "test-0": 3}
    for name, seed in names.items():
        parquet(tmp_path / "set" / f"{name}.parquet", *noise(8, seed=seed), names=("zebra", "ant"))
    data = load(tmp_path / "set")
    assert (data.name, data.classes) == ("set", ("zebra", "ant"))
    np.testing.assert_array_equal(data.train.images[:, 0], np.concatenate([noise(8, seed=seed)[0] for seed in (0, 1)]))
    np.testing.assert_array_equal(data.val.images[:, 0], noise(8, seed=2)[0])
    np.testing.assert_array_equal(data.test.images[:, 0], noise(8, seed=3)[0])
    np.testing.assert_array_equal(data.test.labels, noise(8)[1])


def test_parts_may_be_folders_and_a_file_may_stand_alone(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("test", 1)):
        parquet(tmp_path / "set" / part / "0000.parquet", *noise(seed=seed))
    np.testing.assert_array_equal(load(tmp_path / "set").test.images[:, 0], noise(seed=1)[0])
    data = load(parquet(tmp_path / "some.parquet", X, Y * 10))
    assert (data.name, data.classes, len(data.test.images)) == ("some", ("0", "10"), 0)


def test_other_columns_and_types(tmp_path: Path) -> None:
    table = pa.table({"img": [png(image) for image in X], "kind": np.array(["dog", "cat"])[Y].tolist()})
    pq.write_table(table, tmp_path / "some.parquet")
    data = load(tmp_path / "some.parquet", image="img", label="kind")
    assert data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.train.images[:, 0], X)
    np.testing.assert_array_equal(data.train.labels, 1 - Y)


def tables() -> list[tuple[pa.Table, str]]:
    image = {"image": [png(X[0])] * 4}
    two = [0, 1, 0, 1]
    names = {"huggingface": '{"info": {"features": {"label": {"names": ["a", "b"]}}}}'}
    return [
        (pa.table(image | {"x": two}), "some.parquet: has no column label; data.label names one of image, x"),
        (pa.table({"x": two, "label": two}), "some.parquet: has no column image; data.image names one of x, label"),
        (pa.table(image | {"label": [0.5, 1, 0, 1]}), "the labels are of type double; they should be whole numbers or"),
        (pa.table(image | {"label": [0, None, 0, 1]}), "some.parquet, row 2: has no label"),
        (
            pa.table(image | {"label": [0, 1, 0, -1]}).replace_schema_metadata(names),
            "some.parquet, row 4: the label -1 is not one of the 2 classes",
        ),
        (
            pa.table({"image": two, "label": two}),
            "the images are of type int64; they should be bytes, or a struct with",
        ),
        (pa.table({"image": [*image["image"][:3], None], "label": two}), "some.parquet, row 4: has no image"),
        (
            pa.table({"image": [*image["image"][:3], b""], "label": two}),
            "1 of 4 images can't be read: some.parquet, row 4",
        ),
    ]


@pytest.mark.parametrize(("table", "message"), tables(), ids=lambda value: value if isinstance(value, str) else "")
def test_bad_files_are_refused_in_one_line(table: pa.Table, message: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "some.parquet")
    with pytest.raises(ValueError, match=r"^path=.*some.parquet: ") as caught:
        load(tmp_path / "some.parquet")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        load(tmp_path / "some.parquet")
    (tmp_path / "set").mkdir()
    with pytest.raises(ValueError, match=r"holds no .parquet files"):
        load(tmp_path / "set")
    (tmp_path / "set/train.parquet").write_text("hello")
    with pytest.raises(ValueError, match=r"train.parquet: is not a Parquet file, or is damaged: "):
        load(tmp_path / "set")
    parquet(tmp_path / "set/extra.parquet", X, Y)
    with pytest.raises(ValueError, match=r"extra.parquet: belongs to no part, as train-0.parquet"):
        load(tmp_path / "set")


def test_the_package_that_it_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "some.parquet", X, Y)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pyarrow: not installed; type pip install 'mnist_exp\[parquet\]'"):
        load(path)
