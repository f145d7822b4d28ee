"""The end of a sweep: what failed, how to resume, and the report."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Sequence

from mnist_exp import command_line
from mnist_exp.store.ledger import Job
from mnist_exp.store.run_folder import ENDED_WELL
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import errors, quoting, signals

log = logging.getLogger(__name__)


def finish(sweep: Sweep, numbers: Collection[int], is_search: bool, is_sequential: bool) -> None:
    """Log what failed and how to resume, write the report, and end the process if something is left or failed.

    After a finished search the process continues, even if runs failed: some settings diverge.
    """
    from mnist_exp.report import report

    if code := sweep.exit_code:
        signals.ignore()  # a second Ctrl-C must not cost the report
    found = [job for job in sweep.ledger.read()[1].values() if job.status != "replaced"]
    failed = [job for job in found if job.status == "failed"]
    flags = command_line.config_flags(command_line.typed())
    if failed and is_search:
        log.warning(f"{len(failed)} of {len(found)} runs of the search failed: {sweep.folder / 'report.md'}")
    elif failed:
        _log_failures(failed, len(found), flags)
    is_unfinished = any(job.status in ("pending", "interrupted") for job in found)
    if is_unfinished or (is_search and code) or (is_sequential and sweep.is_stopped):
        launcher = [word for word in command_line.typed() if word.startswith(("hydra/launcher", "hydra.launcher"))]
        target = quoting.override("resume", sweep.folder.parent if is_search else sweep.folder)
        log.info(f"to resume: {quoting.command('-m', *flags, target, *launcher)}")
    completed = {job.number for job in found if job.status in ENDED_WELL}
    is_search_finished = is_search and not is_unfinished
    succeeded = is_search_finished or (not failed and completed.issuperset(numbers))
    try:
        text = report.write([sweep.folder])
        if not is_search_finished:
            log.info(text)
    except OSError as error:
        log.error(f"no report: {errors.explain(error)}")
        succeeded = False
    if code or not succeeded:
        sys.exit(code or 1)


def _log_failures(failed: Sequence[Job], among: int, flags: Sequence[str]) -> None:
    """Log why each job failed, and the command that runs it alone."""
    log.error(f"{len(failed)} of {among} jobs failed:")
    for job in failed:
        command = quoting.command(*flags, *job.overrides)
        log.error(f"  #{job.number} {' '.join(job.overrides)}: {job.error}\n      {command}")
