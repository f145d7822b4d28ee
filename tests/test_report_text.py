"""The report as CSV, Markdown and text for a terminal."""

import csv
import io
import re
from pathlib import Path

import pytest
from helpers.arms import arm, comparison, results
from helpers.sweeps import HOSTILE, KINDS, edit_summary, spoil, sweep

from mnist_exp.report import stats, text
from mnist_exp.report.results import Results, read
from mnist_exp.report.text import to_csv, to_markdown, to_terminal
from mnist_exp.system import quoting


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep with jobs of every status."""
    return read([sweep(tmp_path_factory.mktemp("text") / "failed", **KINDS["failed"])])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep of 20 arms."""
    grid = KINDS["large"]["grid"] | {"optimizer.lr": [0.01]}
    return read([sweep(tmp_path_factory.mktemp("text") / "many", grid, range(2))])


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# results.csv


def test_csv_has_a_row_per_run(failed: Results) -> None:
    rows = rows_of(to_csv(failed))
    assert len(rows) == 20
    assert list(rows[0])[:6] == ["number", "config_id", "optimizer", "activation", "seed", "status"]
    assert (rows[0]["status"], rows[0]["failure"]) == ("failed", "diverged")
    assert rows[0]["error"] == "the loss became nan at epoch 3, step 7: a smaller optimizer.lr usually helps"
    summary = failed.runs[1].summary
    assert float(rows[1]["val_accuracy"]) == summary["best_val_accuracy"]
    assert int(rows[1]["test_misses"]) == summary["test_errors"]
    assert (rows[14]["status"], rows[14]["val_loss"], rows[14]["failure"]) == ("pending", "", "")


def test_csv_names_the_sweep_tags_and_early_stops(failed: Results, tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])
    edit_summary(folder / "1", {"tags": ["base line", "<b>"], "stopped": "patience"})
    rows = rows_of(to_csv(read([folder, *failed.folders])))
    assert len(rows) == 24
    assert [(row["sweep"], row["tags"], row["stopped"]) for row in rows[:2]] == [
        (str(folder), "", ""), (str(folder), "'base line' '<b>'", "patience")
    ]  # fmt: skip


# report.md


def test_markdown_has_every_part(failed: Results) -> None:
    text = to_markdown(failed, ["leaderboard.png"])
    counts = "13 of 20 runs completed, 4 failed, 2 interrupted, 1 pending"
    assert text.startswith("# optimizer \u00d7 activation on MNIST\n\n4 arms, 5 seeds, 20 runs; " + counts)
    assert f"\n\n> Not finished: {counts}." in text
    assert "\n\n**`sgd relu` reaches" in text
    assert "\n- Of the 5 runs of `adam relu`, 1 diverged;" in text
    assert "\n| 1 | sgd | relu | 2 of 5 |" in text
    assert "](plots/leaderboard.png)\n" in text
    assert "has no rank" in text
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Leaderboard", "Figures", "Failures", "Provenance"]
    assert "[results.csv](results.csv)" in text


def test_markdown_omits_parts_without_content(tmp_path: Path) -> None:
    text = to_markdown(read([sweep(tmp_path / "s", **KINDS["one_seed"])]), [])
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Leaderboard", "Provenance"]


def test_commands_in_markdown_are_escaped(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"model.hidden_layers": ["[16]", "[32]"]}, spoiled={1: "failed"})
    command = quoting.command("model.hidden_layers=[16]", "seed=1").replace("[", "\\[").replace("]", "\\]")
    assert command in to_markdown(read([folder]), [])


def test_configs_and_errors_mean_nothing_in_markdown(tmp_path: Path) -> None:
    found = read([spoil(sweep(tmp_path / "s", {"name": [HOSTILE, "b"]}, [0], spoiled={1: "failed"}))])
    assert rows_of(to_csv(found))[0]["name"] == HOSTILE
    assert not re.search(r"(?<!\\)<img", re.sub(r"`[^`]*`", "", to_markdown(found, [])))


# The terminal


def test_terminal_shows_the_top_and_the_answer(many: Results) -> None:
    lines = to_terminal(many).splitlines()
    assert lines[0].split()[:5] == ["rank", "optimizer", "activation", "seeds", "validation"]
    assert [line.split()[0] for line in lines[1:11]] == [str(rank) for rank in range(1, 11)]
    assert lines[11] == "... and 10 more arms"
    assert lines[12] == "40 of 40 runs completed"
    assert "leads with" in lines[13] or "has the highest" in lines[13] or "reaches" in lines[13]
    assert not any("`" in line or "\x1b" in line or line != line.rstrip() for line in lines)


def test_terminal_shows_failures_and_warnings(failed: Results) -> None:
    text = to_terminal(failed._replace(warnings=["runs use different versions of torch: 1, 2"]))
    assert "4 of 5; 1 diverged" in text
    assert "13 of 20 runs completed, 4 failed, 2 interrupted, 1 pending" in text
    assert "\nruns use different versions of torch: 1, 2\n" in text
    assert "because runs failed: adam relu (4 of 5 seeds; 1 diverged)" in text


def test_nothing_is_cut_or_wrapped_without_a_width() -> None:
    """A pipe and a log can be searched."""
    value = "x" * 500 + " " + "y" * 500
    found = results([arm("a", choices={"optimizer": value}), arm("b")], [comparison()])
    lines = to_terminal(found).splitlines()
    assert value in lines[1]
    assert "the leader" in lines[1]
    assert value in lines[-1]


@pytest.mark.parametrize("width", [52, 53, 60, 68, 80, 88, 100, 107, 200])
def test_lines_fit_a_terminal(many: Results, failed: Results, width: int) -> None:
    for found in (many, failed):
        lines = to_terminal(found, width).splitlines()
        assert max(map(len, lines)) <= width
        text = " ".join(" ".join(lines).split())
        for each in (*found.compared, *found.failing)[:10]:
            assert f"{100 * each.val.mean:.2f}" in text  # a number is never wrapped
        if width >= 60:
            assert " ".join(found.arms[0].choices.values()) in text or found.arms[0].label in text


def test_values_wider_than_a_terminal_are_folded() -> None:
    value = "x" * 100
    text = to_terminal(results([arm("a", choices={"optimizer": value})]), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("x") == 200  # in the table and in the answer


def test_colour_changes_the_style_alone(failed: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    styled = to_terminal(failed, 80, color=True)
    assert "\x1b[1m" in styled
    plain = re.sub(r"\x1b\[[\d;]*m", "", styled)
    assert [line.rstrip() for line in plain.splitlines()] == to_terminal(failed, 80).splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in to_terminal(failed, 80, color=True)


def test_control_characters_are_escaped() -> None:
    found = results([arm("a", choices={"name\x1b": "red\x1b[31m\nline"}), arm("b")], [comparison()])
    text = to_terminal(found)
    assert "\x1b" not in text
    assert r"red\x1b[31m\nline" in text


def test_markup_of_the_terminal_library_is_text() -> None:
    assert "[red]x[/red] :smile:" in to_terminal(results([arm("a", choices={"n": "[red]x[/red] :smile:"})]))


def test_sweep_without_completed_runs_has_a_short_form(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"], spoiled=dict.fromkeys(range(4), "failed"))
    text = to_terminal(read([folder]))
    assert "0 of 4 runs completed, 4 failed" in text
    assert "No run has completed, so there is nothing to compare. Runs failed: adam relu (0 of 1 seed; 1 div" in text
    assert to_terminal(results([])) == "0 of 0 runs completed\nNo run has completed, so there is nothing to compare."


def test_long_tables_and_many_arms_are_bounded_in_words(many: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "only the pairs with the leader" not in to_markdown(many, [])
    monkeypatch.setattr(text, "MAX_TABLE", 2)
    monkeypatch.setattr(stats, "EVERY_PAIR", 3)
    found = to_markdown(many, [])
    assert f"The first 2 of {len(many.arms)} rows; report.html has all." in found
    assert "With more than 3 arms, only the pairs with the leader are computed" in found
