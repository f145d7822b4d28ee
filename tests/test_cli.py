"""The mnist-exp command: its help, its errors, and the wheel that brings it."""

import json
import os
import runpy
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_exp import cli
from mnist_exp.report import report
from mnist_exp.store import provenance
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import read_summary
from mnist_exp.system import program
from mnist_exp.system.errors import ConfigError
from mnist_exp.use import export

DIGITS = ["data=digits", "epochs=1", "plots=false", "model.hidden_layers=[8]"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments that train.py was started with, in place of running it."""
    calls: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: calls.append([path, run_name, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(program.COMMAND, "undone after the test")
    return calls


def test_help_waits_for_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; sys.argv = ['mnist-exp', '--help']\n"
        "from mnist_exp.cli import main\n"
        "main()\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'numpy', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")
    for command in cli.COMMANDS:
        assert f"\n    {command} " in ended.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tran"],
            f"tran: no such command, did you mean train? Choose from {', '.join(cli.COMMANDS)}",
        ),
        (["x"], f"x: no such command, choose from {', '.join(cli.COMMANDS)}"),
        (["--foo", "train"], "unrecognized arguments: --foo; mnist-exp --help says more"),
        (["report"], "the following arguments are required: FOLDER; mnist-exp report --help says more"),
        (["report", "s", "--to=x"], "unrecognized arguments: --to=x; mnist-exp report --help says more"),
        (["report", "nowhere"], "nowhere: no such folder"),
        (
            ["export", "run"],
            "name a file: --onnx FILE, --safetensors FILE or --torch-export FILE; mnist-exp export --help says more",
        ),
        (
            ["export", "run", "--onnx", "m", "--safetensors", "m"],
            "each format needs a file of its own; mnist-exp export --help says more",
        ),
        (["export", "--onnx", "m"], "the following arguments are required: RUN; mnist-exp export --help says more"),
        (["export", "nowhere", "--onnx", "m"], "nowhere: no such folder"),
    ],
)
def test_a_wrong_command_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        cli.run("mnist-exp", words)
    assert str(error.value) == message


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.run("mnist-exp", [])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: mnist-exp [-h] [--version] COMMAND ...\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run("mnist-exp", ["--version"])
    assert capsys.readouterr().out == f"mnist_exp {version('mnist_exp')}\n"


def test_train_and_sweep_start_train_py(started: list[list[str]]) -> None:
    cli.run("mnist-exp", ["train", "seed=1", "--cfg", "job"])
    cli.run("mnist-exp", ["sweep", "seed=0,1"])
    train = [str(ROOT / "train.py"), "__main__"]
    assert started == [[*train, "seed=1", "--cfg", "job"], [*train, "-m", "seed=0,1"]]


@pytest.mark.parametrize(("argv", "name"), [("bin/mnist-exp", "mnist-exp"), ("/x/__main__.py", "python -m mnist_exp")])
def test_suggested_commands_begin_with_what_was_typed(
    argv: str, name: str, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [argv, "train"])
    cli.main()
    assert program.beginning() == f"{name} train"
    assert program.tool("draw") == f"{name} draw"
    assert len(started) == 1


def test_the_users_classes_are_importable_only_where_they_are_allowed(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(program.ALLOW_MORE, raising=False)
    cli.run("mnist-exp", ["train"])
    assert str(tmp_path) not in sys.path
    monkeypatch.setenv(program.ALLOW_MORE, "mine")
    cli.run("mnist-exp", ["train"])
    assert sys.path[0] == str(tmp_path)


def test_report_writes_and_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "write_and_print", lambda folders, out, by: print([*map(str, folders)], out, by))
    cli.run("mnist-exp", ["report", "a", "b", "--out", "c"])
    cli.run("mnist-exp", ["report", "a", "--by", "log_loss"])
    assert capsys.readouterr().out == "['a', 'b'] c accuracy\n['a'] None log_loss\n"


def test_export_writes_the_formats_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(export, "export_and_print", lambda *arguments: calls.append(arguments))
    cli.run("mnist-exp", ["export", "run", "--onnx", "m.onnx", "--torch-export=m.pt2"])
    cli.run("mnist-exp", ["export", "--noise", "--safetensors", "m", "run"])
    assert calls == [
        (Path("run"), {"onnx": Path("m.onnx"), "torch_export": Path("m.pt2")}, False),
        (Path("run"), {"safetensors": Path("m")}, True),
    ]


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Build the wheel, install it into a fresh environment, and run commands there, in an empty folder."""
    place = tmp_path_factory.mktemp("installed")
    environment, work = place / "environment", place / "work"
    work.mkdir()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "MNIST_EXP"))}
    variables["PATH"] = f"{environment / 'bin'}:{variables['PATH']}"

    def shell(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=work, env=variables | more, capture_output=True, text=True, timeout=300)

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    steps = [
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)],
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
        ["bash", "-c", f"{' '.join(pip)} --python {environment}/bin/python install --no-deps {place}/*.whl"],
    ]
    for step in steps:
        ended = shell(*step)
        assert ended.returncode == 0, ended.stderr
    [site] = environment.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(paths))  # torch need not be installed once more
    return shell


@pytest.mark.slow
def test_a_wheel_has_the_code_of_the_clone_and_no_commit(installed: Shell) -> None:
    code = "from mnist_exp.store import provenance as p; import json; print(json.dumps([p.versions(), p.git()]))"
    versions, git = json.loads(installed("python", "-c", code).stdout)
    assert (versions["mnist_exp"].partition("+")[2], git) == (
        provenance.versions()["mnist_exp"].partition("+")[2],
        None,
    )
    files = "import mnist_exp, pathlib; print(pathlib.Path(mnist_exp.__file__).parent)"
    package = Path(installed("python", "-c", files).stdout.strip())
    names = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")} | {"train.py", "py.typed"}
    assert {name for name in names if not (package / name).is_file()} == set()


@pytest.mark.slow
def test_commands_of_a_wheel(installed: Shell) -> None:
    assert installed("python", "-m", "mnist_exp", "--help").stdout.startswith("usage: python -m mnist_exp")
    assert "\n  mnist-exp train optimizer=sgd" in installed("mnist-exp", "train", "--help").stdout
    ended = installed("mnist-exp", "sweep", *DIGITS, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (ended.returncode, ended.stderr) == (0, "")
    folder = Path(installed("pwd").stdout.strip())
    [session], jobs = Ledger(folder / "sweep").read()
    assert session["command"].startswith("mnist-exp train -m data=digits ")
    assert [job.status for job in jobs.values()] == ["completed"] * 2
    assert installed("mnist-exp", "report", "sweep").stdout.splitlines()[-1] == "sweep/report.html"

    ended = installed("mnist-exp", "train", *DIGITS, "hydra.run.dir=run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1].endswith(f"mnist-exp draw {folder / 'run'}")
    assert installed("mnist-exp", "draw", "run").stdout.endswith("open it in a browser\n")
    ended = installed("python", "-c", "import mnist_exp; mnist_exp.train('resume=run')")
    assert "run: the run is completed, with " in ended.stdout, ended.stderr
    ended = installed("mnist-exp", "sweep", "resume=run")
    assert "mnist-exp train resume=run" in ended.stderr
    ended = installed("mnist-exp", "sweep", *DIGITS, "optimizer=sgd", "optimizer.lr=1e9,1e10", "hydra.sweep.dir=failed")
    [again, _] = [line.strip() for line in ended.stdout.splitlines() if line.startswith("      mnist-exp train ")]
    assert "the loss became" in installed("bash", "-c", again).stderr


@pytest.mark.slow
def test_options_and_classes_of_the_users_own(installed: Shell) -> None:
    folder = Path(installed("pwd").stdout.strip())
    (folder / "conf/optimizer").mkdir(parents=True)
    option = "_target_: own.Mine\nlr: 0.1\nlr_range: [0.01, 1.0]\nweight_decay: 0.0\n"
    (folder / "conf/optimizer/mine.yaml").write_text(option)
    (folder / "own.py").write_text("from torch.optim import SGD\nclass Mine(SGD): ...\n")
    refused = installed("mnist-exp", "train", *DIGITS, "optimizer=mine")
    assert refused.stderr.startswith("error: optimizer._target_=own.Mine: not run; a config may name ")
    mistyped = installed("mnist-exp", "train", *DIGITS, "optimizer=mine", "optimizer.lr=no")
    assert mistyped.stderr == "error: optimizer.lr=no: must be a number like 0.1, as in optimizer/mine.yaml\n"
    for launcher in ("joblib", "fused"):
        words = [*DIGITS, "optimizer=mine", "seed=0,1", f"hydra/launcher={launcher}", f"hydra.sweep.dir=own/{launcher}"]
        ended = installed("mnist-exp", "sweep", *words, MNIST_EXP_ALLOW="own")
        assert (ended.returncode, ended.stderr) == (0, ""), launcher
    summary = read_summary(folder / "own/fused/0")
    assert summary is not None
    assert summary["status"] == "completed"
