"""The `mnist-exp` command: `python -m mnist_exp` does the same.

A command is one function in COMMANDS. It takes the arguments after its name, and the first line of its docstring is its
help. Nothing slow may be imported here: `mnist-exp --help` waits for it.
"""

import mnist_exp.system.startup  # noqa: F401  # first of all: Ctrl-C is one line from here on

# isort: split
import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from mnist_exp.system import errors, extras, program, quoting
from mnist_exp.system.errors import ConfigError

EXAMPLES = """\
examples:
  {name} train data=digits epochs=5
  {name} train --help                                     all choices
  {name} sweep optimizer=adam,sgd seed=0,1,2,3,4
  {name} work multirun/2026-11-23/10-00-00-000000           on each machine that sees the folder
  {name} status latest --watch
  {name} report multirun/2026-11-23/10-00-00-000000
  {name} report latest --watch
  {name} predict latest photo.jpg --show seen.png
  {name} draw latest
  {name} export latest --onnx model.onnx
  {name} track tensorboard multirun/2026-11-23/10-00-00-000000
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises errors, where argparse prints some and swallows others."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}; {self.prog} --help says more")

    def print_help(self, _: object = None) -> None:
        """Print the help. Raises OSError where it can't be written."""
        print(self.format_help(), end="", flush=True)


def main() -> None:
    """Run the command that `sys.argv` names, and turn the user's errors into one line."""
    with errors.in_one_line():
        name = "python -m mnist_exp" if Path(sys.argv[0]).name == "__main__.py" else "mnist-exp"
        program.starts_with(f"{name} train")
        run(name, sys.argv[1:])


def run(name: str, args: Sequence[str]) -> None:
    """Run the command that `args` begins with; `name` is what the user typed before it.

    Raises:
        ConfigError: There is no such command, or it can't work as it is typed.
    """
    command, *arguments = args or ["--help"]
    if os.environ.get(program.ALLOW_MORE):  # the user lets configs name classes of their own, which lie in this folder
        sys.path.insert(0, os.getcwd())
    if command in COMMANDS:
        COMMANDS[command](Parser(prog=f"{name} {command}", description=_summary(command)), arguments)
    elif command.startswith("-"):
        _describe(name, command)
    else:
        raise ConfigError(f"{command}: no such command, {errors.offer(command, list(COMMANDS))}")


def train(_: Parser, arguments: list[str]) -> None:
    """Train one model. Takes the overrides and flags of train.py."""
    import runpy

    sys.argv = [str(program.TRAIN), *arguments]
    runpy.run_path(str(program.TRAIN), run_name="__main__")


def sweep(parser: Parser, arguments: list[str]) -> None:
    """Train a grid of models and report on them: train -m."""
    train(parser, ["-m", *arguments])


def work(parser: Parser, arguments: list[str]) -> None:
    """Take jobs from the folder of a sweep, on any machine that sees it."""
    parser.add_argument("folder", metavar="FOLDER", help="of a sweep that hydra/launcher=workers or slurm handed over")
    parser.add_argument("--minutes", metavar="M", type=float, help="stop after this long; unfinished runs can go on")
    parser.add_argument(
        "--n-jobs", metavar="N", type=int, help="train so many runs side by side; by default one a core"
    )
    parser.add_argument("--close", action="store_true", help="train nothing: report, or plan what follows")
    options = parser.parse_args(arguments)
    from mnist_exp.store import sweep_folder

    folder = sweep_folder.find(options.folder)
    if options.minutes is not None and options.minutes <= 0:
        raise ConfigError(f"--minutes {options.minutes:g}: must be more than 0")
    if options.n_jobs is not None and options.n_jobs < 1:
        raise ConfigError(f"--n-jobs {options.n_jobs}: must be 1 or more")
    keys = {"minutes": options.minutes, "n_jobs": options.n_jobs}
    words = [f"hydra.sweeper.{key}={value}" for key, value in keys.items() if value is not None]
    role = "hydra.sweeper.close=true" if options.close else "hydra.sweeper.work=true"
    train(parser, ["-m", quoting.override("resume", folder), role, *words])


def report(parser: Parser, arguments: list[str]) -> None:
    """Report on one or more sweeps, finished or not."""
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="+", type=Path, help="such as multirun/2026-11-23/10-00-00-000000"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the report goes; for one sweep its own folder")
    parser.add_argument(
        "--by",
        metavar="MEASURE",
        default="accuracy",
        help="what ranks the arms: accuracy, balanced_accuracy, log_loss, calibration_error, or accuracy:CLASS",
    )
    parser.add_argument(
        "--predict", action="store_true", help="first compute the predictions that runs lack, from their checkpoints"
    )
    parser.add_argument(
        "--watch", action="store_true", help="write nothing; show one sweep in a browser until it is over, or Ctrl-C"
    )
    parser.add_argument("--port", metavar="N", type=int, help="of this machine, for --watch; by default a free one")
    options = parser.parse_args(arguments)
    if options.watch:
        _watch(parser, options)
        return
    if options.port is not None:
        parser.error("--port: is for --watch")
    without = 0
    if options.predict:
        from mnist_exp.use.recompute import recompute_and_print

        without = recompute_and_print(options.folders)

    from mnist_exp.report.report import write_and_print

    write_and_print(options.folders, options.out, options.by)
    if without:
        sys.exit(1)


def _watch(parser: Parser, options: argparse.Namespace) -> None:
    """Show the report of one sweep in a browser."""
    if options.out or options.predict:
        parser.error("--watch: writes nothing, so it can't be combined with --out or --predict")
    if len(options.folders) > 1:
        parser.error("--watch: shows one sweep at a time; name one folder")

    from mnist_exp.report.live.watch import watch_and_print

    watch_and_print(str(options.folders[0]), options.by, options.port or 0)


def status(parser: Parser, arguments: list[str]) -> None:
    """Say what of a sweep is done, who works on it, and when the rest will be done."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="of a sweep, or latest: the sweep under multirun/ that was written last"
    )
    parser.add_argument("--watch", action="store_true", help="go on until all runs have ended, or Ctrl-C")
    options = parser.parse_args(arguments)

    from mnist_exp.report.status_text import print_status

    print_status(options.folder, options.watch)


def predict(parser: Parser, arguments: list[str]) -> None:
    """Say what the network of a run sees in pictures."""
    from mnist_exp.use.prepare import WAYS

    _add_run(parser)
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="a picture, or a folder with pictures at any depth"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_const", dest="form", const="csv", help="print CSV")
    form.add_argument("--json", action="store_const", dest="form", const="json", help="print JSON, with all classes")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--prepare", metavar="WAY", choices=WAYS, help=f"{', '.join(WAYS)}; by default as the training images were"
    )
    way.add_argument(
        "--raw", action="store_const", dest="prepare", const="pad", help="look for no figure: the same as --prepare pad"
    )
    parser.add_argument("--show", metavar="FILE", type=Path, help="write a picture of what the network was shown")
    options = parser.parse_args(arguments)

    from mnist_exp.use.predict import predict_and_print

    predict_and_print(options.run, options.files, options.form or "table", options.prepare, options.show)


def draw(parser: Parser, arguments: list[str]) -> None:
    """Write a page on which to draw, and on which the network of a run answers."""
    _add_run(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page; by default draw.html in the run's folder")
    options = parser.parse_args(arguments)

    from mnist_exp.use.draw import write_and_print

    write_and_print(options.run, options.out)


def export(parser: Parser, arguments: list[str]) -> None:
    """Write the trained model of a run as an ONNX, a safetensors or a torch.export file."""
    _add_run(parser)
    parser.add_argument(
        "--onnx", metavar="FILE", type=Path, help="for onnxruntime, in Python, C++, JavaScript and others"
    )
    parser.add_argument("--safetensors", metavar="FILE", type=Path, help="the weights, and all that rebuilds the model")
    parser.add_argument("--torch-export", metavar="FILE", type=Path, help="for PyTorch without mnist_exp, as .pt2")
    parser.add_argument("--noise", action="store_true", help="verify on images of noise, not on the test images")
    options = vars(parser.parse_args(arguments))
    run, noise = options.pop("run"), options.pop("noise")
    paths = {name: path for name, path in options.items() if path}
    if len(set(paths.values())) < len(paths):
        parser.error("each format needs a file of its own")
    if not paths:
        parser.error("name a file: --onnx FILE, --safetensors FILE or --torch-export FILE")

    from mnist_exp.use.export import export_and_print

    export_and_print(run, paths, noise)


def track(parser: Parser, arguments: list[str]) -> None:
    """Show runs and sweeps in TensorBoard, MLflow or W&B, finished or not."""
    parser.add_argument("tracker", metavar="TRACKER", choices=extras.TRACKERS, help=", ".join(extras.TRACKERS))
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="of a run or of a sweep")
    parser.add_argument("--to", metavar="WHERE", help="a folder, or MLflow's tracking URI; by default each one's own")
    parser.add_argument("--follow", action="store_true", help="go on until the runs have ended, or Ctrl-C")
    options = parser.parse_args(arguments)

    from mnist_exp.track.track import export_and_print

    export_and_print(options.tracker, options.folders, options.to, options.follow)


def _add_run(parser: Parser) -> None:
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run folder, or latest: the run under outputs/ that trained last"
    )


def _describe(name: str, flag: str) -> None:
    """Do what a flag in the place of a command asks for: --help or --version."""
    parser = Parser(
        prog=name,
        description="Experiments in image classification at MNIST's scale: real data, honest splits, exact repeats.",
        epilog=EXAMPLES.format(name=name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        commands.add_parser(command, help=_summary(command), add_help=False)
    if parser.parse_args([flag]).version:
        from importlib.metadata import version

        print(f"mnist_exp {version('mnist_exp')}")
    else:
        parser.print_help()


def _summary(command: str) -> str:
    return (COMMANDS[command].__doc__ or "").partition("\n")[0]


COMMANDS: dict[str, Callable[[Parser, list[str]], None]] = {
    "train": train,
    "sweep": sweep,
    "work": work,
    "status": status,
    "report": report,
    "predict": predict,
    "draw": draw,
    "export": export,
    "track": track,
}
