"""The status of a sweep in words."""

import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from helpers.sweeps import edit_ledger, sweep

from mnist_exp import cli
from mnist_exp.report import status, status_text
from mnist_exp.report.status import ALIVE, GONE, OVER, Stage, Status, Worker
from mnist_exp.store.progress import EVENT, Progress
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files, program

GRID = {"optimizer": ["adam", "sgd"]}
COMMAND = "python train.py -m optimizer=adam,sgd seed=0,1,2,3,4"


@pytest.fixture(autouse=True)
def as_mnist_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are suggested as those of mnist-exp."""
    monkeypatch.setenv(program.COMMAND, "mnist-exp train")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _text(folder: str) -> str:
    return "\n".join(line.text for line in status_text.lines(status.read(folder)))


def test_a_sweep_that_was_killed(here: Path) -> None:
    spoiled = {2: "failed", 3: "interrupted", 6: "running", 7: "pending", 8: "pending", 9: "pending"}
    sweep(Path("s"), GRID, spoiled=spoiled)
    assert (
        _text("s")
        == f"""\
s
{COMMAND}

4 of 10 runs completed, 3 waiting, 2 stopped, 1 failed
Nobody works on it.

Failed
  #2 optimizer=adam seed=2: the loss became nan at epoch 3, step 7: a smaller optimizer.lr usually helps

Next
  mnist-exp train -m resume=s  goes on
  mnist-exp report s           reports on what is completed"""
    )


def test_a_sweep_that_a_command_works_on(here: Path) -> None:
    sweep(Path("s"), GRID, spoiled={9: "running"})
    (Path("s") / "9").mkdir()
    (Path("s") / "9" / "metrics.csv").write_text((Path("s") / "8" / "metrics.csv").read_text())
    _date_from(Path("s"), datetime.now().astimezone() - timedelta(seconds=200))
    with files.locked(Path("s") / SWEEP_LOCK):
        text = _text("s")
    assert "9 of 10 runs completed, 1 running\nA command works on it since " in text
    assert "\nThe last 9 runs ended at a rate of " in text
    assert "\nRunning\n  #9 optimizer=sgd seed=4  epoch 5 of 5  s/9\n" in text
    assert "resume" not in text


def test_a_command_that_is_ending(here: Path) -> None:
    sweep(Path("s"), GRID, spoiled={8: "interrupted", 9: "pending"})
    (Path("s") / ".stop").write_text("130")
    with files.locked(Path("s") / SWEEP_LOCK):
        text = _text("s")
    assert "The command that worked on it is ending: no further run starts.\n\nNext" in text
    assert "Nobody works on it." in _text("s")


def _date_from(folder: Path, start: datetime) -> None:
    """Let the events of a sweep follow one another by 10 seconds."""
    times = iter(start + timedelta(seconds=10 * number) for number in range(1000))

    def change(entry: dict[str, object]) -> None:
        introduces = entry.get("status") in (None, "pending")
        entry["time"] = (start if introduces else next(times)).isoformat()

    edit_ledger(folder, change)


def test_a_sweep_whose_runs_have_all_ended(here: Path) -> None:
    sweep(Path("s"), GRID, spoiled=dict.fromkeys(range(10), "failed"))
    text = _text("s")
    assert "\n0 of 10 runs completed, 10 failed\n" in text
    assert text.count("the loss became nan") == status_text.MOST_FAILURES
    assert "\n  and 5 more\n" in text
    assert text.endswith(
        "\nNext\n  mnist-exp train -m resume=s hydra.sweeper.retry_failed=true  runs the failed ones again"
    )


def test_a_resume_keeps_the_launcher_and_the_configs(here: Path) -> None:
    sweep(Path("s"), GRID, spoiled={0: "pending"})
    words = "-cd my --config-name=mine hydra/launcher=joblib hydra.launcher.n_jobs=3"
    edit_ledger(Path("s"), lambda entry: entry.update(command=f"{COMMAND} {words}") if "command" in entry else None)
    assert f"mnist-exp train -m {words} resume=s  goes on" in _text("s")
    facts = {"command": f"{COMMAND} {words}", "launcher": {}}
    edit_ledger(Path("s"), lambda entry: entry.update(facts) if "command" in entry else None)
    assert "mnist-exp train -m -cd my --config-name=mine resume=s  hands over what is left" in _text("s")


def test_a_search_and_what_comes_after_it(here: Path) -> None:
    sweep(Path("s/lr_search"), GRID, seeds=[0], spoiled={1: "pending"})
    facts = {"then": [["seed=1"]]}
    edit_ledger(Path("s/lr_search"), lambda entry: entry.update(facts) if "command" in entry else None)
    text = _text("s")
    assert "\nlearning-rate search: 1 of 2 runs completed, 1 waiting\n" in text
    assert "\nthen 1 run, with the rates that it chooses\n" in text
    assert "mnist-exp train -m resume=s   goes on" in text
    assert "mnist-exp report s/lr_search " in text


def _stage(workers: list[Worker], now: float, slurm: str | None = None) -> Status:
    event = EVENT.match(b'{"time": "2026-12-01T10:00:00+00:00", "job": 0, "status": "pending"}\n')
    assert event
    runs = [status.Run(0, Path("s"), Progress(event, event), status.WAITING)]
    session = {"command": "", "time": "2026-12-01T10:00:00+00:00", "slurm": {"job": slurm} if slurm else None}
    session["launcher"] = {}
    return Status(Path("s"), None, Stage(Path("s"), [session], runs, False, False, workers, now, {}), 0)  # type: ignore[list-item]


def test_workers_are_listed_with_those_at_work_first() -> None:
    now = time.time()
    workers = [
        Worker("node1-17-ab", "node1", None, now - 90, now - 240, GONE, 12),
        Worker("node2-52_3-0-cd", "node2", "52_3", now, now, ALIVE, 1),
        Worker("node3-17-ef", "node3", None, now, now - 60, OVER, 0),
    ]
    text = "\n".join(line.text for line in status_text.lines(_stage(workers, now)))
    clock = [f"{datetime.fromtimestamp(each):%H:%M}" for each in (now, now - 60)]
    at = clock[1] if datetime.fromtimestamp(now - 60).date() == datetime.now().date() else "another day"
    assert f"  node2, Slurm task 52_3  works since {clock[0]}" in text
    assert text.index("node2") < text.index("node3-17-ef") < text.index("node1-17-ab")
    assert f"ended at {at}" in text or at == "another day"
    assert "gone: no sign of life for 4 min  12 runs ended" in text
    assert "mnist-exp work s  works on it, on any machine that sees the folder" in text
    assert "Nobody" not in text


def test_tasks_that_wait_are_asked_for_at_slurm() -> None:
    text = "\n".join(line.text for line in status_text.lines(_stage([], time.time(), "52")))
    assert "Nobody works on it.\nIt was handed over to Slurm: squeue -j 52 says whether tasks wait." in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (95, "2 min"), (5000, "83 min"), (6000, "1.7 h"), (200_000, "2.3 days")],
)
def test_a_duration_has_two_digits(seconds: float, text: str) -> None:
    assert status_text.duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12.3, "12 a second"), (1.5, "1.5 a second"), (0.4, "24 a minute"), (0.001, "3.6 an hour"), (1e-4, "0.4 an hour")],
)
def test_a_rate_is_one_or_more_where_it_can_be(per_second: float, text: str) -> None:
    assert status_text._rate(per_second) == text


def test_hostile_text_is_escaped(here: Path) -> None:
    sweep(Path("s"), GRID, spoiled={0: "failed"})
    change = {"error": "\x1b[2J\nx"}
    edit_ledger(Path("s"), lambda entry: entry.update(change) if "error" in entry else None)
    assert "#0 optimizer=adam seed=0: \\x1b[2J\\nx\n" in _text("s")


def test_a_watch_in_a_pipe_has_a_line_for_each_change(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (sweep(Path(name), GRID, spoiled=spoiled) for name, spoiled in _PHASES.items())
    looks: Iterator[Path] = iter([one, one, two, three])
    read = status.read
    monkeypatch.setattr(status, "read", lambda target: read(str(next(looks))))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    cli.run("mnist-exp", ["status", "one", "--watch"])
    assert capsys.readouterr().out.splitlines() == [
        "8 of 10 runs completed, 2 waiting; nobody works on it",
        "9 of 10 runs completed, 1 waiting; nobody works on it",
        "10 of 10 runs completed",
    ]


_PHASES: dict[str, dict[int, str]] = {"one": {8: "pending", 9: "pending"}, "two": {9: "pending"}, "three": {}}


def test_a_watch_in_a_terminal_is_redrawn(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(Path("s"), GRID)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status_text.print_status("s", watch=True)
    assert "10 of 10 runs completed" in capsys.readouterr().out


def test_a_pipe_gets_whole_lines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(Path("s"), {"optimizer": ["adam" * 50, "sgd"]}, spoiled={0: "failed"})
    cli.run("mnist-exp", ["status", "s"])
    assert f"  #0 optimizer={'adam' * 50} seed=0: the loss became nan" in capsys.readouterr().out
