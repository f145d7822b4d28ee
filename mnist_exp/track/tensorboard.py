"""Writes runs for TensorBoard: scalars by epoch, the HParams tab, and the pictures.

A run has one event file, whose bytes follow from the run alone. What is there already is the beginning of what should
be there, so that an export goes on where another one ended, and a second one changes nothing.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mnist_exp import config
from mnist_exp.report.labels import format_value
from mnist_exp.store.metrics import Row
from mnist_exp.store.run_folder import ENDED_WELL
from mnist_exp.system import extras, files, quoting
from mnist_exp.track.runs import Snapshot, TrackedRun

FOLDER = Path("tensorboard")  # in the current folder
FILE = "events.out.tfevents.mnist_exp"  # TensorBoard reads files with "tfevents" in their names
UNSAFE = re.compile(r"[^\w.,=+-]+")  # characters that a folder's name does without


class TensorBoard:
    """A folder of event files, one below the other: `tensorboard --logdir FOLDER` shows it."""

    def __init__(self, to: str | None) -> None:
        """Write into the folder `to`; by default into FOLDER.

        Raises:
            ConfigError: TensorBoard is not installed.
        """
        extras.require("tensorboard", "tensorboard")
        self.folder = Path(to) if to else FOLDER

    @property
    def hint(self) -> str:
        """The command that shows the runs."""
        return f"tensorboard --logdir {quoting.for_shell(str(self.folder))}"

    def write(self, snapshot: Snapshot, runs: Sequence[TrackedRun]) -> int:
        """Write what is new of the runs, and return how many had something new.

        Raises:
            OSError: The folder can't be written.
        """
        home = self.folder / UNSAFE.sub("_", f"{snapshot.name}-{snapshot.id[:8]}")
        home = next(self.folder.glob(f"*-{snapshot.id[:8]}"), home)  # the folder may have been exported from elsewhere
        if snapshot.command is None:
            return sum(_update(home / FILE, _content(run)) for run in runs)
        begun = {path.name.partition("_")[0]: path for path in home.glob("*_*")}  # a larger sweep has longer names
        return sum(_update(begun.get(str(run.number), home / _folder_name(run)) / FILE, _content(run)) for run in runs)

    def close(self) -> None:
        """Do nothing: every file is complete."""


def _folder_name(run: TrackedRun) -> str:
    return f"{run.number}_{UNSAFE.sub('_', run.name)}"[:120]


def _update(path: Path, content: bytes) -> bool:
    """Give a file this content, and return whether it was another one.

    A file is extended where it can be, because TensorBoard may be reading it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.is_file() else b""
    if before == content:
        return False
    if not content.startswith(before):
        files.write(path, content)
        return True
    try:
        with open(path, "ab") as file:
            file.write(content[len(before) :])
    except OSError as error:
        error.filename = str(path)  # the error of a full disk names no file
        raise
    return True


def _content(run: TrackedRun) -> bytes:
    """Return the run's event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in _events(run):
        writer.write(event.SerializeToString(deterministic=True))
    return file.getvalue()


def _events(run: TrackedRun) -> Iterator[Any]:
    """Yield the run's events in the order in which they happened."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

    yield Event(wall_time=run.started, file_version="brain.Event:2")
    start = SessionStartInfo(start_time_secs=run.started)
    for key, value in run.choices.items():
        if _is_shown(key) and value is not None:
            setattr(start.hparams[key], *_typed(value))
    yield Event(wall_time=run.started, summary=_hparams(HParamsPluginData(session_start_info=start)))
    for row, time in zip(run.rows, run.times, strict=True):
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _curves(row)]
        yield Event(wall_time=time, step=row.epoch, summary=Summary(value=values))
    if run.ended is None:
        return
    values = [Summary.Value(tag=f"results/{key}", simple_value=value) for key, value in run.results.items()]
    values += [Summary.Value(tag=f"pictures/{path.stem}", image=_image(path)) for path in run.pictures]
    yield Event(wall_time=run.ended, step=len(run.rows), summary=Summary(value=values))
    status = api_pb2.STATUS_SUCCESS if run.status in ENDED_WELL else api_pb2.STATUS_FAILURE
    end = SessionEndInfo(status=status, end_time_secs=run.ended)
    yield Event(wall_time=run.ended, summary=_hparams(HParamsPluginData(session_end_info=end)))


def _curves(row: Row) -> Iterator[tuple[str, float]]:
    """Yield tag and value of a row's figures, without the epoch, which is the step.

    TensorBoard makes a section of tags that begin alike, and its HParams tab begins with those that sort first.
    """
    for key, value in row._asdict().items():
        if key != "epoch":
            yield f"epochs/{key}" if key.startswith(("train_", "val_")) else key, value


def _is_shown(key: str) -> bool:
    """Return whether the HParams tab shows a key: those of where a run trains, and classes, would fill it."""
    return key not in config.EXCLUDED_FROM_ID and not key.endswith("_target_")


def _typed(value: Any) -> tuple[str, Any]:
    """Return the field that holds a hyperparameter, and its value."""
    if isinstance(value, bool):
        return "bool_value", value
    if isinstance(value, int | float):
        return "number_value", value
    return "string_value", format_value(value)


def _hparams(content: Any) -> Any:
    """Return the summary that the HParams tab reads the content from."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata

    tags = {
        "session_start_info": metadata.SESSION_START_INFO_TAG,
        "session_end_info": metadata.SESSION_END_INFO_TAG,
    }
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME,
        content=content.SerializeToString(deterministic=True),
    )
    value = Summary.Value(
        tag=tags[content.WhichOneof("data")],
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def _image(path: Path) -> Any:
    """Return a PNG file as TensorBoard keeps it."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the first chunk of a PNG, IHDR
    return Summary.Image(encoded_image_string=content, width=width, height=height, colorspace=4)
