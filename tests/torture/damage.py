"""Files that were altered, cut, swapped, or made to do harm: told in a line, or mended, and nothing of them is run."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from runs import contents, learned

from mnist_exp import checkpoint, files
from tests.torture.forks import CHANCE, RECIPES, ROOT, TINY, Tally, folder, run, start, wait

WORDS = [*TINY, "epochs=8", "plots=false", *RECIPES[0]]
SWEEP = ["-m", *TINY, "epochs=2", "optimizer=adam,sgd", "seed=0,1"]
MNIST = ROOT / "data" / "MNIST" / "raw"
OF_A_RUN = ["checkpoints/last.pt", "checkpoints/best.pt", "metrics.csv", ".hydra/config.yaml"]
KINDS = {  # a file, by the folder that it is in and what goes on from it
    **{f"begun/{name}": "begun" for name in OF_A_RUN},
    **{f"whole/{name}": "whole" for name in (*OF_A_RUN, "summary.json")},
    "sweep/ledger.jsonl": "sweep",
    "sweep/0/checkpoints/last.pt": "sweep",
    "sweep/0/summary.json": "sweep",
}


@contextmanager
def templates() -> Iterator[Path]:
    """A run that was killed, the same one whole, another one, and a sweep that was killed, to be copied and damaged."""
    with folder() as here:
        run(*WORDS, "hydra.run.dir=whole")
        run(*WORDS, "seed=1", "hydra.run.dir=other")
        while not _is_begun(Path("begun")):
            shutil.rmtree("begun", ignore_errors=True)
            pid = start(*WORDS, "hydra.run.dir=begun")
            while not Path("begun/metrics.csv").exists() or len(Path("begun/metrics.csv").read_text().splitlines()) < 5:
                pass
            os.kill(pid, signal.SIGKILL)
            wait(pid)
        run(*SWEEP, "hydra.sweep.dir=sweep-whole")
        shutil.copytree("sweep-whole", "sweep")
        lines = Path("sweep/ledger.jsonl").read_text().splitlines(keepends=True)
        ends = [number for number, line in enumerate(lines) if '"completed"' in line]
        Path("sweep/ledger.jsonl").write_text("".join(lines[: ends[0]]))  # as if killed before the first one's end
        (here / "copies").mkdir()
        yield here


def _is_begun(where: Path) -> bool:
    """Whether it was killed after its best epoch, so that both checkpoints matter."""
    try:
        state = checkpoint.load(where / "checkpoints" / "last.pt")
    except (OSError, ValueError):
        return False
    return 3 <= state["epoch"] < 8


def _try(kind: str, content: bytes, tally: Tally, what: str) -> None:
    """Put `content` in the place of a file of a copy, go on with the copy, and see."""
    template = KINDS[kind]
    copy = Path("copies", str(tally.injected))
    shutil.copytree(template, copy)
    (copy / Path(kind).relative_to(template)).write_bytes(content)
    before = contents(copy)
    many = ["-m"] if template == "sweep" else []
    ended = run(*many, f"resume={copy}")
    told = ended.is_told_in_one_line and (many or contents(copy) == before)
    failed = many and ended.code == 1 and "jobs failed" in ended.out and "Traceback" not in ended.out
    changed = "can't be promised" in ended.out  # of a number of threads, say
    pairs = [(copy / str(job), Path("sweep-whole", str(job))) for job in range(4)] if many else [(copy, Path("whole"))]
    equal = ended.code != 0 or changed or kind.endswith("best.pt") or all(_same(*pair) for pair in pairs)
    tally.count(bool(told or failed or ended.code == 0), equal, f"{what} in {kind}: {ended}")
    shutil.rmtree(copy)


def _same(found: Path, expected: Path) -> bool:
    try:
        return bool(learned(found) == learned(expected))
    except (OSError, ValueError, KeyError):
        return found.name == "0" and "damaged" in _report_on(found.parent)


def _report_on(sweep: Path) -> str:
    """What the report of a sweep warns of."""
    return (sweep / "report.md").read_text()


def flips(rounds: int) -> Tally:
    """One bit of a file is another."""
    tally = Tally("a flipped bit: checkpoint, table, summary, config, ledger")
    with templates():
        for kind in (CHANCE.choice(list(KINDS)) for _ in range(rounds)):
            content = bytearray(Path(kind).read_bytes())
            place, bit = CHANCE.randrange(len(content)), CHANCE.randrange(8)
            content[place] ^= 1 << bit
            _try(kind, content, tally, f"bit {bit} of byte {place}")
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
            _try_data(name, flipped, tally)
    return tally


def _try_data(name: str, content: bytes, tally: Tally) -> None:
    """A run on MNIST with one of its files altered."""
    root = Path("altered")
    shutil.copytree(MNIST, root / "MNIST" / "raw")
    (root / "MNIST" / "raw" / name).write_bytes(content)
    ended = run(f"data.root={root}", "plots=false", "epochs=1")
    tally.count(ended.is_told_in_one_line and "altered or incomplete" in ended.err, note=f"{name}: {ended}")
    shutil.rmtree(root)


def swaps() -> Tally:
    """Each file is that of another run."""
    tally = Tally("a file that is another run's")
    with templates():
        for kind in KINDS:
            name = Path(kind).relative_to(KINDS[kind])
            other = Path("other", name.relative_to("0") if name.parts[0] == "0" else name)
            if other.exists():
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
    "mnist_exp.build.os.system", "mnist_exp.build.instantiate", "mnist_exp.data.sources.subprocess.run",
]  # fmt: skip


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
            bytes(checkpoint.pack({"format": 1, "model": evil})),
            bytes(checkpoint.pack(whole | {"optimizer": {"state": [evil]}})),
            plain.read_bytes(),
        ):
            for kind in ("begun/checkpoints/last.pt", "begun/checkpoints/best.pt"):
                _try(kind, content, tally, "a command")
        config = OmegaConf.load("begun/.hydra/config.yaml")
        for target in TARGETS:
            for key in (
                "optimizer",
                "model",
                "data",
                "augmentation.rotation",
                "schedule",
                "loss",
                "activation",
                "model.x",
            ):
                altered = OmegaConf.create(OmegaConf.to_container(config))
                OmegaConf.update(altered, key, {"_target_": target, "_args_": [command]}, force_add=True)
                _try("begun/.hydra/config.yaml", OmegaConf.to_yaml(altered).encode(), tally, target)
                word = f"++{key}={{_target_:{target},_args_:['{command}']}}"
                ended = run(*TINY, "epochs=1", word)
                tally.count(ended.is_told_in_one_line, note=f"{word}: {ended}")
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
