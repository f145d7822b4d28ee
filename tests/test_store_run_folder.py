"""A run folder: its summary, its owner, and what clearing it leaves."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_exp.store import run_folder
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError


def completed(folder: Path, config_id: str = "abc") -> run_folder.Summary:
    summary = run_folder.empty_summary()
    summary["status"], summary["config_id"] = "completed", config_id
    run_folder.write_summary(folder, summary)
    return summary


def test_a_summary_comes_back_and_is_json(tmp_path: Path) -> None:
    summary = completed(tmp_path)
    assert run_folder.read_summary(tmp_path) == summary
    assert json.loads((tmp_path / "summary.json").read_text()).keys() == summary.keys() | {"checksum"}
    assert run_folder.read_summary(tmp_path / "none") is None


def test_an_altered_summary_is_refused(tmp_path: Path) -> None:
    completed(tmp_path)
    path = tmp_path / "summary.json"
    path.write_text(path.read_text().replace("completed", "failed"))
    with pytest.raises(ConfigError, match="is damaged: its checksum does not match"):
        run_folder.read_summary(tmp_path)
    assert not run_folder.has_status(tmp_path, "abc", "completed")


def test_keys_that_came_later_may_be_missing_and_others_may_not(tmp_path: Path) -> None:
    facts = dict(completed(tmp_path))
    for key in run_folder.ADDED:
        del facts[key]
    (tmp_path / "summary.json").write_text(files.seal(facts))
    read = run_folder.read_summary(tmp_path)
    assert read
    assert (read["stopped"], read["tags"]) == (None, None)
    del facts["epochs"]
    (tmp_path / "summary.json").write_text(files.seal(facts))
    with pytest.raises(ConfigError, match="was written by another version: it lacks epochs"):
        run_folder.read_summary(tmp_path)


def test_only_the_same_config_has_the_status(tmp_path: Path) -> None:
    assert not run_folder.has_status(tmp_path, "abc", "completed")
    completed(tmp_path)
    assert run_folder.has_status(tmp_path, "abc", "completed")
    assert not run_folder.has_status(tmp_path, "other", "completed")


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        claims = [threads.submit(run_folder.claim, tmp_path / "run") for _ in range(8)]
    errors = [claim.exception() for claim in claims]
    assert sorted(type(error).__name__ for error in errors) == ["FileExistsError"] * 7 + ["NoneType"]
    assert run_folder.owner(tmp_path / "run") == "a run"
    (tmp_path / "sweep" / "3").mkdir(parents=True)
    (tmp_path / "sweep" / "ledger.jsonl").touch()
    assert run_folder.owner(tmp_path / "sweep") == "a sweep"
    assert run_folder.owner(tmp_path / "sweep" / "3") == "a job of a sweep"
    assert run_folder.owner(tmp_path / "sweep" / "notes") is run_folder.owner(tmp_path) is None


def test_of_two_that_found_the_folder_free_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "owner", lambda folder: None)  # both asked before either wrote
    run_folder.claim(tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run"):
        run_folder.claim(tmp_path / "run")


def test_a_folder_that_can_not_be_created_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.*: Not a directory; hydra.run.dir=FOLDER chooses another folder"):
        run_folder.create(tmp_path / "file" / "run", "hydra.run.dir")


def test_clearing_leaves_the_log_and_other_files(tmp_path: Path) -> None:
    for name in (*run_folder.CHECKSUMMED, "summary.json", ".hydra/config.yaml", "plots/curves.png", "a/.x.12.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("train.log", "plots/mine.png", "notes.txt"):
        (tmp_path / name).touch()
    run_folder.clear(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"train.log", "plots", "plots/mine.png", "notes.txt"}


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch\n")
    summary = {"files": {"metrics.csv": files.sha256(tmp_path / "metrics.csv")}}
    assert run_folder.is_unaltered(tmp_path, summary, "metrics.csv")
    (tmp_path / "metrics.csv").write_text("epoch\n1\n")
    assert not run_folder.is_unaltered(tmp_path, summary, "metrics.csv")
    assert not run_folder.is_unaltered(tmp_path, summary, "checkpoints/best.pt")
    assert not run_folder.is_unaltered(tmp_path, {"files": None}, "metrics.csv")
