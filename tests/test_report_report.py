"""The report is written as a set of files, and its short form fits where it is printed."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.sweeps import KINDS, sweep

from mnist_exp import cli
from mnist_exp.report import figures, report
from mnist_exp.system import errors

FAR_FROM_READING = ("sweep", "training", "fused", "build", "data")  # rooms that the report must not need
LIBRARIES = ("torch", "torchvision")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which take a second."""
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("report") / "failed", **KINDS["failed"])


def test_report_is_a_set_of_files(folder: Path) -> None:
    text = report.write([folder])
    assert {"results.csv", "report.md", "report.html", "plots"} <= set(os.listdir(folder))
    assert not list(folder.rglob("*.tmp"))
    assert "13 of 20 runs completed" in text
    assert text.endswith(f"\n{folder / 'report.html'}")
    drawn = sorted(path.name for path in (folder / "plots").iterdir())
    assert "leaderboard.png" in drawn
    page = (folder / "report.html").read_text()
    for theme in ("light", "dark"):
        assert page.count(f'<img class="{theme}" alt="') == len(drawn)
    linked = re.findall(r"!\[.+\]\(plots/(.+)\)", (folder / "report.md").read_text())
    assert sorted(linked) == drawn


@pytest.mark.usefixtures("no_figures")
def test_arm_has_the_same_label_in_every_file(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"model.max_norm": [None, 1.5]}, range(3))
    [leader] = re.findall(r"^(.*) leads with", report.write([folder]), re.MULTILINE)
    assert leader in ("max_norm=null", "max_norm=1.5")
    assert f"**`{leader}` leads" in (folder / "report.md").read_text()
    assert f"<code>{leader}</code> leads" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("no_figures")
def test_several_sweeps_have_one_report(folder: Path, tmp_path: Path) -> None:
    other = sweep(tmp_path / "other", **KINDS["one_seed"])
    before = set(os.listdir(other))
    report.write([folder, other], tmp_path / "both")
    assert set(os.listdir(tmp_path / "both")) == {"results.csv", "report.md", "report.html", "plots"}
    assert set(os.listdir(other)) == before


@pytest.mark.usefixtures("no_figures")
def test_name_of_a_folder_need_not_be_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    report.write([sweep(folder, **KINDS["one_seed"])])
    assert b"\\udcff" in (folder / "report.html").read_bytes()


@pytest.mark.usefixtures("no_figures")
def test_a_report_by_another_measure_lies_beside_the_report_by_accuracy(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, range(3), images=500)
    report.write([folder])
    before = (folder / "report.html").read_bytes()
    assert report.write([folder], by="log_loss").endswith(f"\n{folder / 'by_log_loss' / 'report.html'}")
    assert report.write([folder], by="accuracy:3").endswith(f"\n{folder / 'by_accuracy_3' / 'report.html'}")
    assert set(os.listdir(folder / "by_log_loss")) == {"results.csv", "report.md", "report.html", "plots"}
    assert (folder / "report.html").read_bytes() == before
    assert (folder / "by_log_loss" / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()
    assert 'href="../0/"' in (folder / "by_log_loss" / "report.html").read_text()
    assert report.write([folder], tmp_path / "out", "log_loss").endswith(f"\n{tmp_path}/out/by_log_loss/report.html")


# The command


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("no_figures")
def test_sweep_named_twice_counts_once_and_a_pipe_gets_plain_whole_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    report.write_and_print([folder, folder])
    assert capsys.readouterr().out == report.write([folder]) + "\n"


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("variable", "value"), [("TERM", "xterm"), ("TERM", "dumb"), ("NO_COLOR", "1")])
def test_terminal_gets_its_width_and_perhaps_colour(
    variable: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, setting in (("TERM", "xterm"), ("COLUMNS", "60"), (variable, value)):
        monkeypatch.setenv(name, setting)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    report.write_and_print([folder])
    text = terminal.getvalue()
    assert ("\x1b" in text) is ((variable, value) == ("TERM", "xterm"))
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    assert lines[-1] == str(folder / "report.html")
    assert max(map(len, lines[:-1])) <= (80 if value == "dumb" else 60)


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop, errors.in_one_line():
        cli.run("mnist-exp", ["report", *arguments])
    line = str(stop.value.code)
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


@pytest.mark.usefixtures("no_figures")
def test_impossible_commands_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    assert "FOLDER" in refused()
    assert "--ou7" in refused(str(folder), "--ou7=x")
    assert "--out DIR" in refused(str(folder), str(sweep(tmp_path / "other", **KINDS["one_seed"])))
    assert "absent: no such folder" in refused(str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(str(folder), "--out", str(tmp_path / "file"))
    assert "--by loss: no such measure, did you mean log_loss?" in refused(str(folder), "--by", "loss")
    assert f"report {folder} --predict computes" in refused(str(folder), "--by", "log_loss")


def test_report_needs_nothing_that_runs_a_sweep(tmp_path: Path) -> None:
    """It reads folders that came from another machine."""
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])
    code = f"""
import sys
from mnist_exp.report import figures, report
figures.draw = lambda *_: {{}}
from pathlib import Path
report.write_and_print([Path(sys.argv[1])])
ours = {{f"mnist_exp.{{room}}" for room in {FAR_FROM_READING}}}
sys.exit(", ".join(ours.union({LIBRARIES}).intersection(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_reading_needs_no_library_of_pages_or_figures() -> None:
    code = (
        "import sys, mnist_exp.report.sentences; assert not {'jinja2', 'rich', 'matplotlib', 'scipy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
