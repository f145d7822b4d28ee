"""The user's ./conf is searched first, by this program alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

from hydra_plugins.mnist_exp.searchpath import UserConf
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.program import CONF


def searched(main: str) -> list[str]:
    """Return the search path of a program whose own folder of configs is `main`."""
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    path.append("main", main)
    UserConf().manipulate_search_path(path)
    return [element.path for element in path.get_path()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ./conf of the user's, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf"


def test_it_comes_before_the_programs_own(folder: Path) -> None:
    assert searched(str(CONF)) == ["pkg://hydra.conf", f"file://{folder}", str(CONF)]


@pytest.mark.parametrize("main", ["/elsewhere/conf", "pkg://other.conf"])
def test_other_hydra_programs_do_not_search_it(folder: Path, main: str) -> None:
    assert searched(main) == ["pkg://hydra.conf", main]


def test_the_programs_own_is_not_searched_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONF.parent)
    assert searched(str(CONF)) == ["pkg://hydra.conf", str(CONF)]
    os.symlink(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    assert searched(str(CONF)) == ["pkg://hydra.conf", str(CONF)]


def test_a_file_of_that_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").write_text("")
    assert searched(str(CONF)) == ["pkg://hydra.conf", str(CONF)]


def test_the_folder_of_another_hydra_program_is_refused(folder: Path) -> None:
    (folder / "config.yaml").write_text("defaults:\n  - db: mysql\n")
    with pytest.raises(ConfigError, match=r"conf/config.yaml: the config of another program"):
        searched(str(CONF))
    (folder / "config.yaml").write_text((CONF / "config.yaml").read_text())
    assert searched(str(CONF))[1] == f"file://{folder}"


def test_an_option_of_the_same_name_replaces_the_programs_and_its_types(
    folder: Path, run: Callable[..., Outcome]
) -> None:
    (folder / "optimizer").mkdir()
    (folder / "optimizer/adam.yaml").write_text("_target_: torch.optim.Adam\nlr: high\n")
    assert "  lr: high\n" in run(*TINY, "--cfg", "job").out
    assert run(*TINY).err == "error: optimizer.lr=high: must be more than 0"  # for its own file, a text is as good
