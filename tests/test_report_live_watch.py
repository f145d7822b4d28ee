"""The command, and the page in a browser while a sweep goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.sweeps import KINDS, sweep

from mnist_exp import cli
from mnist_exp.report.live import watch
from mnist_exp.report.live.server import Server
from mnist_exp.report.live.watch import View
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files, pace
from mnist_exp.system.errors import ConfigError

GRID = {"optimizer": ["adam", "sgd"]}
QUIET: dict[str, Any] = {
    "env": {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
    "text": True,
}


def watching(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "mnist_exp", "report", str(folder), "--watch", *words], **QUIET)


def content_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """The size and the time of each file."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page in a browser, of which nothing was complained at the end."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    assert said == []
    context.close()


def wait(tab: Any, condition: str) -> None:
    tab.wait_for_function(condition, timeout=120_000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["s", "--watch", "--out", "o"], "--watch: writes nothing, so it can't be combined with --out or --predict; "),
        (["s", "--watch", "--predict"], "--watch: writes nothing, so it can't be combined with --out or --predict; "),
        (["s", "s", "--watch"], "--watch: shows one sweep at a time; name one folder; "),
        (["s", "--port", "80"], "--port: is for --watch; "),
        (["s", "--watch", "--port", "x"], "argument --port: invalid int value: 'x'; "),
        (["nowhere", "--watch"], "nowhere: no such folder"),
        (["s", "--watch", "--by", "acuracy"], "--by acuracy: no such measure, did you mean accuracy? "),
        (["s", "--watch", "--port", "-1"], "--port -1: must be 0 to 65535; without --port, a free one is taken"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(Path("s"), GRID, seeds=[0])
    with pytest.raises(ConfigError) as error:
        cli.run("mnist-exp", ["report", *words])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_has_not_changed_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path / "s", GRID, spoiled={9: "pending"})
    monkeypatch.setattr(watch, "REST", 0)
    view = View(folder, "accuracy")
    with files.locked(folder / SWEEP_LOCK):
        editions = [view.look().edition for _ in range(20)]
        assert editions[0] == 1  # without figures, which are drawn one after the other
        assert set(editions) == {1, 2}
        Ledger(folder).append({"job": 9, "status": "running", "pid": 1})
        assert view.look().edition == 3
        assert not view.look().is_over


def test_a_large_sweep_is_looked_at_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(sweep(tmp_path / "s", GRID, spoiled={9: "pending"}), "accuracy")
    monkeypatch.setattr(watch, "REST", 1e6)
    view.look()
    assert view.rest > pace.PAUSE
    monkeypatch.setattr(watch, "REST", 0)
    view.look()
    assert view.rest == pace.PAUSE


def test_ctrl_c_ends_it_in_a_line_and_nothing_was_written(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "running"})
    (folder / SWEEP_LOCK).touch()
    before = content_of(folder)
    with files.locked(folder / SWEEP_LOCK, shared=True), watching(folder) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"
    assert process.returncode == 130
    assert content_of(folder) == before


STATE = """() => ({
  filter: byId("filter").value, status: byId("status").value, rows: byId("runs").table.found.map(run => run.cells[0]),
  sorted: [...document.querySelectorAll("#runs th[aria-sort=descending]")].map(head => head.textContent),
  shown: document.querySelector("#run h3").textContent, focused: document.activeElement.id,
  caret: document.activeElement.selectionStart, theme: document.documentElement.dataset.theme,
  place: Math.round(byId("all").getBoundingClientRect().top),
})"""


def test_what_a_reader_does_stays_as_the_page_is_renewed(
    tmp_path: Path, tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep(tmp_path / "s", **KINDS["small"], spoiled=dict.fromkeys(range(20, 30), "pending"))
    monkeypatch.setattr(watch, "REST", 0)
    view = View(folder, "accuracy")
    with files.locked(folder / SWEEP_LOCK):
        server = Server(view.look())
        with server.running():
            tab.goto(server.address)
            wait(tab, "() => byId('connection').textContent === 'Live'")
            tab.locator("#runs th button", has_text="validation (%)").click(click_count=2)
            tab.locator("#theme").click()
            tab.locator("#runs tbody tr", has=tab.locator("a", has_text="7")).first.click()
            tab.fill("#filter", "adam")
            tab.select_option("#status", "completed")
            tab.locator("#filter").focus()
            tab.evaluate("byId('filter').setSelectionRange(2, 2)")
            before = tab.evaluate(STATE)
            assert (before["filter"], before["focused"], before["caret"]) == ("adam", "filter", 2)
            Ledger(folder).append(*({"job": job, "status": "running", "pid": 1} for job in (20, 21)))
            Ledger(folder).append(
                {"job": 20, "status": "failed", "error": "the loss became nan", "failure": "diverged"}
            )
            while view.look().edition < 3:  # the figures are drawn
                pass
            last = view.look()
            server.show(last)
            wait(tab, f"() => edition === {last.edition}")
            assert tab.locator("#counted").text_content() == "20 of 30 runs completed, 1 running, 1 failed, 8 pending"
            assert "the loss became nan" in tab.locator("#failed").text_content()
            assert tab.locator("#figures img").count() >= 4
            assert tab.locator("nav a").all_text_contents()[-2:] == ["Failures", "Provenance"]
            assert tab.evaluate(STATE) == before
            assert tab.title().startswith("21 of 30 · ")


def test_a_page_whose_server_is_gone_stays_and_says_so(tmp_path: Path, chromium: Any) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "pending"})
    tab = chromium.new_page()
    server = Server(View(folder, "accuracy").look())
    with server.running():
        tab.goto(server.address)
        wait(tab, "() => byId('connection').textContent === 'Live'")
        server.show(server.shown._replace(is_over=True))  # ends the stream
    wait(tab, "() => byId('connection').textContent !== 'Live'")
    assert tab.locator("#counted").text_content() == "1 of 2 runs completed, 1 pending"
    tab.close()


def test_a_sweep_that_is_over_is_shown_once(tmp_path: Path, tab: Any) -> None:
    folder = sweep(tmp_path / "s", GRID)
    before = content_of(folder)
    with watching(folder) as process:
        assert process.stdout
        tab.goto(process.stdout.readline().strip())
        assert process.communicate(timeout=60)[0].startswith(f"{folder}: all runs have ended, and a browser has their")
    assert process.returncode == 0
    assert tab.locator("#connection").text_content() == "Over"
    assert tab.locator("#prospects").text_content().strip().startswith("The sweep is over.")
    assert tab.locator("#figures img").count() >= 4
    tab.wait_for_timeout(200)
    assert content_of(folder) == before


REAL = ["-m", *TINY, "epochs=150", "optimizer=sgd", "optimizer.lr=0.01,1e9", "seed=0,1", "hydra.sweep.dir=s"]


def watch_to_the_end(tab: Any) -> None:
    wait(tab, "() => document.querySelector('#running polyline')")
    wait(tab, "() => byId('failed') && byId('failed').textContent.includes('nan')")
    wait(tab, "() => byId('connection').textContent === 'Over'")
    assert tab.locator("#counted").text_content() == "2 of 4 runs completed, 2 failed"
    assert "completed" in tab.locator("#all").text_content()
    assert tab.locator("#leaderboard tbody tr").count() == 2
    assert tab.locator("#running").count() == 0


@pytest.mark.slow
def test_a_real_sweep_is_watched_from_beginning_to_end(tmp_path: Path, tab: Any) -> None:
    with subprocess.Popen([sys.executable, str(ROOT / "train.py"), *REAL], **QUIET, cwd=tmp_path) as sweeping:
        assert sweeping.stdout
        while not (tmp_path / "s" / "0").is_dir():
            assert sweeping.poll() is None
        with watching(tmp_path / "s") as process:
            assert process.stdout
            tab.goto(process.stdout.readline().strip())
            watch_to_the_end(tab)
            assert process.communicate(timeout=60)[0].startswith(f"{tmp_path / 's'}: all runs have ended")
        sweeping.communicate(timeout=60)


@pytest.mark.slow
def test_workers_are_watched_from_beginning_to_end(tmp_path: Path, tab: Any, run: Callable[..., Outcome]) -> None:
    run(*REAL, "hydra/launcher=workers")
    with watching(tmp_path / "s") as process:
        assert process.stdout
        tab.goto(process.stdout.readline().strip())
        wait(tab, "() => byId('prospects').textContent.includes('Nobody works on it.')")
        work = [sys.executable, "-m", "mnist_exp", "work", "s", "--n-jobs", "1"]
        with subprocess.Popen(work, **QUIET, cwd=tmp_path) as working:
            wait(tab, "() => byId('workers') && byId('workers').textContent.includes('at work since')")
            watch_to_the_end(tab)
            working.communicate(timeout=60)
        assert process.communicate(timeout=60)[0].startswith(f"{tmp_path / 's'}: all runs have ended")
    assert "4 runs ended" in tab.locator("#workers").text_content()
