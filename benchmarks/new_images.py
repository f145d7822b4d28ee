"""How often a claim that is made on one half of the validation images fails on the other half.

    python -m benchmarks.new_images SWEEP [--splits 200] [--seeds 10]

SWEEP is a sweep of two arms or more with at least twice that many seeds, such as

    python train.py -m activation=relu,gelu,silu,tanh 'seed=range(0,20)' hydra/launcher=fused hydra.sweep.dir=SWEEP

Its validation images are split in halves at random, again and again. On one half, and with half of the seeds, each pair
of arms is compared at p < 0.05: by a paired t test over the seeds, which holds for other seeds on the same images, and
by the test for new seeds and new images. A claim fails if the other half of the images, with the other half of the
seeds, says the opposite: the arm that was better is worse there, or equal.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import figures
from mnist_exp.report import results, stats
from mnist_exp.store.ledger import Seeds

ALPHA = 0.05


def sample(right: NDArray[np.bool_], first_seed: int) -> stats.Sample:
    """Return what statistics need to know of an arm.

    Args:
        right: Whether each run got each image right, (seeds, images).
        first_seed: The seed of its first run.
    """
    seeds = [Seeds(0, first_seed + row) for row in range(len(right))]
    values = dict(zip(seeds, right.mean(axis=1).tolist(), strict=True))
    return stats.Sample(values, dict(zip(seeds, right, strict=True)), image_source="half")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10, help="of a claim; as many others check it")
    options = parser.parse_args()
    arms = results.read([options.sweep]).arms
    right = {arm.label: np.array([run.images for run in arm.runs]) for arm in arms}
    rng, n = np.random.default_rng(0), options.seeds
    found: dict[str, dict[str, list[int]]] = {}  # by pair and way: comparisons, claims, claims that failed
    for _ in range(options.splits):
        runs = rng.permutation(next(iter(right.values())).shape[0])[: 2 * n]
        halves = np.array_split(rng.permutation(next(iter(right.values())).shape[1]), 2)
        for a, b in combinations(right, 2):
            first, second = (sample(right[arm][runs[:n]][:, halves[0]], 0) for arm in (a, b))
            pair = stats.compare(first, second)
            check = (right[a][runs[n:]][:, halves[1]].mean() - right[b][runs[n:]][:, halves[1]].mean()).item()
            for way, p in (("these images", pair.on_these_images.p), ("new images", pair.claim.p)):
                counts = found.setdefault(f"{a} or {b}", {}).setdefault(way, [0, 0, 0])
                counts[0] += 1
                counts[1] += int(p < ALPHA)
                counts[2] += int(p < ALPHA and np.sign(check) != np.sign(pair.difference))
    show(found, {label: float(array.mean()) for label, array in right.items()})
    for names, ways in found.items():
        for way, (comparisons, claims, failed) in ways.items():
            facts = {"splits": options.splits, "seeds": n, "comparisons": comparisons}
            figures.line(f"{names}, {way}: claims that fail", failed / claims if claims else None, "", claims, **facts)


def show(found: dict[str, dict[str, list[int]]], accuracy: dict[str, Any]) -> None:
    """Print a table in Markdown."""
    print("| Arms | Difference, all images and seeds | Same images: claims | fail | New images: claims | fail |")
    print("|---|--:|--:|--:|--:|--:|")
    total = {way: np.zeros(3, dtype=int) for way in ("these images", "new images")}
    for pair, ways in found.items():
        a, b = pair.split(" or ")
        cells = [pair, f"{100 * (accuracy[a] - accuracy[b]):.2f} pp"]
        for way, counts in ways.items():
            total[way] += np.array(counts)
            cells += _cells(counts)
        print(f"| {' | '.join(cells)} |")
    print(f"| all | | {' | '.join(cell for counts in total.values() for cell in _cells(counts))} |")


def _cells(counts: Any) -> list[str]:
    """Return the share of comparisons with a claim, and the share of claims that failed."""
    comparisons, claims, failed = map(int, counts)
    share = f"{100 * failed / claims:.0f} %" if claims else "none"
    return [f"{100 * claims / comparisons:.0f} %", f"{share} ({failed} of {claims})"]


if __name__ == "__main__":
    main()
