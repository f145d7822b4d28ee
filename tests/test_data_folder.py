"""Images in folders, against torchvision's ImageFolder."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.own_data import folders, noise, png
from torchvision.datasets import ImageFolder

from mnist_exp.data.folder import folder
from mnist_exp.data.images import NO_IMAGES, DataSet

GRAY = noise()[0][0]


def load(top: Path, size: int | None = None, skip_broken: bool = False) -> DataSet:
    """The folder's data set; the cache lies beside it."""
    return folder(str(top), str(top.parent / "root"), size, "pad", "auto", skip_broken)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folders(tmp_path / "photos", *noise(26, classes=3, size=(5, 7, 3)))


def test_the_images_are_those_of_torchvision(photos: Path) -> None:
    ours, theirs = load(photos), ImageFolder(str(photos))
    assert (ours.name, ours.classes) == ("photos", tuple(theirs.classes))
    by_name = sorted(theirs.samples, key=lambda sample: int(Path(sample[0]).stem))
    assert ours.train.labels.tolist() == [label for _, label in by_name]
    for image, (path, _) in zip(ours.train.images, by_name, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(theirs.loader(path)))
    assert ours.test is NO_IMAGES


def test_parts_lie_in_folders_of_common_names(tmp_path: Path) -> None:
    parts = {"Train": noise(seed=1), "validation": noise(8, seed=2), "test": noise(6, seed=3)}
    for name, part in parts.items():
        folders(tmp_path / "set" / name, *part)
    data = load(tmp_path / "set")
    for found, (images, labels) in zip((data.train, data.val, data.test), parts.values(), strict=True):
        np.testing.assert_array_equal(found.images[:, 0], images)
        np.testing.assert_array_equal(found.labels, labels)


def test_classes_and_images_are_in_natural_order(tmp_path: Path) -> None:
    images, _ = noise(4)
    for image, name in zip(images, ("10/a2.png", "9/a10.png", "10/sub/b.png", "9/a1.png"), strict=True):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(png(image))
    data = load(tmp_path / "set")
    assert data.classes == ("9", "10")
    np.testing.assert_array_equal(data.train.images[:, 0], images[[3, 0, 1, 2]])
    assert data.train.labels.tolist() == [0, 1, 0, 1]


def test_names_may_have_any_characters_and_links_are_followed(tmp_path: Path) -> None:
    top = folders(tmp_path / "a set, ünïcode $x 'y'", *noise())
    elsewhere = folders(tmp_path / "elsewhere", *noise(4, classes=1))
    (top / "猫").symlink_to(elsewhere / "0")
    os.rename(top / "1", os.fsencode(top) + b"/not \xff utf-8")
    data = load(top)
    assert len(data.train.images) == 28
    assert len(data.classes) == 3
    assert data == load(top)._replace(train=data.train, test=data.test, val=data.val)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    os.rename(folders(tmp_path / "set", *noise()) / "1", tmp_path / "set" / "train")
    assert load(tmp_path / "set").classes == ("0", "train")


def test_the_log_names_other_files(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "0" / "notes.txt").write_text("")
    (photos / "cover.png").write_bytes(png(GRAY))
    (photos / "0" / ".DS_Store").write_text("")
    with caplog.at_level("INFO"):
        assert len(load(photos).train.images) == len(load(photos).train.images) == 26
    assert caplog.messages == ["photos: other files are left out: 0/notes.txt, cover.png"] * 2  # each start says it


def no_folder(top: Path) -> None:
    shutil.rmtree(top)


def a_file(top: Path) -> None:
    shutil.rmtree(top)
    top.write_text("")


def no_classes(top: Path) -> None:
    for path in top.iterdir():
        shutil.rmtree(path)
    (top / "1.png").write_bytes(png(GRAY))


def one_image(top: Path) -> None:
    (top / "emu").mkdir()
    (top / "emu" / "x.png").write_bytes(png(GRAY))


def no_image(top: Path) -> None:
    (top / "emu").mkdir()
    (top / "emu" / "x.heic").write_bytes(b"x")


def loop(top: Path) -> None:
    (top / "0" / "again").symlink_to("..")


def broken_link(top: Path) -> None:
    (top / "0" / "x.png").symlink_to("nowhere.png")


def parts_and_classes(top: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(top / "0", top / name / "0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_folder, "no such folder"),
        (a_file, "is a file, not a folder"),
        (no_classes, "holds no class folders: the images of a class lie in a folder with its name, as cat/1.png"),
        (one_image, "each class needs 2 training images or more: emu has 1"),
        (no_image, "each class needs 2 training images or more: emu has 0"),
        (loop, "0/again: a link that leads back to a folder around it; remove it"),
        (broken_link, "1 of 27 images can't be read: 0/x.png (No such file or directory); data.skip_broken=true"),
        (parts_and_classes, "holds 0, 1, 2, test, train; it should hold either class folders, or train, val and test"),
    ],
)
def test_bad_folders_are_refused_in_one_line(photos: Path, change: Any, message: str) -> None:
    change(photos)
    with pytest.raises(ValueError, match=r"^path=") as caught:
        load(photos, size=6)
    assert f"path={photos}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_files_can_be_skipped(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "1" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 26"):
        load(photos)
    with caplog.at_level("INFO"):
        assert len(load(photos, skip_broken=True).train.images) == 25
    assert "photos: left out 1 of 26 images, which can't be read: 1/1.png (empty)" in caplog.messages


def test_a_size_makes_all_images_equal(photos: Path) -> None:
    assert load(photos, size=9).train.images.shape == torch.Size([26, 3, 9, 9])
    assert load(photos, size=9).preparation == "pad"


def test_an_empty_class_folder_is_noticed_after_the_images_were_cached(photos: Path) -> None:
    load(photos, size=6)
    (photos / "0" / "drafts").mkdir()
    assert load(photos, size=6).classes == ("0", "1", "2")
    (photos / "emu").mkdir()
    with pytest.raises(ValueError, match="each class needs 2 training images or more: emu has 0"):
        load(photos, size=6)
