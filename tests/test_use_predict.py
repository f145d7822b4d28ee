"""The command `predict`: what it prints, what it writes, and what it says about files that are no pictures."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from helpers import digits_run
from PIL import Image

from benchmarks import predict as benchmark
from mnist_exp import build, cli
from mnist_exp.data import sources
from mnist_exp.system.errors import ConfigError
from mnist_exp.use import predict, sheet, trained_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run.train(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three digits, of which one is in a folder."""
    images = sources.digits("").test.images.numpy()
    (tmp_path / "digits" / "more").mkdir(parents=True)
    for name, image in zip(("a.png", "b.bmp", "more/c.png"), images, strict=False):
        Image.fromarray(image[0]).save(tmp_path / "digits" / name)
    (tmp_path / "digits" / "notes.txt").write_text("no picture")
    (tmp_path / "digits" / ".hidden.png").write_text("no picture")
    (tmp_path / "digits" / ".thumbnails").mkdir()
    (tmp_path / "digits" / ".thumbnails" / "a.png").write_text("no picture")
    os.symlink(tmp_path / "digits", tmp_path / "digits" / "loop")
    return tmp_path / "digits"


def code(*arguments: object) -> int:
    """The exit code of `mnist-exp predict`."""
    try:
        cli.run("mnist-exp", ["predict", *map(str, arguments)])
    except SystemExit as end:
        return int(str(end.code))
    return 0


def test_a_folder_gives_a_table_in_the_order_of_the_names(trained: Path, pictures: Path, capsys: Capture) -> None:
    assert code(trained, pictures) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["file", "class", "probability", "runner-up"]
    assert [line.split()[0] for line in lines] == [str(pictures / name) for name in ("a.png", "b.bmp", "more/c.png")]
    expected = trained_run.load(trained).predict(sources.digits("").test.images[:3])
    for line, prediction in zip(lines, expected, strict=True):
        words = line.split()
        assert (words[1], words[4]) == (prediction.class_name, prediction.runner_up)
        assert float(words[2]) == pytest.approx(100 * prediction.probability, abs=0.05)
    assert err == ""


def test_numbers_in_names_are_sorted_by_their_value(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    for number in (10, 9, 100):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    assert code(trained, tmp_path, "--csv") == 0
    assert list(pd.read_csv(io.StringIO(capsys.readouterr().out))["file"]) == [
        str(tmp_path / name) for name in ("9.png", "10.png", "100.png")
    ]


def test_csv_and_json_hold_all_digits_of_the_probabilities(trained: Path, pictures: Path, capsys: Capture) -> None:
    run = trained_run.load(trained)
    expected = run.predict(sources.digits("").test.images[:3])
    assert code(trained, pictures, "--csv") == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table) == list(predict.COLUMNS)
    assert list(table["class"].astype(str)) == [each.class_name for each in expected]
    assert list(table["probability"]) == pytest.approx([each.probability for each in expected], rel=1e-5)
    assert list(table["runner_up_probability"]) == pytest.approx([each[3] for each in expected], rel=1e-5)
    assert code(trained, pictures, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["runner_up"] for row in rows] == [each.runner_up for each in expected]
    for row, each in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(each.probabilities, rel=1e-5)
        assert row["note"] is None


def test_files_that_are_no_pictures_are_told_and_the_others_go_on(
    trained: Path, pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    Image.new("L", (60, 40), 230).save(tmp_path / "empty.png")
    files = [pictures / "notes.txt", tmp_path / "empty.png", tmp_path / "gone\n.png", pictures / "a.png"]
    assert code(trained, *files, "--csv") == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"{files[0]}: no image of a known format",
        f"{files[1]}: nothing is written on it",
        f"{tmp_path}/gone\\n.png: No such file or directory",
    ]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [bool(row["class"]) for row in rows] == [False, False, False, True]
    assert [bool(row["note"]) for row in rows] == [True, True, True, False]
    assert code(trained, *files, "--json") == 1
    assert [row["probabilities"] is None for row in json.loads(capsys.readouterr().out)] == [True, True, True, False]
    assert code(trained, *files) == 1
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:4]] == [["-"]] * 3


def test_several_figures_are_told_and_the_largest_is_read(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    page = np.full((100, 200), 255, np.uint8)
    page[20:80, 20:40] = page[30:70, 120:140] = 0
    Image.fromarray(page).save(tmp_path / "two.png")
    assert code(trained, tmp_path / "two.png") == 0
    assert capsys.readouterr().err == f"{tmp_path / 'two.png'}: 2 figures; the largest is read\n"
    assert code(trained, tmp_path / "two.png", "--raw") == 0
    assert capsys.readouterr().err == ""


def test_raw_is_the_whole_picture(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    digit = sources.digits("").test.images[0, 0].numpy()
    picture = np.pad(np.kron(255 - digit, np.ones((30, 30), np.uint8)), 200, constant_values=255)
    Image.fromarray(picture).save(tmp_path / "digit.png")
    run = trained_run.load(trained)
    found, whole = (run.predict(tmp_path / "digit.png", way) for way in (None, "pad"))
    for arguments, expected in (((), found), (("--raw",), whole), (("--prepare", "pad"), whole)):
        assert code(trained, tmp_path / "digit.png", "--json", *arguments) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["probability"] == pytest.approx(expected.probability)
    assert found.class_name == run.predict(digit).class_name
    assert (whole.image == np.asarray(Image.fromarray(picture).resize((8, 8)))).all()


def test_show_writes_what_the_network_saw(trained: Path, pictures: Path, tmp_path: Path) -> None:
    assert code(trained, pictures, "--show", tmp_path / "seen.png") == 0
    with Image.open(tmp_path / "seen.png") as image:
        seen = np.asarray(image.convert("L"))
    times = sheet.SIDE // 8
    first = sources.digits("").test.images[0, 0].numpy().repeat(times, 0).repeat(times, 1)
    edge = sheet.GAP + (sheet.SIDE - 8 * times) // 2
    assert (seen[edge : edge + 8 * times, edge : edge + 8 * times] == first).all()
    caption = seen[sheet.GAP + sheet.SIDE : sheet.GAP + sheet.SIDE + sheet.CAPTION]
    assert (caption < 128).any()


def test_a_sheet_has_a_limit_and_a_format(trained: Path, pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    many = [pictures / "a.png"] * (sheet.MOST + 1)
    assert code(trained, *many, "--show", tmp_path / "seen.png") == 0
    assert capsys.readouterr().err == f"{tmp_path / 'seen.png'}: the first 400 of 401 pictures\n"
    for name in ("seen.xyz", "seen"):
        with pytest.raises(ConfigError, match=rf"{name}: Pillow writes no picture with this ending; \.png is one"):
            code(trained, pictures, "--show", tmp_path / name)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ConfigError, match=r"seen\.png: there is nothing to show"):
        code(trained, pictures / "notes.txt", "--show", tmp_path / "seen.png")
    tile = sheet.Tile(np.zeros((3, 300, 200), np.uint8), "a very long name of a picture.png", "a very long answer" * 9)
    sheet.write([tile], tmp_path / "seen.jpg")
    with Image.open(tmp_path / "seen.jpg") as image:
        assert image.width == sheet.SIDE + 2 * sheet.GAP


def test_a_sheet_has_the_letters_of_other_languages(tmp_path: Path) -> None:
    for name, text in (("missing.png", "\ue000"), ("u.png", "\u00fc"), ("l.png", "\u0142"), ("zh.png", "\u0436")):
        sheet.write([sheet.Tile(np.zeros((1, 8, 8), np.uint8), text, "")], tmp_path / name)
    pictures = [(tmp_path / name).read_bytes() for name in ("missing.png", "u.png", "l.png", "zh.png")]
    assert len(set(pictures)) == 4


def test_what_can_not_be_done_is_one_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for arguments, message in (
        ((trained, tmp_path / "none"), r"none: no picture in this folder$"),
        ((tmp_path / "none", "a.png"), r"none: no checkpoints.best\.pt: not the folder of a run"),
        ((trained, "a.png", "--prepare", "tall"), "argument --prepare: invalid choice: 'tall'"),
        ((trained, "a.png", "--csv", "--json"), "argument --json: not allowed with argument --csv"),
        ((trained,), "the following arguments are required: FILE"),
    ):
        with pytest.raises(ConfigError, match=message):
            code(*arguments)


def test_a_probability_is_never_certain() -> None:
    shown = [predict.percent(p) for p in (1.0, 0.9996, 0.9994, 0.5, 0.0006, 0.0004, 0.0, None)]
    assert shown == [">99.9 %", ">99.9 %", "99.9 %", "50.0 %", "0.1 %", "<0.1 %", "<0.1 %", ""]


@pytest.mark.slow
def test_digits_on_paper_are_read_as_well_as_those_of_mnist(tmp_path: Path) -> None:
    folder = digits_run.train(
        tmp_path, "data=mnist", f"data.root={ROOT / 'data'}", "augmentation=rotate_crop", "epochs=2"
    )
    run = trained_run.load(folder)
    images, labels = (tensor[:400].numpy() for tensor in build.source(run.config).test)
    for paper in benchmark.PAPERS:
        facts = benchmark.measure(run, images[:, 0], labels, paper)
        assert facts["originals"] > 0.9
        assert facts["lost"] <= 0.01, facts
        assert facts["shrunk"] < 0.5
        assert (facts["none"], facts["several"]) <= (0, 2)


@pytest.mark.slow
def test_every_test_image_as_a_file_is_read_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    folder = digits_run.train(tmp_path, "data=mnist", f"data.root={ROOT / 'data'}", "epochs=1")
    run = trained_run.load(folder)
    images, _ = build.source(run.config).test
    (tmp_path / "digits").mkdir()
    for number, image in enumerate(images[:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / "digits" / f"{number:05}.png")
    capsys.readouterr()
    assert code(folder, tmp_path / "digits", "--csv") == 0
    table: Any = pd.read_csv(io.StringIO(capsys.readouterr().out))
    probabilities = run.probabilities(images)
    assert (torch.tensor(table["class"].to_numpy()) == probabilities.argmax(1)).all()
    assert len(table) == 10_000
    shutil.rmtree(tmp_path / "digits")
