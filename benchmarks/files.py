"""What a run of a sweep leaves on the disk: files, folders and bytes, for each value of hydra.launcher.keep.

python -m benchmarks.files FOLDER     of a sweep that kept all
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks import figures
from mnist_exp.store import keeping
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import WORKERS

BLOCK = 4096  # bytes: a file takes whole blocks on most file systems, and a folder at least one


def kept(run: Path, keep: str) -> list[Path]:
    """The files of a run that are kept, but for figures and pages that somebody asked for later."""
    dropped = {run / name for name in keeping.DROPPED[keep]}
    return [path for path in run.rglob("*") if path.is_file() and path not in dropped]


def on_disk(size: int) -> int:
    """The bytes of the blocks that a file of this size takes."""
    return -(-size // BLOCK) * BLOCK


def spread(name: str, values: Sequence[float], unit: str) -> str:
    """The mean, and the range; and a line of JSON."""
    figures.line(f"{name}, mean", fmean(values), unit, len(values), (min(values), max(values)))
    return f"{fmean(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def main(folder: Path) -> None:
    """Print a row for each value, and the bytes of the ledger for each job."""
    jobs = Ledger(folder).read()[1]
    runs = [folder / str(number) for number, job in jobs.items() if job.status == "completed"]
    print(f"{len(runs)} runs")
    print("keep  files  folders  bytes  bytes in blocks")
    for keep in keeping.DROPPED:
        files = [kept(run, keep) for run in runs]
        folders = {len({path.parent for path in each}) for each in files}
        sizes = [[path.stat().st_size for path in each] for each in files]
        blocks = [sum(map(on_disk, each)) + max(folders) * BLOCK for each in sizes]
        counts = spread(f"files with keep={keep}", [len(each) for each in files], "files")
        size = spread(f"size with keep={keep}", list(map(sum, sizes)), "bytes")
        blocks_taken = spread(f"blocks with keep={keep}", blocks, "bytes")
        print(f"{keep}  {counts}  {max(folders)}  {size}  {blocks_taken}")
    ledgers = [Ledger(folder).path, *(folder / WORKERS).glob("*.jsonl")]
    share = sum(path.stat().st_size for path in ledgers) / len(jobs)
    print(f"ledger: {share:,.0f} bytes a job")
    figures.line("ledger, mean per job", share, "bytes", len(jobs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
