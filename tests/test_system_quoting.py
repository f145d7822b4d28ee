"""Commands that the program prints work when they are pasted."""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mnist_exp.system import program, quoting

HARD = [
    "plain", "a/b-c_d.e", "José", "with space", "k=v", "a,b", "[1]", "{a}", "$HOME", "${x}", "back\\slash", "end\\",
    "it's", 'say "so"', "'both\\\"", "#;&|<>*?!~", "(a)", "null", "1e3", "007", "-m", "a:b", "ünï/ço dé", "%20", "@x",
    "日本",
]  # fmt: skip


@pytest.mark.parametrize("name", [*HARD, os.fsdecode(b"caf\xe9"), "tab\there\x1e", "two\nlines"])
def test_a_shell_and_then_hydra_read_the_same_name(name: str, tmp_path: Path) -> None:
    word = quoting.override("resume", name)
    show = f"{sys.executable} -c 'import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]))' "
    pasted = subprocess.run(["bash", "-c", show + quoting.for_shell(word)], capture_output=True, check=True)
    assert os.fsdecode(pasted.stdout) == word
    value = OverridesParser.create().parse_override(os.fsdecode(pasted.stdout)).value()
    assert OmegaConf.create({"resume": value}).resume == name


@pytest.mark.parametrize("name", HARD)
def test_a_config_takes_a_name_as_it_is(name: str) -> None:
    assert OmegaConf.create({"dir": quoting.literal(name)}).dir == name


def test_a_terminal_that_shows_ascii_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    command = quoting.command(quoting.override("resume", "José's"))
    assert command.isascii()
    shown = subprocess.run(["bash", "-c", f"printf %s {command.removeprefix('python train.py ')}"], capture_output=True)
    assert shown.stdout.decode() == 'resume="José\'s"'


def test_a_command_begins_as_the_users_own_did(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quoting.command("-m", "seed=0,1") == "python train.py -m seed=0,1"
    assert quoting.command("seed=1", script="my clone/train.py") == "python 'my clone/train.py' seed=1"
    monkeypatch.setenv(program.COMMAND, "as it was")  # undone after the test
    program.starts_with("mnist-exp train")
    assert quoting.command("-m", "seed=0,1", script="any.py") == "mnist-exp train -m seed=0,1"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["José", "a b", "k=v,[x]", "it's", "caf\udce9"])
def test_a_run_is_resumed_by_the_command_that_it_prints(name: str, tmp_path: Path) -> None:
    """A signal stops the run before its first epoch ends."""
    place = tmp_path / name
    place.mkdir()
    begin = [sys.executable, str(ROOT / "train.py"), "experiment=digits", "epochs=1", "plots=false"]
    stop = {"PYTHONPATH": str(Path(__file__).parent / "stopping"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    folder = quoting.override("hydra.run.dir", place / "run")
    first = subprocess.run([*begin, folder], cwd=place, env=stop, capture_output=True, errors="surrogateescape")
    assert first.returncode == 130, first.stderr
    line = first.stdout.splitlines()[-1]
    again = line.partition("to resume: ")[2]
    command = again.replace("python train.py", shlex.join([sys.executable, str(ROOT / "train.py")]))
    resumed = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, errors="surrogateescape")
    assert (resumed.returncode, resumed.stderr) == (0, ""), command


@pytest.mark.slow
@pytest.mark.parametrize("name", ["José, k=[v]", "caf\udce9"])
def test_a_sweep_is_resumed_by_the_commands_that_it_prints(name: str, tmp_path: Path) -> None:
    """A signal stops the sweep. Its last line resumes it, as the report's does; a failed job's line runs it alone."""
    place = tmp_path / name
    place.mkdir()
    python = shlex.join([sys.executable, str(ROOT / "train.py")])
    words = ["-m", "data=digits", "plots=false", "epochs=50", "optimizer=sgd", "optimizer.lr=0.01,1e9", "seed=0,1"]
    sweep = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *words, quoting.override("hydra.sweep.dir", place / "s")],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="surrogateescape",
    )  # fmt: skip
    said = ""
    while "#0" not in said:
        said += sweep.stdout.readline()  # type: ignore[union-attr]
    sweep.terminate()
    said += sweep.communicate()[0]
    assert sweep.returncode == 143, said
    [resume] = re.findall(r"to resume: (.*)", said)
    report = (place / "s/report.md").read_text()
    assert f"`{resume}`" in report or "caf" in name

    def paste(command: str) -> subprocess.CompletedProcess[str]:
        command = command.replace("python train.py", python)
        return subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, errors="surrogateescape")

    resumed = paste(resume)
    assert "4 of 4 jobs" not in resumed.stdout
    assert (resumed.returncode, "2 of 4 jobs failed" in resumed.stdout) == (1, True), resumed.stderr
    [*_, again] = [line for line in resumed.stdout.splitlines() if line.startswith("      python train.py")]
    alone = paste(again.strip())
    assert (alone.returncode, "the loss became" in alone.stderr) == (1, True), alone.stderr
