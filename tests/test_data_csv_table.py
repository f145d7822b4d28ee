"""Tables of pixels and of file names, against pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.own_data import folders, noise, png, table

from mnist_exp.data.csv_table import csv_table
from mnist_exp.data.images import DataSet
from mnist_exp.system import resources

X, Y = noise()


def load(path: Path, **choices: Any) -> DataSet:
    keys: dict[str, Any] = {"test_path": None, "val_path": None, "label": "label", "image": None, "shape": None}
    keys |= {"size": None, "fit": "pad", "color": "auto", "skip_broken": False}
    return csv_table(str(path), root=str(path.parent / "root"), **(keys | choices))


def test_kaggle_s_layout_is_read_as_pandas_does(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", X, Y * 9 + 1)
    test, val = table(tmp_path / "test.csv", *noise(4, seed=1)), None
    frame = pd.read_csv(train)
    data = load(train)
    assert (data.name, data.classes) == (tmp_path.name, ("1", "10"))
    np.testing.assert_array_equal(data.train.images.flatten(1), frame.drop(columns="label").to_numpy())
    np.testing.assert_array_equal(data.train.labels, (frame["label"] == 10).astype(int))
    with pytest.raises(ValueError, match="the test images have the class 0, which the training images lack"):
        load(train, test_path=str(test), val_path=val)


def test_each_part_may_have_its_file(tmp_path: Path) -> None:
    parts = {name: noise(8 + seed, seed=seed) for seed, name in enumerate(("train", "test", "val"))}
    paths = {name: table(tmp_path / f"{name}.csv", *part) for name, part in parts.items()}
    data = load(paths["train"], test_path=str(paths["test"]), val_path=str(paths["val"]))
    for name, (images, labels) in parts.items():
        np.testing.assert_array_equal(getattr(data, name).images[:, 0], images)
        np.testing.assert_array_equal(getattr(data, name).labels, labels)


@pytest.mark.parametrize("place", [0, 17, 36])
@pytest.mark.parametrize("has_header", [True, False])
def test_the_label_may_stand_anywhere(place: int, has_header: bool, tmp_path: Path) -> None:
    frame = pd.DataFrame(X.reshape(24, -1)).rename(columns=str)
    frame.insert(place, "digit", Y)
    frame.to_csv(tmp_path / "some.csv", header=has_header, index=False)
    data = load(tmp_path / "some.csv", label="digit" if has_header else str(place))
    np.testing.assert_array_equal(data.train.images[:, 0], X)
    np.testing.assert_array_equal(data.train.labels, Y)
    if not (has_header or place):
        assert load(tmp_path / "some.csv").sha256 == data.sha256  # the first column


def test_labels_may_be_text_or_floats_that_are_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame(X.reshape(24, -1)).rename(columns=str)
    frame["label"] = np.array(['dog, "big"', "cat"])[Y]
    frame.to_csv(tmp_path / "text.csv", index=False)
    assert load(tmp_path / "text.csv").classes == ("cat", 'dog, "big"')
    frame.assign(label=Y * 1.0).to_csv(tmp_path / "floats.csv", index=False)
    assert load(tmp_path / "floats.csv").classes == ("0", "1")


def test_excel_s_mark_and_line_ends_don_t_matter(tmp_path: Path) -> None:
    plain = table(tmp_path / "plain.csv", X, Y)
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    assert load(tmp_path / "excel.csv").sha256 == load(plain).sha256


def test_a_shape_arranges_the_pixels(tmp_path: Path) -> None:
    path = table(tmp_path / "some.csv", X, Y)
    for shape, full in (([4, 9], (1, 4, 9)), ([3, 3, 4], (3, 3, 4))):
        np.testing.assert_array_equal(load(path, shape=shape).train.images, X.reshape(24, *full))
    assert load(path, size=4).train.images.shape == (24, 1, 4, 4)


def test_a_column_may_name_image_files(tmp_path: Path) -> None:
    folders(tmp_path / "photos", X, Y)
    lines = [f"{label},photos/{label}/{number}.png" for number, label in enumerate(Y)]
    (tmp_path / "photos.csv").write_text("\n".join(["kind,file", *lines]))
    data = load(tmp_path / "photos.csv", image="file", label="kind")
    np.testing.assert_array_equal(data.train.images[:, 0], X)
    np.testing.assert_array_equal(data.train.labels, Y)
    (tmp_path / "photos/0/0.png").write_bytes(png(X[1]))
    assert load(tmp_path / "photos.csv", image="file", label="kind").sha256 != data.sha256
    (tmp_path / "photos/0/0.png").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 24 images can't be read: .*photos/0/0.png \(No such file or directory\)"
    ):
        load(tmp_path / "photos.csv", image="file", label="kind")
    assert len(load(tmp_path / "photos.csv", image="file", label="kind", skip_broken=True).train.images) == 23


HEAD = "label,a,b,c,d\n"


@pytest.mark.parametrize(
    ("text", "choices", "message"),
    [
        (None, {}, "some.csv: no such file"),
        ("", {}, "some.csv: is empty"),
        ("a,b,c\n1,2,3\n", {}, "has no column label; data.label names one of a, b, c"),
        ("label;a;b;c;d\n1;2;3;4;5\n", {}, "has a single column; commas separate columns"),
        (HEAD, {"label": "kind"}, "has no column kind; data.label names one of label, a, b, c, d"),
        (HEAD, {"image": "file"}, "has no column file; data.image names one of label, a, b, c, d"),
        ("1,2,3,4,5\n", {"label": "9"}, "has no column 9; data.label names one of 0, 1, 2, 3, 4"),
        (HEAD + "1,2,3,4,5\n1,2,3,4\n", {}, "row 2 has 4 columns, not 5"),
        (HEAD + "1,2,3,4,5\n1,2,3,4,5,6\n", {}, "row 2 has 6 columns, not 5"),
        (HEAD + "1,2,3,4,5\n1.5,2,3,4,5\n", {}, "row 2: the label 1.5 is not a whole number"),
        (HEAD + ",2,3,4,5\n", {}, "row 1: the label is empty"),
        (HEAD + "x" * 101 + ",2,3,4,5\n", {}, "row 1: the label has more than 100 characters"),
        (HEAD + "1,2,3,256,5\n", {}, "row 1, column 4: 256 is not a pixel, a whole number from 0 to 255"),
        (HEAD + "1,2,3,-1,5\n", {}, "row 1, column 4: -1 is not a pixel"),
        (HEAD + "1,2,3,0.5,5\n", {}, "row 1, column 4: 0.5 is not a pixel"),
        (HEAD + "1,2,3,,5\n", {}, "row 1, column 4: an empty cell is not a pixel, a whole number from 0 to 255"),
        (HEAD + "1,2,3,x.png,5\n", {}, "x.png is not a pixel, a whole number from 0 to 255; data.image=COLUMN says"),
        ("label,a,b,c\n1,2,3,4\n", {}, "the 3 pixel columns are not a square; data.shape=[H,W] or [C,H,W] arranges"),
        (HEAD + "1,2,3,4,5\n", {"shape": [3, 2]}, "the 4 pixel columns are not 3 x 2; data.shape="),
        ("label\n1\n", {}, "the 0 pixel columns are not a square"),
        (HEAD, {}, "has no training images"),
        ("file,label\na.png,1\nb.png\n", {"image": "file"}, "line 3: has 1 columns, not 2"),
        (HEAD + "\udcff\udcff,1,2,3,4\n", {}, "is not text in UTF-8"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_in_one_line(
    text: str | None, choices: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "some.csv"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"^path=.*some.csv: ") as caught:
        load(path, **choices)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "some.csv", X, Y)
    monkeypatch.setattr(resources, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match=r"some.csv: needs .*the pixels in the files, at most"):
        load(path)
