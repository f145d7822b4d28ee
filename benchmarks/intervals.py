"""How often the intervals and claims of a report are right: simulated sweeps in which the truth is known.

    python -m benchmarks.intervals [--sweeps 1000] [--workers 2]

Each run reads an image correctly if the sum of normal variables is positive: how good the arm is, how hard the image is
for all arms and for this arm, what the seed does to all arms and to this arm, and chance. The expected difference of
two arms over new seeds and new images is then known, and so is that over new seeds on the same images.

claim        `Comparison.claim`, for new seeds and new images
same images  `Comparison.on_these_images`, for new seeds alone

Prints Markdown tables, and lines of JSON for each setting.
"""

import argparse
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from tqdm import tqdm

from benchmarks import figures
from mnist_exp.report import stats
from mnist_exp.store.ledger import Seeds

SEEDS = (2, 3, 5, 10, 20)
IMAGES = (297, 1_000, 5_000, 10_000)
HARD = 0.6  # variance of how hard an image is for all arms; all variances of a run's sum add up to 1
IMAGE_PARTS = {"none": 0.0, "small": 0.03, "large": 0.3}  # variance of how hard an image is for one arm
KINDS = (  # accuracy of the first arm, by how much it is better, image part, standard deviation of a seed's effect
    *((0.9, 0.0, "none", 0.01), (0.9, 0.02, "large", 0.05), (0.98, 0.0, "none", 0.05), (0.98, 0.0, "small", 0.02)),
    *(
        (0.98, 0.0, "large", 0.02),
        (0.98, 0.004, "small", 0.05),
        (0.998, 0.0, "small", 0.02),
        (0.998, 0.001, "none", 0.05),
    ),
)
ALPHA = 0.05


class Setting(NamedTuple):
    """A kind of sweep."""

    accuracy: float
    gap: float  # by how much the first arm is better than each other one
    image_part: str
    seed_effect: float
    seeds: int
    images: int
    arms: int = 2
    paired: bool = True


class Outcome(NamedTuple):
    """What sweeps of one setting showed."""

    setting: Setting
    sweeps: int
    known: int  # that allow a claim
    covered: int  # whose claim's interval holds the difference for new images
    covered_by_same: int  # whose interval for the same images does so
    same_covered: int  # whose interval for the same images holds the difference on these
    claims: int  # that claim a difference, with p corrected for all pairs
    same_claims: int  # that claim one on these images


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[list[stats.Sample], float]:
    """Return the arms of a sweep, and the expected difference of the first two over new seeds on the same images."""
    k, n, size = setting.arms, setting.seeds, setting.images
    of_arm, of_seed = IMAGE_PARTS[setting.image_part], setting.seed_effect**2
    good = ndtri(np.array([setting.accuracy, *[setting.accuracy - setting.gap] * (k - 1)]))[:, None]
    image = good + math.sqrt(HARD) * rng.normal(size=size) + math.sqrt(of_arm) * rng.normal(size=(k, size))
    together = rng.normal(size=n) if setting.paired else rng.normal(size=(k, n))
    seed = math.sqrt(of_seed / 2) * (together + rng.normal(size=(k, n)))
    chance = math.sqrt(1 - HARD - of_arm - of_seed)
    limits = (-(image[:, None] + seed[:, :, None]) / chance).astype(np.float32)
    right = rng.standard_normal((k, n, size), dtype=np.float32) > limits
    expected = ndtr(image / math.sqrt(1 - HARD - of_arm)).mean(1)
    return [sample(table, 0 if setting.paired else arm * n) for arm, table in enumerate(right)], expected[0] - expected[
        1
    ]


def sample(right: NDArray[np.bool_], first_seed: int = 0) -> stats.Sample:
    """Return an arm from whether each of its runs read each image correctly, (seeds, images)."""
    runs = [Seeds(0, first_seed + number) for number in range(len(right))]
    values = dict(zip(runs, right.mean(1).tolist(), strict=True))
    return stats.Sample(values, dict(zip(runs, right, strict=True)), "simulated")


def outcome(setting: Setting, sweeps: int) -> Outcome:
    """Return what simulated sweeps of one setting show."""
    rng = np.random.default_rng([*map(ord, repr(setting))])
    counts = np.zeros(6, dtype=int)
    for _ in range(sweeps):
        arms, on_these = simulate(setting, rng)
        if setting.arms > 2:
            arms.sort(key=lambda arm: -sum(arm.values.values()))
        found = stats.leader_against_others(arms)
        claim, same = found[0].claim, found[0].on_these_images
        counts += (
            not math.isnan(claim.p),
            claim.low <= setting.gap <= claim.high,
            same.low <= setting.gap <= same.high,
            same.low <= on_these <= same.high,
            any(each.claim.p < ALPHA for each in found),
            any(each.on_these_images.p < ALPHA for each in found),
        )
    return Outcome(setting, sweeps, *counts.tolist())


def looked_at(setting: Setting, sweeps: int) -> Outcome:
    """Return how many sweeps ever claim a difference if one looks after every seed, and stops at a claim."""
    rng = np.random.default_rng([*map(ord, repr(setting))])
    claims = same_claims = 0
    for _ in range(sweeps):
        arms, _ = simulate(setting, rng)
        p = []
        for n in range(2, setting.seeds + 1):
            so_far = [arm._replace(values={run: arm.values[run] for run in [*arm.values][:n]}) for arm in arms]
            found = stats.leader_against_others(so_far, anytime=True)
            p.append([(each.claim.p, each.on_these_images.p) for each in found])
        lowest = np.min(p, axis=(0, 1))
        claims, same_claims = claims + bool(lowest[0] < ALPHA), same_claims + bool(lowest[1] < ALPHA)
    return Outcome(setting, sweeps, sweeps, 0, 0, 0, claims, same_claims)


def coverage(outcomes: Sequence[Outcome], name: str) -> str:
    """Return the mean, and the range over settings, of a share of the sweeps that allow a claim."""
    shares = [100 * getattr(each, name) / each.known for each in outcomes]
    mean = 100 * sum(getattr(each, name) for each in outcomes) / sum(each.known for each in outcomes)
    return f"{mean:.1f} ({min(shares):.1f} to {max(shares):.1f})"


def share(outcomes: Sequence[Outcome], name: str) -> str:
    """Return the mean, and the highest of all settings, of a share of all sweeps."""
    shares = [100 * getattr(each, name) / each.sweeps for each in outcomes]
    return f"{np.mean(shares):.1f} (at most {max(shares):.1f})"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def coverage_row(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the cells that describe some settings."""
    same = [each for each in outcomes if each.setting.gap == 0]
    names = ("covered", "same_covered", "covered_by_same")
    without = 100 * (1 - sum(each.known for each in outcomes) / sum(each.sweeps for each in outcomes))
    cells = [coverage(outcomes, name) for name in names]
    return [str(len(outcomes)), *cells, share(same, "claims"), share(same, "same_claims"), f"{without:.1f}"]


COLUMNS = (
    *("settings", "claim holds the truth, %", "same images: holds the truth on these, %"),
    *("same images: holds the truth for new ones, %", "false claims, %"),
    *("false claims about new images by the same-images test, %", "sweeps without a claim, %"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=1_000, help="simulated sweeps of each setting")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    pairs = [Setting(*kind, n, size) for n, size, kind in itertools.product(SEEDS, IMAGES, KINDS)]
    welch = [Setting(*kind, n, 5_000, paired=False) for n, kind in itertools.product((2, 5, 10), KINDS)]
    many = [
        Setting(0.98, 0.0, part, 0.02, n, 5_000, arms)
        for part, n, arms in itertools.product(IMAGE_PARTS, (2, 5, 10), (3, 6, 12))
    ]
    looks = [Setting(0.98, 0.0, part, 0.02, 20, 5_000, arms) for part, arms in itertools.product(IMAGE_PARTS, (2, 6))]
    work = [(outcome, each) for each in (*pairs, *welch, *many)] + [(looked_at, each) for each in looks]
    with ProcessPoolExecutor(options.workers) as pool:
        futures = [pool.submit(function, setting, options.sweeps) for function, setting in reversed(work)]
        for future in tqdm(futures):
            future.result()
    found = [future.result() for future in reversed(futures)]
    print(
        f"{date.today()}, {options.sweeps:,} sweeps of each setting, which show a share of 95 % to "
        f"{100 * math.sqrt(0.95 * 0.05 / options.sweeps):.1f} points (standard error)"
    )
    of_pairs, found = found[: len(pairs)], found[len(pairs) :]
    of_welch, found = found[: len(welch)], found[len(welch) :]
    of_many, of_looks = found[: len(many)], found[len(many) :]
    for title, columns, field in (
        ("Two arms with shared seeds, by seeds:", "seeds", "seeds"),
        ("by images:", "images", "images"),
        ("by the images' part in the difference:", "image part", "image_part"),
    ):
        groups = dict.fromkeys(getattr(each.setting, field) for each in of_pairs)
        rows = (
            [
                f"{key:,}" if isinstance(key, int) else key,
                *coverage_row([e for e in of_pairs if getattr(e.setting, field) == key]),
            ]
            for key in groups
        )
        table(title, (columns, *COLUMNS), rows)
    rows = ([str(n), *coverage_row([e for e in of_welch if e.setting.seeds == n])] for n in (2, 5, 10))
    table("Two arms without shared seeds (5,000 images), by seeds:", ("seeds", *COLUMNS), rows)
    rows = (
        [arms, *(share([e for e in of_many if e.setting.arms == arms], name) for name in ("claims", "same_claims"))]
        for arms in (3, 6, 12)
    )
    table("Several equal arms, sweeps with any claim:", ("arms", "claim, %", "same-images test, %"), rows)
    rows = ([e.setting.arms, e.setting.image_part, share([e], "claims"), share([e], "same_claims")] for e in of_looks)
    table(
        "Equal arms, looked at after each of 2 to 20 seeds:",
        ("arms", "image part", "claim, %", "same-images test, %"),
        rows,
    )
    every = (*of_pairs, *of_welch, *of_many, *of_looks)
    print()
    for each in every:
        counts = {name: count for name, count in each._asdict().items() if name != "setting"}
        for name in ("claims", "same_claims"):
            figures.line(name, counts[name] / each.sweeps, "", each.sweeps, setting=each.setting._asdict(), **counts)


if __name__ == "__main__":
    main()
