"""Inject each fault of a cluster into sweeps that a real Slurm trains, and count those that are survived.

python -m tests.slurm [--rounds 20] [--only preempted killed ...] [--fused] [--seed 0]

Needs root, and Debian's packages slurm-wlm and munge. Prints a row for each fault, and what was not survived.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers of the tests


def main() -> None:
    """Inject the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each fault")
    parser.add_argument("--only", nargs="+", help="names of faults")
    parser.add_argument("--fused", action="store_true", help="train jobs that are alike as one")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the faults")
    options = parser.parse_args()

    from slurm import faults
    from slurm.cluster import Cluster
    from torture.forks import Tally, folder

    chosen = [fault for fault in faults.FAULTS if not options.only or fault.__name__ in options.only]
    tallies = {fault: Tally((fault.__doc__ or "").rstrip(".")) for fault in chosen}
    with folder() as home:
        cluster = Cluster(home)
        os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        cluster.start("munged", "slurmctld", "slurmd")
        try:
            words = faults.FUSED if options.fused else []
            expected = faults.undisturbed(home / "undisturbed", *words, *(["hydra/launcher=workers"] if words else []))
            for round_number in range(options.rounds):
                for fault, tally in tallies.items():
                    begin, chance = time.monotonic(), random.Random(f"{options.seed} {fault.__name__} {round_number}")
                    sweep = faults.SlurmSweep(cluster, home / f"{fault.__name__}-{round_number}", *words, chance=chance)
                    try:
                        wrong = faults.survive(sweep, fault, expected)
                    except (AssertionError, TimeoutError, OSError) as error:
                        wrong = [repr(error)[-2000:]]
                        cluster.call("scancel", "--user=root")
                        sweep.wait_for_the_end()
                    tally.count(not wrong, not any("bits" in each for each in wrong), f"round {round_number}: {wrong}")
                    print(f"{fault.__name__} {round_number}: {wrong or 'survived'}, {time.monotonic() - begin:.0f} s")
                    sys.stdout.flush()
        finally:
            cluster.stop()
    print(f"\n| what was done | times | survived | bits lost |\n|{'-' * 80}|------:|---------:|----------:|")
    for tally in tallies.values():
        print(f"| {tally.name:78} | {tally.injected:5} | {tally.survived:8} | {tally.lost:9} |")
    sys.exit(any(tally.survived < tally.injected for tally in tallies.values()))


if __name__ == "__main__":
    main()
