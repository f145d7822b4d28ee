"""What happens now, in HTML; and the page around it."""

import os
import re
import time
from pathlib import Path

import pytest
from helpers.pages import Page
from helpers.sweeps import HOSTILE, KINDS, spoil, sweep

from mnist_exp.report import results, status, template
from mnist_exp.report.live import page
from mnist_exp.report.live.server import NOW
from mnist_exp.store import workers
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files

GRID = {"optimizer": ["adam", "sgd"]}


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A sweep of ten runs, one of which failed, one waits, and one is in its third epoch of five."""
    folder = sweep(tmp_path / "s", GRID, spoiled={2: "failed", 8: "running", 9: "pending"})
    (folder / "8").mkdir()
    lines = (folder / "7" / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "8" / "metrics.csv").write_text("".join(lines[:4]))
    return folder


def now(folder: Path) -> str:
    with files.locked(folder / SWEEP_LOCK):
        return page.now(status.read(str(folder)))


def test_what_is_running_has_its_epoch_accuracy_curve_and_time(running: Path) -> None:
    html = now(running)
    assert 'role="status" data-progress="8 of 10">7 of 10 runs completed, 1 running, 1 waiting, 1 failed</p>' in html
    assert "#8 optimizer=sgd seed=3</td>" in html
    assert '<progress max="5" value="3"' in html
    assert "3 of 5</td>" in html
    [points] = re.findall(r'<polyline points="([^"]+)"', html)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert [x for x, _ in places] == [0, 25, 50]
    assert places[0][1] > places[1][1] > places[2][1]  # y is down, and the accuracy grows
    assert ">3 s</td>" in html  # two epochs of 1.5 seconds
    assert "<h3>Next</h3>" not in html


def test_the_bar_has_a_piece_for_each_state(running: Path) -> None:
    pieces = re.findall(r'<rect class="(\w+)" x="([\d.]+)" width="([\d.]+)"', now(running))
    assert [(state, round(float(x), 9), float(width)) for state, x, width in pieces] == [
        ("completed", 0, 0.7),
        ("failed", 0.7, 0.1),
        ("running", 0.8, 0.1),
        ("waiting", 0.9, 0.1),
    ]


def test_a_pruned_run_has_ended(tmp_path: Path) -> None:
    html = now(sweep(tmp_path / "s", GRID, spoiled={2: "pruned", 9: "pending"}))
    assert 'data-progress="9 of 10"' in html
    assert re.findall(r'<rect class="(\w+)"', html) == ["completed", "pruned", "waiting"]


def test_failures_say_why(running: Path) -> None:
    assert "#2 optimizer=adam seed=2</span>: the loss became nan at epoch 3" in now(running)


def test_workers_keep_their_places_while_they_live(running: Path) -> None:
    with (
        workers.living(running, 1, on_silence=lambda: None) as one,
        workers.living(running, 1, on_silence=lambda: None) as other,
    ):
        orders = []
        for silent in (one, other):
            os.utime(silent.path, times=(time.time() - 30,) * 2)
            orders.append(re.findall(f"{one.name}|{other.name}", now(running)))
            silent.path.touch()
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted([one.name, other.name])


def test_lists_are_bounded(tmp_path: Path) -> None:
    html = now(sweep(tmp_path / "s", GRID, spoiled=dict.fromkeys(range(10), "failed")))
    assert html.count('class="status failed"') == 5
    assert "and 5 more" in html


def test_a_sweep_that_nobody_works_on_says_how_it_goes_on(running: Path) -> None:
    html = page.now(status.read(str(running)))
    assert "Nobody works on it." in html
    assert "resume=" in html


def test_a_sweep_that_is_over_says_so(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID)
    assert "The sweep is over. This page stays readable" in page.now(status.read(str(folder)))
    html = page.to_html(results.read([folder]), {}, {}, 7, over=True)
    assert '<body data-edition="7" data-over>' in html
    assert '<body data-edition="8">' in page.to_html(results.read([folder]), {}, {}, 8, over=False)


def test_texts_of_the_user_are_only_ever_text(tmp_path: Path) -> None:
    folder = spoil(sweep(tmp_path / "s", {"name": [HOSTILE, "b"]}, [0], spoiled={1: "failed"}))
    assert "<img" not in now(folder)
    assert "&lt;img" in now(folder)


def test_the_page_links_to_no_file_and_has_one_place_for_now(tmp_path: Path) -> None:
    html = page.to_html(results.read([sweep(tmp_path / "s", **KINDS["failed"])]), {}, {}, 1, over=False)
    Page(html.replace(NOW, now(tmp_path / "s")))
    assert html.count(NOW) == 1
    links = [str(each["href"]) for each in Page(html).having("a") if "href" in each]
    assert len(links) >= 6
    assert all(link.startswith("#") for link in links)
    assert "Not finished" not in html  # the section on top says it
    assert "results.csv" not in html


def test_its_parts_have_ids_by_which_they_are_renewed(running: Path) -> None:
    html = page.to_html(results.read([running]), {}, {}, 1, over=False).replace(NOW, now(running))
    ids = [each["id"] for _, each in Page(html).tags if "id" in each]
    assert len(ids) == len(set(ids))
    assert {"about", "now", "counted", "bar", "prospects", "running", "failed", "answer", "all"} <= set(ids)


def test_the_policy_allows_the_pages_own_style_and_script_alone(tmp_path: Path) -> None:
    html = page.to_html(results.read([sweep(tmp_path / "s", **KINDS["one_seed"])]), {}, {}, 1, over=False)
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert f"script-src '{template.digest(script)}'" in page.POLICY
    assert f"style-src '{template.digest(style)}'" in page.POLICY
    assert "unsafe" not in page.POLICY
    assert "http-equiv" not in html  # it is a header
    assert 'style="' not in html
