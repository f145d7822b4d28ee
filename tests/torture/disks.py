"""What disks and clocks do: fill up, turn read-only, lose a folder, give one name to two runs, go back in time."""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.run_folders import learned

from .forks import CHANCE, RECIPES, TINY, Ended, Tally, folder, run, start, undisturbed, wait

WORDS = [*TINY, "epochs=6", "plots=true", *RECIPES[0]]
CAPABILITIES = 0x20080522  # the version of the structures of capget and capset, linux/capability.h
OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root write where nobody may
IS_ROOT = os.geteuid() == 0


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A file system of so many kilobytes, in this folder."""
    place = Path("disk").absolute()
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def full(rounds: int) -> Tally:
    """The disk fills up anywhere: checkpoint, table, picture, log, config. With room again, the run resumes."""
    tally = Tally("a disk that fills up: checkpoint, table, picture, log, config")
    if not IS_ROOT:
        return tally
    with folder():
        undisturbed(WORDS, "outputs/whole")
        expected = learned(Path("outputs/whole"))
        whole = sum(path.stat().st_size for path in Path("outputs/whole").rglob("*") if path.is_file()) // 1024
        for number in range(rounds):
            size = 4 * (1 + number * whole // (4 * rounds))  # from next to nothing to nearly enough, by pages
            with small_disk(size) as disk:
                ended = run(*WORDS, f"hydra.run.dir={disk}/it")
                subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
                _went_on(disk / "it", ended, expected, tally, f"{size} KB")
    return tally


def _went_on(where: Path, ended: Ended, expected: object, tally: Tally, what: str) -> None:
    """Whether the run said in one line what was wrong, left nothing torn, and goes on with the same bits."""
    fine = ended.code == 0 or ended.is_one_line_error
    again = run(f"resume={where}")
    if again.code == 0:
        tally.count(fine, learned(where) == expected, f"{what}: {ended}")
    else:  # it had not begun
        nothing = again.is_one_line_error and not (where / "checkpoints" / "last.pt").exists()
        tally.count(fine and nothing, note=f"{what}: {ended}, {again}")


def read_only(rounds: int) -> Tally:
    """The run's folder may not be written in any more, from a random moment on."""
    tally = Tally("a run folder that turns read-only")
    with folder() as here:
        seconds = undisturbed(WORDS, "outputs/whole")
        expected = learned(Path("outputs/whole"))
        for number in range(rounds):
            place = here / f"place-{number}"
            place.mkdir()
            pid = start(*WORDS, f"hydra.run.dir={place}/it", prepare=_obey_permissions)
            time.sleep(CHANCE.uniform(0, seconds))
            folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
            for path in folders:
                path.chmod(0o555)
            ended = wait(pid)
            for path in [place, *(path for path in place.rglob("*") if path.is_dir())]:
                path.chmod(0o755)
            if (place / "it").exists():
                _went_on(place / "it", ended, expected, tally, f"round {number}")
            else:
                tally.count(ended.is_one_line_error, note=str(ended))
    return tally


def _obey_permissions() -> None:
    """Have root heed the permissions of folders, as everybody else does."""
    libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    data[0] &= ~OVERRIDES  # of the effective ones
    libc.capset(header, data)


def deleted(rounds: int) -> Tally:
    """The run's folder is deleted, or renamed, under the run: it ends with a line, and does not create it again."""
    tally = Tally("a run folder that is deleted or renamed under the run")
    with folder():
        seconds = undisturbed(WORDS, "outputs/whole")
        for number in range(rounds):
            where = Path(f"outputs/gone/{number}")
            pid = start(*WORDS, f"hydra.run.dir={where}")
            while not (where / ".hydra/overrides.yaml").exists():  # the last that Hydra makes, before the run begins
                time.sleep(0.002)
            time.sleep(CHANCE.uniform(0, 0.7 * seconds))
            where.rename("aside")
            if CHANCE.random() < 0.5:
                shutil.rmtree("aside")
            ended = wait(pid)
            tally.count((ended.code == 0 or ended.is_one_line_error) and not where.exists(), note=str(ended))
            shutil.rmtree("aside", ignore_errors=True)
    return tally


def taken(rounds: int) -> Tally:
    """Two runs begin at once in one folder: one gets it, the other says so and disturbs nothing."""
    tally = Tally("two runs that begin at once in one folder")
    with folder():
        undisturbed(WORDS, "outputs/whole")
        expected = learned(Path("outputs/whole"))
        for number in range(rounds):
            where = f"outputs/one/{number}"
            pids = [start(*WORDS, f"hydra.run.dir={where}", name=f"run-{each}") for each in range(2)]
            ended = sorted(
                (wait(pid, name=f"run-{each}") for each, pid in enumerate(pids)), key=lambda ended: ended.code or 0
            )
            fine = ended[0].code == 0 and ended[1].is_one_line_error and "already holds a run" in ended[1].err
            tally.count(fine, learned(Path(where)) == expected, str(ended))
    return tally


def clock(rounds: int) -> Tally:
    """The clock is set back by an hour during a run."""
    tally = Tally("a clock that is set back during the run")
    with folder():
        undisturbed(WORDS, "outputs/whole")
        expected = learned(Path("outputs/whole"))
        for number in range(rounds):
            moment = CHANCE.randint(1, 40)

            def prepare(moment: int = moment) -> None:
                calls, now = [0], time.time

                def back() -> float:
                    calls[0] += 1
                    return now() - 3600 * (calls[0] > moment)

                time.time = back

            where = f"outputs/back/{number}"
            ended = run(*WORDS, f"hydra.run.dir={where}", prepare=prepare)
            tally.count(ended.code == 0, learned(Path(where)) == expected, str(ended))
    return tally
