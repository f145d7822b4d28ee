"""Inject faults into the program, and count those that it survives.

python -m tests.torture [--rounds 100] [--only kills disks ...] [--seed 0]

Needs Linux; as root, small file systems are mounted for the faults of disks. Prints a table, and the faults that the
program did not survive.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_STACKSIZE", "512k")  # a thousand threads, which a fuzzed override may ask for, then fit
os.environ.setdefault("MPLBACKEND", "agg")
sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers of the tests


def main() -> None:
    """Run the sections and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="of what is random")
    parser.add_argument("--only", nargs="+", help="sections, or single parts of them")
    parser.add_argument("--seed", type=int, default=None, help="of the moments and places of faults")
    options = parser.parse_args()

    from torture import damage, disks, endurance, fuzz, kills, moments
    from torture.forks import CHANCE

    rounds, few = options.rounds, max(3, options.rounds // 5)
    sections = {
        "kills.random": lambda: kills.at_random_moments(rounds),
        "kills.writes": lambda: kills.in_a_write(rounds),
        "kills.stops": lambda: kills.asked_to_stop(rounds),
        "kills.sweeps": lambda: kills.sweeps(few),
        "kills.fused": lambda: kills.fused_sweeps(few),
        "kills.sequential": lambda: kills.sequential_sweeps(few),
        "kills.searches": lambda: kills.searches(few),
        "moments": lambda: moments.at_every(5 / rounds),
        "disks.full": lambda: disks.full(few),
        "disks.read_only": lambda: disks.read_only(few),
        "disks.deleted": lambda: disks.deleted(few),
        "disks.taken": lambda: disks.taken(few),
        "disks.clock": lambda: disks.clock(few),
        "damage.flips": lambda: damage.flips(rounds),
        "damage.cuts": damage.cuts,
        "damage.swaps": damage.swaps,
        "damage.malice": damage.malice,
        "damage.noise": lambda: damage.noise(rounds),
        "fuzz": lambda: fuzz.fuzz(10 * rounds),
        "endurance.leaks": lambda: endurance.leaks(max(20, 2 * rounds)),
        "endurance.crowd": endurance.crowd,
        "endurance.bits": endurance.bits,
    }
    seed = time.time_ns() % 2**32 if options.seed is None else options.seed
    print(f"seed {seed}, {rounds} rounds", flush=True)
    tallies, begin = [], time.monotonic()
    for name, section in sections.items():
        if options.only and not any(name.startswith(word) for word in options.only):
            continue
        CHANCE.seed(f"{seed} {name}")
        start = time.monotonic()
        tally = section()
        tallies.append(tally)
        print(f"{name}: {tally.survived} of {tally.injected}, {time.monotonic() - start:.0f} s", flush=True)
        for note in tally.notes[:5]:
            print(f"  not survived: {note}", flush=True)
    print(f"\n| what was done | times | survived | bits lost |\n|{'-' * 80}|------:|---------:|----------:|")
    for tally in tallies:
        print(f"| {tally.name:78} | {tally.injected:5} | {tally.survived:8} | {tally.lost:9} |")
    print(f"\n{time.monotonic() - begin:.0f} s")
    sys.exit(any(tally.survived < tally.injected for tally in tallies))


if __name__ == "__main__":
    main()
