"""Images in Parquet files, as Hugging Face lays them out: data=parquet."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.data import cache, decode, own
from mnist_exp.data.cache import Read, State
from mnist_exp.data.decode import Encoded, Fit
from mnist_exp.data.images import DataSet
from mnist_exp.data.own import natural
from mnist_exp.system import extras, resources

if TYPE_CHECKING:
    import pyarrow


def parquet(
    path: str, label: str, image: str, root: str, size: int | None, fit: str, color: str, skip_broken: bool
) -> DataSet:
    """Return the images in Parquet files, in the order of the files' names and of their rows.

    A file belongs to the part with which its name or its folder's name begins: train-00000-of-00001.parquet,
    validation/0000.parquet. Without such names, all files are training images. The image column holds files of
    images: bytes, or a struct with bytes. If the schema's metadata names the classes (ClassLabel), labels are their
    numbers; else the labels are the classes, whole numbers or text.

    Args:
        path: A file, or a folder with files.
        label: The column of the labels.
        image: The column of the images.
        root: The folder of all data sets; the decoded images are cached below it.
        size: As in `folder.folder`.
        fit: As there.
        color: As there.
        skip_broken: As there.

    Raises:
        ValueError: pyarrow is missing, there are no files, a column is missing or of another type, or as in
            `folder.folder`.
    """
    top, settings = Path(path).expanduser(), Fit(size, fit, color)
    return cache.load(
        path,
        root,
        {"source": "parquet", "columns": [label, image], "fit": settings, "skip_broken": skip_broken},
        lambda: own.stat(_files(top)),
        partial(_read, top, label, image, settings, skip_broken),
    )


def _files(top: Path) -> dict[str, Path]:
    """Return the files by the names that messages call them."""
    if not top.exists():
        raise ValueError("no such file or folder")
    if top.is_file():
        return {top.name: top}
    found = {str(path.relative_to(top)): path for path in top.rglob("*.parquet")}
    if not found:
        raise ValueError("holds no .parquet files")
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def _parts(names: Sequence[str]) -> dict[str, str]:
    """Return the part of each file."""
    parts = {name: _part(name) for name in names}
    if not any(parts.values()):
        return dict.fromkeys(names, "train")
    if others := [name for name, part in parts.items() if not part]:
        raise ValueError(f"{decode.shortened(others)}: belongs to no part, as train-0.parquet and test-0.parquet do")
    return {name: part for name, part in parts.items() if part}


def _part(name: str) -> str | None:
    """Return the part that a file's name, or else the name of a folder around it, begins with."""
    return next(filter(None, map(own.part_of, reversed(Path(name).parts))), None)


def _read(top: Path, label: str, image: str, fit: Fit, skip_broken: bool, _: State) -> Read:
    extras.require("parquet", "pyarrow")
    import pyarrow

    found = _files(top)
    of_files = _parts(list(found))
    resources.require_memory(
        "cpu", {"the files": sum(path.stat().st_size for path in found.values())}, advice="fewer images need less"
    )
    classes: list[str] | None = None
    part_of: list[str] = []
    labels: list[str] = []
    encoded: list[Encoded] = []
    for name in sorted(found, key=of_files.__getitem__):
        try:
            table = _table(found[name], name, label, image)
        except pyarrow.ArrowException as error:
            raise ValueError(f"{name}: is not a Parquet file, or is damaged: {' '.join(str(error).split())}") from error
        classes = _class_names(table.schema.metadata or {}, label)
        encoded += _encoded(table[image], name)
        labels += _labels(table[label], name, classes)
        part_of += [of_files[name]] * len(table)
    images, broken = decode.decode(encoded, fit, skip_broken)
    kept = [number for number in range(len(encoded)) if number not in broken]
    parts = own.parts([part_of[number] for number in kept], images, [labels[number] for number in kept])
    notes = decode.note(broken, len(encoded))
    return Read(own.data_set(own.name_of(top), parts, fit.way, classes), notes)


def _table(path: Path, name: str, label: str, image: str) -> "pyarrow.Table":
    """Return the two columns of a file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        there = file.schema_arrow.names
        for key, column in (("label", label), ("image", image)):
            if column not in there:
                raise ValueError(f"{name}: has no column {column}; data.{key} names one of {decode.shortened(there)}")
        return file.read([label, image])


def _encoded(column: "pyarrow.ChunkedArray", name: str) -> list[Encoded]:
    import pyarrow.types as types

    kind = column.type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        contents = [row and row["bytes"] for row in column.to_pylist()]
    else:
        contents = column.to_pylist()
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise ValueError(f"{name}: the images are of type {column.type}; they should be bytes, or a struct with bytes")
    found = [content for content in contents if content is not None]
    if len(found) < len(contents):
        raise ValueError(f"{name}, row {contents.index(None) + 1}: has no image; its bytes are null")
    return [Encoded(f"{name}, row {row}", content, len(content)) for row, content in enumerate(found, start=1)]


def _labels(column: "pyarrow.ChunkedArray", name: str, classes: Sequence[str] | None) -> list[str]:
    import pyarrow.types as types

    if not (types.is_integer(column.type) or types.is_string(column.type) or types.is_large_string(column.type)):
        raise ValueError(f"{name}: the labels are of type {column.type}; they should be whole numbers or text")
    labels = column.to_pylist()
    for row, label in enumerate(labels, start=1):
        if label is None:
            raise ValueError(f"{name}, row {row}: has no label")
        if classes and not 0 <= label < len(classes):
            raise ValueError(f"{name}, row {row}: the label {label} is not one of the {len(classes)} classes")
    return [classes[label] for label in labels] if classes else list(map(str, labels))


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> list[str] | None:
    """Return the names of the classes that Hugging Face's metadata gives; None if it gives none."""
    features: Any = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return list(names) if names else None
