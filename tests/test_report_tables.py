"""The tables and lists of a report hold what the results say."""

from pathlib import Path

import pytest
from conftest import MakeResults
from helpers.arms import arm, results
from helpers.sweeps import KINDS, VERSIONS, edit_ledger, edit_summary, sweep

from mnist_exp.report import tables
from mnist_exp.report.results import Results, read
from mnist_exp.system import files, quoting


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with jobs of every status."""
    return sweep(tmp_path_factory.mktemp("tables") / "failed", **KINDS["failed"])


@pytest.fixture(scope="module")
def failed(folder: Path) -> Results:
    return read([folder])


def test_leaderboard_shows_the_arms_by_rank(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", **KINDS["small"])])
    table = tables.leaderboard(found)
    assert [row[0] for row in table.rows] == list("123456")
    best = dict(zip(table.headers, table.rows[0], strict=True))
    leader = found.arms[0]
    assert (best["optimizer"], best["activation"]) == tuple(leader.choices.values())
    assert best["validation (%)"] == f"{100 * leader.val.mean:.2f}"
    assert best["95 % interval"] == f"{100 * leader.val.low:.2f} to {100 * leader.val.high:.2f}"
    assert (best["seeds"], best["against the leader"]) == ("5", "the leader")
    assert (best["sd (pp)"], best["best"]) == (f"{100 * leader.val.sd:.2f}", f"{100 * leader.val.best:.2f}")
    assert best["worst"] == f"{100 * leader.val.worst:.2f}"
    assert (best["test (%)"], best["test misses"]) == (f"{100 * leader.test.mean:.2f}", f"{leader.misses:.1f}")
    assert all(row[table.headers.index("optimizer")] == "sgd" for row in table.rows[3:])
    assert all(row[table.headers.index("against the leader")].startswith("behind, p ") for row in table.rows[3:])


def test_leaderboard_flags_arms_with_failed_runs() -> None:
    arms = [arm("rmsprop"), arm("adam", n=3, diverged=2), arm("sgd", n=0, diverged=3)]
    arms[2] = arms[2]._replace(val=arms[2].val._replace(mean=float("nan"), best=float("nan"), worst=float("nan")))
    table = tables.leaderboard(results(arms))
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    flags = [(row["rank"], row["seeds"], row["against the leader"]) for row in rows]
    assert flags == [
        ("1", "5", "the leader"), ("", "3 of 5; 2 diverged", "not compared"), ("", "0 of 3; 3 diverged", "failed")
    ]  # fmt: skip
    assert tables.leaderboard(results([arm("a", diverged=1), arm("b", diverged=1)])).rows[1][0] == ""
    assert tables.leaderboard(results([])).rows == []


def test_arm_without_completed_runs_has_no_numbers(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, [0], spoiled={1: "failed"})])
    assert tables.leaderboard(found).rows[1] == ["", "sgd", "0 of 1; 1 diverged", "", "", "failed", *[""] * 5]


@pytest.mark.parametrize("seeds", [2, 3])
def test_no_interval_leaves_0_to_100_percent(tmp_path: Path, seeds: int) -> None:
    found = read([sweep(tmp_path / "s", KINDS["small"]["grid"], range(seeds), spread=0.012)])
    table = tables.leaderboard(found)
    cells = [row[table.headers.index("95 % interval")] for row in table.rows]
    ends = [float(end) for cell in cells if " to " in cell for end in cell.split(" to ")]
    assert ends
    assert all(0 < end < 100 for end in ends)
    assert cells.count("too wide") == (5 if seeds == 2 else 0)


def test_failures_come_with_the_command_that_runs_them_again(failed: Results) -> None:
    table = tables.failures(failed)
    assert [row[:2] for row in table.rows] == [
        ["0", "failed"], ["7", "failed"], ["12", "interrupted"], ["13", "interrupted"],
        ["15", "failed"], ["16", "failed"],
    ]  # fmt: skip
    assert table.rows[0][2] == "the loss became nan at epoch 3, step 7: a smaller optimizer.lr usually helps"
    assert table.rows[0][3] == quoting.command("optimizer=adam", "activation=relu", "seed=0")
    assert table.rows[2][2] == ""


def test_all_runs_are_listed(failed: Results) -> None:
    table = tables.runs(failed)
    assert (table.choices, table.has_tags) == (["optimizer", "activation"], False)
    assert [row.number for row in table.rows] == [str(number) for number in range(20)]
    assert (table.rows[0].status, table.rows[0].marks) == ("failed", ["diverged"])
    assert table.rows[14].status == "pending"
    assert set(table.rows[14].values) == {""}
    done = dict(zip(table.values, table.rows[1].values, strict=True))
    summary = failed.runs[1].summary
    assert done["validation (%)"] == f"{100 * (summary['best_val_accuracy'] or 0):.2f}"
    assert (done["misses"], done["best epoch"], done["seconds"]) == (str(summary["test_errors"]), "5", "8.1")


def test_runs_of_several_sweeps_name_their_sweep_and_mark_other_versions(folder: Path, tmp_path: Path) -> None:
    old = sweep(tmp_path / "old", **KINDS["one_seed"], versions=VERSIONS | {"torch": "2.13.0"})
    table = tables.runs(read([old, folder]))
    assert table.choices[0] == "sweep"
    assert {row.choices[0] for row in table.rows} == {str(old), str(folder)}
    assert [row.marks for row in table.rows[:4]] == [["torch 2.13.0"]] * 4
    assert not any("torch 2.14.1" in row.marks for row in table.rows)


def test_tags_with_spaces_stand_in_quotes(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])
    edit_summary(folder / "1", {"tags": ["base line", "<b>"]})
    table = tables.runs(read([folder]))
    assert table.has_tags
    assert [row.tags for row in table.rows] == ["", "'base line' '<b>'", "", ""]


def test_provenance_names_data_commands_and_machines(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])
    session = files.unseal((folder / "ledger.jsonl").read_text().splitlines()[0])
    session |= {"allow_changed": True, "git": {"commit": "f00", "dirty": True}, "machine": {"cores": 2}}
    with open(folder / "ledger.jsonl", "a") as file:
        file.write(files.seal(session) + "\n")
    about_sweep, first, second = tables.provenance(read([folder]))
    assert about_sweep == (
        "Sweep",
        [
            ("folder", str(folder)),
            ("data", "MNIST, SHA-256 abc"),
            ("time in runs", "0:00:32 (h:mm:ss), all runs together"),
        ],
    )
    assert (first.heading, second.heading) == ("Command 1 of 2", "Command 2 of 2")
    facts = dict(first.facts)
    assert facts["started"] == "2026-11-23 10:00:00"
    assert (facts["commit"], facts["machine"]) == ("not in a git repository", "not recorded")
    assert "changes" not in facts
    facts = dict(second.facts)
    assert facts["command"] == session["command"]
    assert facts["versions"] == "python 3.11.7, mnist_exp 0.1.0+1a2b3c4d, torch 2.14.1"
    assert (facts["commit"], facts["machine"]) == ("f00, with uncommitted changes", "cores 2")
    assert facts["changes"].startswith("was allowed to continue")


def test_ledger_without_facts_has_a_provenance(folder: Path, tmp_path: Path) -> None:
    """Another version may have written it."""
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])

    def forget(entry: dict[str, object]) -> None:
        if "command" in entry:
            del entry["command"], entry["versions"], entry["git"]

    edit_ledger(folder, forget)
    assert dict(tables.provenance(read([folder]))[1].facts)["versions"] == ""


def test_link_is_relative_and_quoted(failed: Results, folder: Path) -> None:
    assert tables.link(failed.runs[3], folder) == "3/"
    assert tables.link(failed.runs[3], folder.parent / "else where") == "../failed/3/"
    assert tables.link(failed.runs[3], folder.parent.parent) == f"{folder.parent.name}/failed/3/"


def test_the_best_run_by_a_loss_is_the_lowest(make_results: MakeResults) -> None:
    found = make_results({"optimizer": ["adam", "sgd"]}, images=400, spread=0.02, by="log_loss")
    table = tables.leaderboard(found)
    columns = [table.headers.index(header) for header in ("best", "validation, log loss", "worst")]
    for row in table.rows:
        best, mean, worst = (float(row[column]) for column in columns)
        assert best < mean < worst
