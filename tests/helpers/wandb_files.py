"""Reads the offline files of W&B: LevelDB's log format, in which each record is W&B's own protocol buffer.

https://github.com/google/leveldb/blob/main/doc/log_format.md; a file begins with 7 bytes of W&B.
"""

import json
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32_768, struct.Struct("<IHB")  # checksum, length, type: 1 whole, 2 first, 3 middle, 4 last


def read(path: Path) -> dict[str, list[Any]]:
    """The records of a .wandb file, by type."""
    record_type = import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    records: dict[str, list[Any]] = {}
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:  # the rest of a block, too short for a record
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + length
        parts += content[at - length : at]
        if kind in (1, 4):
            record, parts = record_type.FromString(parts), b""
            name = str(record.WhichOneof("record_type"))
            records.setdefault(name, []).append(getattr(record, name))
    return records


def items(entries: Any) -> dict[str, Any]:
    """The values of a history, a summary or a config by their keys, joined by dots."""
    return {".".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}
