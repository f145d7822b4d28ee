"""Files that are altered, cut, swapped or malicious are reported in one line or repaired, and no code in them runs."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from helpers.checkpoints import packed
from helpers.run_folders import contents, learned
from omegaconf import OmegaConf

from mnist_exp.system import files
from mnist_exp.training import checkpoint

from .forks import CHANCE, RECIPES, ROOT, TINY, Tally, folder, run, start, wait

WORDS = [*TINY, "epochs=8", "plots=false", *RECIPES[0]]
SWEEP = ["-m", *TINY, "epochs=8", "optimizer=adam,sgd", "seed=0,1"]
MNIST = ROOT / "data" / "MNIST" / "raw"
OF_A_RUN = ["checkpoints/last.pt", "checkpoints/best.pt", "metrics.csv", ".hydra/config.yaml"]
KINDS = {  # a file, by the folder that it is in and what resumes from it
    **{f"begun/{name}": "begun" for name in OF_A_RUN},
    **{f"whole/{name}": "whole" for name in (*OF_A_RUN, "summary.json")},
    "sweep/ledger.jsonl": "sweep",
    "sweep/0/summary.json": "sweep",
    "sweep/0/metrics.csv": "sweep",
    **{f"sweep/1/{name}": "sweep" for name in OF_A_RUN},
}


@contextmanager
def templates() -> Iterator[Path]:
    """A run that was killed, the same one whole, another one, and a sweep killed in its second job: to be damaged."""
    with folder() as here:
        run(*WORDS, "hydra.run.dir=whole")
        run(*WORDS, "seed=1", "hydra.run.dir=other")
        run(*SWEEP, "hydra.sweep.dir=sweep-whole")
        _kill([*WORDS, "hydra.run.dir=begun"], Path("begun"))
        _kill([*SWEEP, "hydra.sweep.dir=sweep"], Path("sweep/1"))
        (here / "copies").mkdir()
        yield here


def _kill(words: list[str], where: Path) -> None:
    """Do this run, or this sweep with a job there, and kill it after three epochs and more, but before the last."""
    while not where.exists() or not 3 <= checkpoint.load(where / "checkpoints" / "last.pt")["epoch"] < 8:
        shutil.rmtree(words[-1].partition("=")[2], ignore_errors=True)
        pid = start(*words)
        while not (where / "metrics.csv").exists() or len((where / "metrics.csv").read_text().splitlines()) < 5:
            time.sleep(0.001)
        os.killpg(pid, signal.SIGKILL)
        wait(pid)


def _try(kind: str, content: bytes, tally: Tally, what: str) -> None:
    """Put `content` in the place of a file of a copy, resume the copy, and require an error or a repair.

    The report names the damaged files of a sweep's completed jobs.
    """
    template = KINDS[kind]
    copy = Path("copies", str(tally.injected))
    shutil.copytree(template, copy)
    (copy / Path(kind).relative_to(template)).write_bytes(content)
    before = contents(copy)
    if template == "sweep":
        ended = run("-m", f"resume={copy}")
        reported = "jobs failed" in ended.out or (_warned_of(copy, kind) and "ledger" not in kind)
        reported = ended.is_one_line_error or (reported and "Traceback" not in ended.out + ended.err)
        equal = reported or all(learned(copy / str(job)) == learned(Path("sweep-whole", str(job))) for job in range(4))
    else:
        ended = run(f"resume={copy}")
        reported = ended.is_one_line_error and contents(copy) == before
        reported = reported or "equal bits are not guaranteed" in ended.out  # another number of threads, say
        equal = reported or ended.code != 0 or learned(copy) == learned(Path("whole"))
    tally.count(reported or ended.code == 0, equal, f"{what} in {kind}: {ended}")
    shutil.rmtree(copy)


def _warned_of(sweep: Path, kind: str) -> bool:
    """Whether the report on a sweep names the file."""
    report = sweep / "report.md"
    return report.exists() and "/".join(("copies", sweep.name, *Path(kind).parts[1:-1])) in report.read_text()


def flips(rounds: int) -> Tally:
    """One bit of a file is another."""
    tally = Tally("a flipped bit: checkpoint, table, summary, config, ledger")
    with templates():
        for kind in (CHANCE.choice(list(KINDS)) for _ in range(rounds)):
            content = bytearray(Path(kind).read_bytes())
            place, bit = CHANCE.randrange(len(content)), CHANCE.randrange(8)
            content[place] ^= 1 << bit
            _try(kind, bytes(content), tally, f"bit {bit} of byte {place}")
    return tally


def cuts() -> Tally:
    """A file ends too early: at every 4 KiB, and a byte before its end."""
    tally = Tally("a file cut at every 4 KiB and at its last byte, the same kinds, and MNIST's")
    with templates():
        for kind in KINDS:
            content = Path(kind).read_bytes()
            for end in [*range(0, len(content), 4096), len(content) - 1]:
                _try(kind, content[:end], tally, f"cut at {end}")
        for name in ("t10k-labels-idx1-ubyte", "t10k-images-idx3-ubyte") if MNIST.exists() else ():
            content = (MNIST / name).read_bytes()
            for end in [*range(0, len(content), 4096 if "labels" in name else 1 << 20), len(content) - 1]:
                _try_data(name, content[:end], tally)
            flipped = bytearray(content)
            flipped[CHANCE.randrange(len(content))] ^= 1 << CHANCE.randrange(8)
            _try_data(name, bytes(flipped), tally)
    return tally


def _try_data(name: str, content: bytes, tally: Tally) -> None:
    """A run on MNIST with one of its files altered."""
    root = Path("altered")
    shutil.copytree(MNIST, root / "MNIST" / "raw")
    (root / "MNIST" / "raw" / name).write_bytes(content)
    ended = run(f"data.root={root}", "plots=false", "epochs=1")
    tally.count(ended.is_one_line_error and "altered or incomplete" in ended.err, note=f"{name}: {ended}")
    shutil.rmtree(root)


def swaps() -> Tally:
    """Each file is that of another run."""
    tally = Tally("a file that is another run's")
    with templates():
        for kind, template in KINDS.items():
            name = Path(kind).relative_to(template)
            other = Path("other", name.relative_to(name.parts[0]) if template == "sweep" else name)
            if other.is_file():
                _try(kind, other.read_bytes(), tally, "another run's")
    return tally


def noise(rounds: int) -> Tally:
    """Random bytes in the place of each file."""
    tally = Tally("random bytes in the place of a file")
    with templates():
        for kind in (CHANCE.choice(list(KINDS)) for _ in range(rounds)):
            _try(kind, CHANCE.randbytes(CHANCE.choice([1, 100, 5000])), tally, "noise")
    return tally


class _Command:
    """What a pickle can be: a command to run when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (self.command,)


TARGETS = [
    "os.system", "posix.system", "subprocess.call", "builtins.eval", "builtins.exec", "pickle.loads", "shutil.rmtree",
    "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load", "hydra.utils.call", "importlib.import_module",
    "torch.nn.modules.module.os.system", "torch.nn.Module.__init__.__globals__", "torch.nn.init.warnings.sys.exit",
    "mnist_exp.build.os.system", "mnist_exp.build.instantiate", "mnist_exp.data.wheel.subprocess.run",
]  # fmt: skip


KEYS = ["optimizer", "model", "data", "augmentation.rotation", "schedule", "loss", "activation", "model.x"]


def malice() -> Tally:
    """Files and configs that name commands."""
    tally = Tally("pickles and configs that name a command, nested and through resume=")
    with templates():
        marker = Path("ran").absolute()
        command = f"touch {marker}"
        evil = _Command(command)
        whole = checkpoint.load(Path("begun/checkpoints/last.pt"))
        plain = Path("evil.pt")
        torch.save(evil, plain)
        for content in (
            packed({"format": 1, "model": evil}),
            packed(dict(whole) | {"optimizer": {"state": [evil]}}),
            plain.read_bytes(),
        ):
            for kind in ("begun/checkpoints/last.pt", "begun/checkpoints/best.pt"):
                _try(kind, content, tally, "a command")
        config = OmegaConf.load("begun/.hydra/config.yaml")
        for target in TARGETS:
            for key in CHANCE.sample(KEYS, 4):
                altered = OmegaConf.create(OmegaConf.to_container(config))
                OmegaConf.update(altered, key, {"_target_": target, "_args_": [command]}, force_add=True)
                _try("begun/.hydra/config.yaml", OmegaConf.to_yaml(altered).encode(), tally, target)
                word = f"++{key}={{_target_:{target},_args_:['{command}']}}"
                ended = run(*TINY, "epochs=1", word)
                tally.count(ended.is_one_line_error, note=f"{word}: {ended}")
        for text in (f"!!python/object/apply:os.system ['{command}']", "!!python/name:os.system", "${oc.eval:1}"):
            _try("begun/.hydra/config.yaml", Path("begun/.hydra/config.yaml").read_bytes() + f"x: {text}\n".encode(),
                 tally, text)  # fmt: skip
        line = files.seal(
            {
                "time": "",
                "job": 0,
                "status": "pending",
                "overrides": [f"+x={{_target_:os.system,_args_:['{command}']}}"],
            }
        )
        _try("sweep/ledger.jsonl", Path("sweep/ledger.jsonl").read_bytes() + f"{line}\n".encode(), tally, "a command")
        if marker.exists():
            tally.count(False, note="a command was run")
    return tally
