"""How fast processes claim batches in one folder, as workers on many nodes do, while some of them are killed.

    python -m benchmarks.claims [--claims 1000000] [--nodes 64] [--kills 64] [--folder DIR]

Each node is a process that takes batches and marks them as done, and writes nothing else. Now and then one is killed by
SIGKILL while it holds a batch, and another takes its place. At the end, the files say whether every batch was done,
and the notes of the nodes whether any attempt at a batch was made by two. Prints one line of JSON for each figure.
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np

from benchmarks import figures
from mnist_exp.store import claims
from mnist_exp.store.claims import Claims

FORK = multiprocessing.get_context("fork")


def node(folder: Path, name: str, batches: int, kill_after: int | None) -> None:
    """Take batches until all are done, and note each. Be killed while holding the batch of a number."""
    its = Claims(folder, name, range(batches))
    with open(folder / f"{name}.taken", "wb", buffering=0) as notes:
        count = 0
        while not its.are_done():
            claim = its.take(lambda other: (folder / f"{other}.dead").exists())
            if not claim:
                time.sleep(0.05)
                continue
            notes.write(np.array(claim, dtype=np.int64).tobytes())
            count += 1
            if count == kill_after:
                (folder / f"{name}.dead").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            its.finish(claim)


def start(folder: Path, number: int, batches: int, kill_after: int | None) -> ForkProcess:
    """Start a node."""
    process = FORK.Process(target=node, args=(folder, f"node{number}", batches, kill_after), daemon=True)
    process.start()
    return process


def measure(folder: Path, batches: int, nodes: int, kills: int) -> dict[str, float]:
    """Have nodes take all batches, kill some, and return what was measured."""
    chance, began = random.Random(0), time.perf_counter()
    share = max(2, batches // nodes)
    # A node is killed within the first half of its share, and so is certain to get there.
    running = [
        start(folder, number, batches, chance.randrange(1, share // 2 + 1) if number < kills else None)
        for number in range(nodes)
    ]
    killed = 0
    while running:
        for process in [process for process in running if not process.is_alive()]:
            running.remove(process)
            if process.exitcode == -signal.SIGKILL:
                killed += 1
                running.append(start(folder, nodes + killed, batches, None))
            elif process.exitcode:
                raise RuntimeError(f"a node ended with exit code {process.exitcode}")
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    taken = np.concatenate([np.fromfile(path, dtype=np.int64).reshape(-1, 2) for path in folder.glob("*.taken")])
    states = claims.read(folder, range(batches))
    return {
        "claims": len(taken),
        "claims_per_second": round(len(taken) / seconds),
        "seconds": round(seconds, 1),
        "nodes": nodes,
        "killed": killed,
        "taken_twice": len(taken) - len(np.unique(taken, axis=0)),
        "batches": batches,
        "done": sum(state.is_done for state in states.values()),
        "attempts": sum(state.attempt for state in states.values()),
    }


def main() -> None:
    """Read the command line, measure, and print a line of JSON for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--kills", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where the claims go, on the file system to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.claims, options.nodes, min(options.kills, options.nodes))
    units = {"seconds": "s", "claims_per_second": "1/s"}
    for name, value in found.items():
        figures.line(name, value, units.get(name, "count"))


if __name__ == "__main__":
    main()
