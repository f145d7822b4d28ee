import base64
import csv
import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import KINDS, VERSIONS, sweep

from mnist_exp.report import figures, report, sentences
from mnist_exp.report.results import Arm, Results, Run, label, read
from mnist_exp.report.stats import Comparison, Summary
from mnist_exp.store.ledger import Job
from mnist_exp.system import errors, files

HOSTILE = "</script><img src=x onerror=document.title='pwned'>|`\"'&{{data}}"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)  # one pixel
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Tags in order; fails on those that are not closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def having(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and attributes.items() <= found.items()]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests of words and tables the second that pictures take."""
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {"leaderboard.png": PNG} if results.arms else {})


def made(folder: Path, kind: str, **more: Any) -> Path:
    return sweep(folder / kind, **(KINDS[kind] | more))


def data_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    rows: list[dict[str, Any]] = json.loads(found[1])
    return rows


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every line of a ledger."""
    path = folder / "ledger.jsonl"
    entries = [files.unseal(line) for line in path.read_text().splitlines()]
    for entry in entries:
        change(entry)
    path.write_text("".join(files.seal(entry) + "\n" for entry in entries))


def arm(label: str, mean: float = 0.98, n: int = 5, errors: int = 200) -> Arm:
    summary = {"test_errors": errors, "test_accuracy": 1 - errors / 10_000, "data": {"name": "MNIST", "sha256": "abc"}}
    summary |= {"test_loss": float(ord(label[0]))}
    job = Job(0, (), label, label, 0, {}, "completed")
    runs = tuple(Run(Path(), Path(), job._replace(seed=seed), summary, {}) for seed in range(n))
    low, high = (math.nan, math.nan) if n == 1 else (mean - 0.001, mean + 0.001)
    val = Summary(n, mean, math.nan if n == 1 else 0.0008, low, high, mean, mean)
    return Arm(label, {"optimizer": label}, runs, val, val._replace(mean=1 - errors / 10_000), float(errors))


def compared(
    difference: float = 0.0031, p: float = 0.002, n: int = 5, paired: bool = True, needed: int | None = 14
) -> Comparison:
    nan = math.isnan(p)
    low, high = (math.nan, math.nan) if nan else (difference - 0.0009, difference + 0.0009)
    return Comparison(difference, low, high, p, n, paired, None if nan else needed)


# Words


def test_a_clear_difference_is_a_win() -> None:
    assert sentences.sentence(arm("adam"), arm("sgd"), compared()) == (
        "`adam` beats `sgd` by 0.31 pp (0.22 to 0.40, p = 0.002, 5 seeds)."
    )


def test_an_unclear_difference_is_none_and_says_what_would_resolve_it() -> None:
    told = sentences.sentence(arm("relu"), arm("gelu"), compared(0.0003, p=0.4))
    assert told == (
        "`relu` and `gelu` can't be told apart with 5 seeds (0.03 pp, -0.06 to 0.12, p = 0.40): "
        "about 14 seeds an arm would resolve the difference seen."
    )
    assert sentences.sentence(arm("relu"), arm("gelu"), compared(0, p=1, needed=None)).endswith("p = 1.00).")
    assert "more than 1,000 seeds" in sentences.sentence(arm("relu"), arm("gelu"), compared(0, p=1, needed=4321))


def test_a_corrected_p_of_five_percent_is_no_win() -> None:
    assert "beats" not in sentences.sentence(arm("a"), arm("b"), compared(p=0.05))


@pytest.mark.parametrize(
    ("leader", "other", "n", "paired", "told"),
    [
        (5, 5, 5, True, "5 seeds"),
        (5, 3, 3, True, "3 shared seeds"),
        (4, 2, 2, False, "4 and 2 seeds"),
        (5, 5, 5, False, "5 seeds"),
    ],
)
def test_a_comparison_says_what_it_rests_on(leader: int, other: int, n: int, paired: bool, told: str) -> None:
    assert f", {told})." in sentences.sentence(arm("a", n=leader), arm("b", n=other), compared(n=n, paired=paired))


def test_a_leader_that_loses_on_shared_seeds_is_not_said_to_win() -> None:
    it = compared(-0.002)
    assert sentences.sentence(arm("a"), arm("b"), it) == "`a` is beaten by `b` by 0.20 pp on the seeds that both have."
    assert "is beaten by 1" in sentences.headline(results([arm("a"), arm("b")], [it]))
    assert sentences.verdict(arm("a"), arm("b"), it) == "ahead, p = 0.002"


def test_the_headline_counts_wins_and_names_what_is_alike() -> None:
    arms = [arm(name) for name in "abcdef"]

    def headline(comparisons: list[Comparison]) -> str:
        return sentences.headline(results(arms[: len(comparisons) + 1], comparisons))

    told = headline([compared(0.0003, p=0.4), *[compared()] * 4])
    assert told == (
        "`a` leads with 98.00 % on validation (95 % interval 97.90 to 98.10, 5 seeds). "
        "It beats 4 of 5 others and can't be told apart from `b`."
    )
    assert headline([compared()] * 5).endswith("It beats all 5 others.")
    assert headline([compared()]).endswith("It beats `b`.")
    assert headline([compared(p=0.4)] * 5).endswith("It can't be told apart from any of the 5 others.")
    mixed = headline([compared(), *[compared(p=0.4)] * 3, compared(p=math.nan)])
    assert mixed.endswith("It beats 1 of 5 others, can't be told apart from 3 and allows no claim about 1.")


def test_many_arms_are_counted_after_the_first_ten() -> None:
    arms = [arm(chr(ord("a") + i)) for i in range(30)]
    told = sentences.answer(results(arms, [compared()] * 29))
    assert len(told) == 1 + sentences.MOST + 1
    assert told[-1] == "Further down, it beats all 19 others."


def test_one_arm_has_its_figure() -> None:
    told = sentences.answer(results([arm("adam")], []))
    figure = "98.00 % on validation (95 % interval 97.90 to 98.10, 5 seeds)"
    assert told == [f"`adam` reaches {figure}; there is no other arm to compare it with."]


def test_one_seed_makes_no_claim_but_says_what_to_type() -> None:
    told = " ".join(sentences.answer(results([arm("a", n=1), arm("b", n=1)], [compared(p=math.nan)])))
    assert "beats" not in told
    assert "leads" not in told
    assert "`seed=0,1,2,3,4`" in told
    assert "10,000 test images alone spreads an accuracy of 98.00 % by 0.14 pp" in told


def test_a_test_set_without_misses_has_no_known_size() -> None:
    assert sentences.test_images([arm("a", errors=0)]) is None
    assert not any("test images" in told for told in sentences.advice(results([arm("a", n=1, errors=0)], [])))
    assert sentences.test_images([arm("a", errors=0), arm("b", errors=1)]) == 10_000


def test_nothing_completed_is_said() -> None:
    assert sentences.answer(results([], [])) == ["Nothing has completed, so there is nothing to compare."]


@pytest.mark.parametrize(
    ("p", "told"),
    [(0.0, "p < 0.001"), (0.0009, "p < 0.001"), (0.002, "p = 0.002"), (0.0496, "p = 0.050"), (0.4, "p = 0.40")],
)
def test_p_is_printed_sensibly(p: float, told: str) -> None:
    assert sentences.p_value(p) == told


def test_a_negative_zero_is_a_zero() -> None:
    assert sentences.points(-0.00001) == "0.00 pp"


def results(arms: list[Arm], comparisons: list[Comparison]) -> Results:
    return Results((Path(),), [], [], ("optimizer",), arms, comparisons, [])


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"model.max_norm": "1.5", "optimizer.nesterov": "true"}, "max_norm=1.5 nesterov=true"),
        ({"optimizer": "sgd", "activation": "relu", "optimizer.lr": "0.01"}, "sgd relu lr=0.01"),
        ({"experiment": "lenet_99", "data": "mnist", "model": "mlp", "loss": "mse"}, "lenet_99 mnist mlp mse"),
        ({"augmentation": "none", "init": "normal", "schedule": "step"}, "augmentation=none init=normal schedule=step"),
        ({"experiment": "null", "model": "10"}, "experiment=null model=10"),
        ({"data.seed": "1", "seed.of.mine": "2"}, "data.seed=1 mine=2"),
        ({"a.size": "1", "b.size": "2", "size": "3"}, "a.size=1 b.size=2 size=3"),
        ({"x.a.size": "1", "y.a.size": "2"}, "x.a.size=1 y.a.size=2"),
        ({"model.hidden_layers": "[300,100]", "epochs": "5", "deterministic": "false"},
         "hidden_layers=[300,100] epochs=5 deterministic=false"),
        ({"model.name": "a b", "model.title": "", "a._target_": "m.Net"}, 'name="a b" title="" a._target_=m.Net'),
        ({}, "default"),
    ],
)  # fmt: skip
def test_a_name_explains_itself(choices: dict[str, str], told: str) -> None:
    assert label(choices) == told


@pytest.mark.usefixtures("undrawn")
def test_arms_have_their_names_wherever_they_are_told_of(tmp_path: Path) -> None:
    told = report.write([made(tmp_path, "small", grid={"model.max_norm": [None, 1.5]})])
    leader = told.splitlines()[-2].split(" leads ")[0]
    assert leader in ("max_norm=null", "max_norm=1.5")
    assert f"**`{leader}` leads" in (tmp_path / "small" / "report.md").read_text()
    assert f"<code>{leader}</code> leads" in (tmp_path / "small" / "report.html").read_text()


# Accuracies near 100 %


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("seeds", [2, 3])
def test_no_interval_leaves_0_to_100_percent(tmp_path: Path, seeds: int) -> None:
    folder = made(tmp_path, "small", seeds=range(seeds), spread=0.012)
    told = report.write([folder])
    table = report.leaderboard(read([folder]))
    cells = [row[table.headers.index("95 % interval")] for row in table.rows]
    ends = [float(end) for cell in cells if " to " in cell for end in cell.split(" to ")]
    assert all(0 < end < 100 for end in ends)
    assert cells.count("two seeds say nearly nothing") == (5 if seeds == 2 else 0)
    assert ("% on validation (two seeds say nearly nothing)" in told) is (seeds == 2)


# Settings that change nothing


def repeat(folder: Path, job: int, other: int) -> None:
    """Give a job the figures of another one."""
    theirs = files.unseal((folder / str(job) / "summary.json").read_text())
    ours = files.unseal((folder / str(other) / "summary.json").read_text())
    same = {key: value for key, value in theirs.items() if "val_" in key or "test_" in key}
    (folder / str(other) / "summary.json").write_text(files.seal(ours | same))


@pytest.mark.usefixtures("undrawn")
def test_arms_with_the_same_results_are_said_to_be_so(tmp_path: Path) -> None:
    folder = made(tmp_path, "small", grid={"model.max_norm": [None, 1.5]}, seeds=range(3))
    for seed in range(3):
        repeat(folder, seed, 3 + seed)
    told = report.write([folder])
    assert (
        "`max_norm=null` and `max_norm=1.5` have the same results in every run: this setting changed nothing here."
        in ((folder / "report.md").read_text())
    )
    assert "max_norm=1.5 has the same results in every run: this setting changed nothing here." in told
    assert " the same results " in told.splitlines()[2]
    assert "leads" not in told
    path = folder / "3" / "summary.json"
    path.write_text(files.seal(files.unseal(path.read_text()) | {"test_loss": 0.081}))
    assert "the same results" not in report.write([folder])


@pytest.mark.usefixtures("undrawn")
def test_a_key_that_changes_nothing_is_named(tmp_path: Path) -> None:
    grid = {"optimizer": ["adam", "sgd"], "model.max_norm": [None, 1.5]}
    folder = made(tmp_path, "small", grid=grid, seeds=[0])
    told = report.write([folder])
    assert "changed nothing" not in told
    repeat(folder, 0, 1)
    assert "changed nothing here: whatever" not in report.write([folder])
    repeat(folder, 2, 3)
    told = report.write([folder])
    assert "model.max_norm changed nothing here: whatever its value, the same results in every run." in told
    assert sentences.answer(read([folder]))[1] == (
        "`adam max_norm=null` and `adam max_norm=1.5` have the same results in every run: "
        "this setting changed nothing here."
    )


def test_equal_arms_are_named_further_down_too(tmp_path: Path) -> None:
    folder = made(tmp_path, "small", grid={"model": ["mlp", "linear"], "activation": ["relu", "tanh"]}, seeds=[0, 1])
    leader = read([folder]).arms[0].choices["model"]
    first = 4 if leader == "mlp" else 0
    for seed in (0, 1):
        repeat(folder, first + seed, first + 2 + seed)
    other = {"mlp": "linear", "linear": "mlp"}[leader]
    same = f"`{other} relu` and `{other} tanh` have the same results in every run: this setting changed nothing here."
    assert sentences.answer(read([folder])).count(same) == 1


@pytest.mark.usefixtures("undrawn")
def test_the_headline_counts_what_is_the_same(tmp_path: Path) -> None:
    grid = {"optimizer": ["adam", "sgd"], "model.max_norm": [None, 1.5]}
    folder = made(tmp_path, "small", grid=grid)
    for seed in range(5):
        repeat(folder, seed, 5 + seed)
    assert sentences.headline(read([folder])).endswith(
        "It beats 2 of 3 others and has the same results in every run as `adam max_norm=1.5`."
    )


# Runs that fail


@pytest.mark.usefixtures("undrawn")
def test_an_arm_with_failed_runs_is_flagged_and_does_not_lead(tmp_path: Path) -> None:
    """adam is better, by its survivors."""
    folder = made(tmp_path, "small", grid={"optimizer": ["adam", "sgd", "rmsprop"]}, spoiled={0: "failed", 3: "failed"})
    told = report.write([folder])
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    found = read([folder])
    assert [arm.label for arm in found.arms] == ["rmsprop", "sgd", "adam"]
    assert len(found.comparisons) == 1
    table = report.leaderboard(found)
    last = dict(zip(table.headers, table.rows[-1], strict=True))
    assert (last["rank"], last["seeds"], last["against the leader"]) == ("", "3 of 5; 2 diverged", "not compared")
    assert "3 of 5; 2 diverged" in told
    assert "rmsprop leads with" in told
    assert "It beats sgd. Not compared, because runs failed: adam (3 of 5 seeds; 2 diverged)." in told
    reached = sentences.percent(found.arms[-1].val.mean)
    assert f"- Of the 5 runs of `adam`, 2 diverged; the 3 that completed, with {reached}, are not compared." in text
    assert page.count("3 of 5; 2 diverged") == 1
    assert page.count('<span class="mark">diverged</span>') == 2
    assert "has no rank" in page
    assert "has no rank" in text
    with open(folder / "results.csv", newline="") as file:
        assert [row["failure"] for row in csv.DictReader(file)] == ["diverged", "", "", "diverged", *[""] * 11]


@pytest.mark.usefixtures("undrawn")
def test_an_arm_that_always_failed_is_named(tmp_path: Path) -> None:
    folder = made(
        tmp_path, "small", grid={"optimizer.lr": [0.1, 1e6]}, seeds=range(3), spoiled=dict.fromkeys((3, 4, 5), "failed")
    )
    told = report.write([folder])
    assert (
        "can be compared with it. Not compared, because runs failed: lr=1000000.0 (0 of 3 seeds; 3 diverged)." in told
    )
    table = report.leaderboard(read([folder]))
    assert table.rows[1][:3] == ["", "1000000.0", "0 of 3; 3 diverged"]
    assert table.rows[1][5] == "failed"
    assert set(table.rows[1][6:]) == {""}
    assert "Of the 3 runs of `lr=1000000.0`, 3 diverged, and none completed." in (folder / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_is_missing_and_no_arms_fault(tmp_path: Path) -> None:
    folder = made(tmp_path, "small", grid={"optimizer": ["adam", "sgd"]}, spoiled={0: "killed", 1: "interrupted"})
    told = report.write([folder])
    assert "adam leads with" in told
    assert "3 of 5 seeds). It beats sgd." in told
    assert "Not compared" not in told
    assert report.leaderboard(read([folder])).rows[0][:3] == ["1", "adam", "3 of 5"]


@pytest.mark.usefixtures("undrawn")
def test_where_every_arm_has_failed_runs_none_leads(tmp_path: Path) -> None:
    folder = made(tmp_path, "small", grid={"optimizer": ["adam", "sgd"]}, spoiled={0: "failed", 9: "failed"})
    told = report.write([folder])
    assert (
        "No arm leads, for each has runs that failed by their own doing. Runs failed: adam (4 of 5 seeds; 1 diverged)"
        in told
    )
    assert [row[0] for row in report.leaderboard(read([folder])).rows] == ["", ""]
    assert sentences.title(read([folder])) == "optimizer on MNIST"


def test_failures_are_told_by_their_kinds() -> None:
    jobs = [
        Job(n, (), "", "", n, {}, "failed", failure=kind)
        for n, kind in enumerate(["diverged", "out of memory", "error"])
    ]
    failed = tuple(Run(Path(), Path(), job, {}, {}) for job in jobs)
    assert arm("a")._replace(failed=failed, missing=1).seeds == "5 of 9; 1 diverged, 1 ran out of memory, 1 failed"


@pytest.mark.usefixtures("undrawn")
def test_tags_and_an_early_stop_are_shown_where_there_are_any(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed")
    report.write([folder])
    assert ">tags<" not in (folder / "report.html").read_text()
    path = folder / "1" / "summary.json"
    path.write_text(files.seal(files.unseal(path.read_text()) | {"tags": ["base line", "<b>"], "stopped": "patience"}))
    report.write([folder])
    page = (folder / "report.html").read_text()
    assert ">tags<" in page
    assert html.escape("'base line' '<b>'") in page
    assert "stopped early (patience), after epoch 5" in data_of(page)[1]["figures"]
    with open(folder / "results.csv", newline="") as file:
        assert [(row["tags"], row["stopped"]) for row in csv.DictReader(file)][:2] == [
            ("", ""), ("'base line' '<b>'", "patience")
        ]  # fmt: skip


# Files


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_four_kinds_of_files(tmp_path: Path) -> None:
    folder = made(tmp_path, "small")
    told = report.write([folder])
    assert {"results.csv", "report.md", "report.html", "plots"} <= set(os.listdir(folder))
    assert told.endswith(str(folder / "report.html"))
    assert "30 of 30 completed" in told
    assert not list(folder.rglob("*.tmp"))


def test_pictures_are_drawn_in_both_themes(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    report.write([folder])
    page = Page((folder / "report.html").read_text())
    light, dark = page.having("img", **{"class": "light"}), page.having("img", **{"class": "dark"})
    assert len(light) == len(dark) == len(list((folder / "plots").glob("*.png"))) > 0
    assert all(str(image["src"]).startswith("data:image/png;base64,") and image["alt"] for image in [*light, *dark])
    linked = re.findall(r"!\[.+\]\((.+)\)", (folder / "report.md").read_text())
    assert len(linked) == len(light)
    assert all((folder / link).is_file() for link in linked)


@pytest.mark.usefixtures("undrawn")
def test_the_csv_has_a_row_a_run(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    report.write([folder])
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert list(rows[0])[:6] == ["number", "config_id", "optimizer", "activation", "seed", "status"]
    assert rows[0]["status"] == "failed"
    assert rows[0]["error"] == "the loss became nan at epoch 3, step 7: a smaller optimizer.lr usually helps"
    summary = json.loads((folder / "1" / "summary.json").read_text())
    assert float(rows[1]["val_accuracy"]) == summary["best_val_accuracy"]
    assert int(rows[1]["test_misses"]) == summary["test_errors"]
    assert rows[14]["status"] == "pending"
    assert rows[14]["val_loss"] == ""


@pytest.mark.usefixtures("undrawn")
def test_the_leaderboard_is_that_of_the_results(tmp_path: Path) -> None:
    found = read([made(tmp_path, "small")])
    table = report.leaderboard(found)
    assert len(table.rows) == 6
    assert [row[0] for row in table.rows] == list("123456")
    best = dict(zip(table.headers, table.rows[0], strict=True))
    assert best["validation (%)"] == f"{100 * found.arms[0].val.mean:.2f}"
    assert best["against the leader"] == "the leader"
    assert all(row[table.headers.index("optimizer")] == "sgd" for row in table.rows[3:])
    assert all(row[table.headers.index("against the leader")].startswith("behind, p ") for row in table.rows[3:])


@pytest.mark.usefixtures("undrawn")
def test_the_page_is_whole_and_asks_nobody(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    report.write([folder])
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"\{\{[#/]?\w", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not page.having("link")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(str(link["href"])[1:] in ids for link in page.having("a") if str(link.get("href")).startswith("#"))
    assert len(data_of(text)) == 20


@pytest.mark.usefixtures("undrawn")
def test_runs_are_linked_by_relative_paths(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    for out in (folder, tmp_path / "elsewhere"):
        report.write([folder], out)
        page = Page((out / "report.html").read_text())
        links = [str(link["href"]) for link in page.having("a") if not str(link.get("href", "#")).startswith("#")]
        assert len(links) == 18
        assert all((out / link / "metrics.csv").is_file() for link in links)


@pytest.mark.usefixtures("undrawn")
def test_failures_come_with_the_command_that_runs_them_again(tmp_path: Path) -> None:
    folder = made(tmp_path, "small", grid={"model.hidden_layers": ["[16]", "[32]"]}, spoiled={1: "failed"})
    report.write([folder])
    command = "python train.py 'model.hidden_layers=[16]' seed=1"
    assert html.escape(command) in (folder / "report.html").read_text()
    assert command.replace("[", "\\[").replace("]", "\\]") in (folder / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_without_failures_has_no_such_section(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed")
    report.write([folder])
    assert "Failures" not in (folder / "report.html").read_text()
    assert "Failures" not in (folder / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_running_sweep_says_so(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    told = report.write([folder])
    counts = "13 of 20 completed, 1 running, 4 failed, 1 interrupted, 1 pending"
    assert counts in told
    for name in ("report.html", "report.md"):
        assert f"Not finished: {counts}" in (folder / name).read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_of_which_nothing_completed_has_a_report(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed", spoiled=dict.fromkeys(range(4), "failed"))
    told = report.write([folder])
    assert "0 of 4 completed, 4 failed" in told
    assert (
        "Nothing has completed, so there is nothing to compare. Runs failed: adam relu (0 of 1 seed; 1 diverged)"
        in told
    )
    page = (folder / "report.html").read_text()
    Page(page)
    assert "Pictures" not in page
    assert page.count('<td class="left">failed</td>') == 4 + 4  # in the leaderboard, and among the failures


@pytest.mark.usefixtures("undrawn")
def test_configs_and_errors_are_only_ever_text(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed", grid={"name": [HOSTILE, "b"]}, spoiled={1: "failed"})

    def spoil(entry: dict[str, Any]) -> None:
        if "job" not in entry:
            entry["command"] = HOSTILE
        elif "error" in entry:
            entry["error"] = HOSTILE

    edit(folder, spoil)
    report.write([folder])
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert len(page.having("script")) == 2
    assert not [tag for tag, attributes in page.tags if any(key.startswith("on") for key in attributes)]
    assert data_of(text)[0]["overrides"] == f"name={HOSTILE} seed=0"
    with open(folder / "results.csv", newline="") as file:
        assert next(csv.DictReader(file))["name"] == HOSTILE
    assert not re.search(r"(?<!\\)<img", re.sub(r"`[^`]*`", "", (folder / "report.md").read_text()))


@pytest.mark.usefixtures("undrawn")
def test_a_loss_that_is_no_number_leaves_a_page_that_can_be_read(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed", spoiled={0: "failed"})
    with open(folder / "0" / "metrics.csv", "a") as file:
        file.write("3,nan,0.1,inf,0.1,0.001,1.5\n")
    report.write([folder])
    run = data_of((folder / "report.html").read_text())[0]
    assert run["epochs"] == [1, 2, 3]
    assert run["train_loss"][2] is run["val_loss"][2] is None


@pytest.mark.usefixtures("undrawn")
def test_runs_of_other_versions_are_warned_of_and_marked(tmp_path: Path) -> None:
    folders = [
        made(tmp_path / "old", "one_seed", versions=VERSIONS | {"torch": "2.13.0"}),
        made(tmp_path / "new", "small"),
    ]
    out = tmp_path / "both"
    told = report.write(folders, out)
    page = (out / "report.html").read_text()
    assert "runs of different torch: 2.13.0, 2.14.1" in told
    assert '<div class="warning"><p>runs of different torch: 2.13.0, 2.14.1' in page
    assert page.count('<span class="mark">torch 2.13.0</span>') == 4
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 34
    assert rows[0]["sweep"] == str(folders[0])


@pytest.mark.usefixtures("undrawn")
def test_resumed_sweeps_and_allowed_changes_are_said(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed")
    ledger = folder / "ledger.jsonl"
    session = files.unseal(ledger.read_text().splitlines()[0])
    session |= {"allow_changed": True, "git": {"commit": "f00", "dirty": True}, "machine": {"cores": 2}}
    with open(ledger, "a") as file:
        file.write(files.seal(session) + "\n")
    report.write([folder])
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "Resumed: 2 commands worked on the sweep." in text
        assert "1 command had leave to go on" in text
        assert "f00, with uncommitted changes" in text
        assert "cores 2" in text
        assert "Command 2 of 2" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("content", [None, '{"status": "comp', "[]"])
def test_a_completed_job_whose_summary_is_lost_is_left_out_and_warned_of(tmp_path: Path, content: str | None) -> None:
    folder = made(tmp_path, "small")
    (folder / "3" / "summary.json").unlink()
    if content is not None:
        (folder / "3" / "summary.json").write_text(content)
    told = report.write([folder])
    assert "summary.json" in told
    assert sum(len(arm.runs) for arm in read([folder]).arms) == 29


@pytest.mark.usefixtures("undrawn")
def test_what_was_altered_since_a_run_is_left_out_or_warned_of(tmp_path: Path) -> None:
    folder = made(tmp_path, "small")
    (folder / "3" / "summary.json").write_bytes((folder / "4" / "summary.json").read_bytes())
    path = folder / "7" / "metrics.csv"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    told = report.write([folder])
    assert f"left out, for what it found is lost or damaged: {folder / '3' / 'summary.json'}" in told
    assert f"metrics.csv was altered since the run: {folder / '7'}" in told
    path.write_text("epoch,train_loss\n1,zero\n")
    report.write([folder])
    assert sum(len(arm.runs) for arm in read([folder]).arms) == 29


@pytest.mark.usefixtures("undrawn")
def test_curves_that_a_crash_tore_end_before_the_tear(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    path = folder / "0" / "metrics.csv"
    whole = path.read_text()
    for end in range(len(whole) - len(whole.splitlines()[-1]), len(whole)):
        path.write_text(whole[:end])
        report.write([folder])
        assert data_of((folder / "report.html").read_text())[0]["epochs"] in ([1], [1, 2])


# The command


def ledger_damaged(folder: Path) -> Path:
    made(folder, "one_seed")
    path = folder / "one_seed" / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], '{"time": "2026-\n', *lines[3:]]))
    return folder / "one_seed"


def single_run(folder: Path) -> Path:
    return made(folder, "one_seed") / "0"


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda folder: folder / "absent", "absent: no such folder"),
        (lambda folder: folder, "no sweep of this program: it has no ledger.jsonl"),
        (single_run, "a single run, not a sweep"),
        (ledger_damaged, "ledger.jsonl: line 4 is damaged"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(tmp_path: Path, prepare: Callable[[Path], Path], told: str) -> None:
    line = refused(str(prepare(tmp_path)))
    assert told in line


@pytest.mark.usefixtures("undrawn")
def test_what_can_not_be_meant_is_refused_in_one_line(tmp_path: Path) -> None:
    folders = [str(made(tmp_path / name, "one_seed")) for name in "ab"]
    assert "FOLDER" in refused()
    assert "--ou7" in refused(folders[0], "--ou7=x")
    assert "--out DIR" in refused(*folders)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(folders[0], "--out", str(tmp_path / "file"))


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop, errors.in_one_line():
        report.main(arguments)
    line = str(stop.value.code)
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_named_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, "one_seed")
    report.main([str(folder), str(folder)])
    assert "4 of 4 completed" in capsys.readouterr().out


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed")
    code = "from mnist_exp.sweep import report; report.plots.draw = lambda *_: {}; report.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; {code}; sys.exit('torch' in sys.modules)", folder],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


# The page's script, in a browser

browser = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium on the PATH")
TRY = """
const told = {}, seen = () => [...document.querySelectorAll("#runs tbody tr")].filter(row => !row.hidden);
const column = name => [...document.querySelectorAll("#runs th")].findIndex(th => th.textContent === name);
const cells = name => seen().map(row => row.cells[column(name)].textContent);
const head = name => document.querySelectorAll("#runs th")[column(name)];
head("validation (%)").querySelector("button").click();
told.up = cells("validation (%)");
told.sort = head("validation (%)").getAttribute("aria-sort");
head("validation (%)").querySelector("button").click();
told.down = cells("validation (%)");
const named = id => document.getElementById(id);
const type = (id, value, kind) => { named(id).value = value; named(id).dispatchEvent(new Event(kind)); };
type("filter", "ADAM tanh", "input");
told.filtered = seen().length;
type("status", "failed", "change");
told.failed = cells("run");
told.count = document.getElementById("count").textContent;
type("filter", "", "input"), type("status", "", "change");
const row = number => seen().find(row => row.cells[0].textContent === number);
const panel = document.getElementById("run");
row("3").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
told.hovered = panel.querySelector("h3").textContent;
told.lines = panel.querySelectorAll("path[d*=L]").length;
told.link = panel.querySelector("a").getAttribute("href");
row("4").click();
row("5").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
told.kept = panel.querySelector("h3").textContent;
row("6").cells[0].firstChild.focus();
told.focused = panel.querySelector("h3").textContent;
const pictures = [...document.querySelectorAll("figure img")];
const shownTheme = () => pictures.filter(image => image.offsetParent).map(image => image.className);
told.before = shownTheme();
document.getElementById("theme").click();
told.after = shownTheme();
told.wide = document.documentElement.scrollWidth > innerWidth;
document.body.innerHTML = "";
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
"""


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's document once its scripts have run, and what the console shows."""
    done = subprocess.run(
        [
            *["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"],
            *[f"--user-data-dir={profile}", "--window-size=600,900", page.as_uri()],
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@browser
@pytest.mark.usefixtures("undrawn")
def test_the_page_sorts_filters_and_shows_runs(tmp_path: Path) -> None:
    folder = made(tmp_path, "failed")
    report.write([folder])
    page = folder / "report.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text())  # to add a script
    page.write_text(text.replace("</body>", f"<script>{TRY}</script></body>"))
    document, console = browse(page, tmp_path / "profile")
    found = re.search(r'<pre id="told">(.*?)</pre>', document, re.DOTALL)
    assert found, console
    told = json.loads(html.unescape(found[1]))
    figures = [float(cell) for cell in told["up"] if cell]
    assert len(figures) == 13
    assert figures == sorted(figures)
    assert [float(cell) for cell in told["down"] if cell] == figures[::-1]
    assert told["up"][13:] == told["down"][13:] == [""] * 7
    assert told["sort"] == "ascending"
    assert told["filtered"] == 5
    assert told["failed"] == ["7"]
    assert told["count"] == "1 of 20 runs"
    assert told["hovered"] == "Run 3"
    assert told["lines"] >= 4
    assert told["link"] == "3/"
    assert told["kept"] == "Run 4"
    assert told["focused"] == "Run 6"
    assert sorted([told["before"], told["after"]]) == [["dark"], ["light"]]
    assert told["wide"] is False
    assert console == []


@browser
@pytest.mark.usefixtures("undrawn")
def test_a_hostile_config_does_nothing_in_a_browser(tmp_path: Path) -> None:
    folder = made(tmp_path, "one_seed", grid={"name": [HOSTILE, "b"]})
    report.write([folder])
    document, console = browse(folder / "report.html", tmp_path / "profile")
    assert "<title>name on MNIST</title>" in document
    assert "onerror=" in document  # as text
    assert '<aside id="run" aria-label="One run"><h3>Run 0</h3>' in document  # the page's own script ran
    assert console == []
