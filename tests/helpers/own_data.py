"""scikit-learn's digits and small noise, written as users have their own data: PNG folders, CSV, NPZ, Parquet."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from mnist_exp.data import sources

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W) or (N, H, W, 3), and labels
Parts = Mapping[str, Arrays]


def digits() -> Parts:
    """The parts of data=digits."""
    source = sources.digits("")
    return {
        name: (part.images[:, 0].numpy(), part.labels.numpy())
        for name, part in {"train": source.train, "test": source.test}.items()
    }


def noise(count: int = 24, classes: int = 2, size: tuple[int, ...] = (6, 6), seed: int = 0) -> Arrays:
    """Images of noise, and their labels in turn."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *size), dtype=np.uint8), np.arange(count) % classes


def png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def folders(top: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """Write top/<label>/<number>.png."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = top / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return top


def table(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """Write Kaggle's layout: label,pixel0,pixel1,..."""
    rows = np.c_[labels, images.reshape(len(images), -1)]
    header = ",".join(["label", *(f"pixel{number}" for number in range(rows.shape[1] - 1))])
    np.savetxt(path, rows, fmt="%d", delimiter=",", header=header, comments="")
    return path


def parquet(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str] = ()) -> Path:
    """Write Hugging Face's layout, with the names of the classes in the metadata if they are given."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": png(image), "path": None} for image in images]
    content = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels, pa.int64())})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content.replace_schema_metadata(metadata), path)
    return path


def keras(path: Path, parts: Parts) -> Path:
    """Write Keras's archive: x_train, y_train, x_test, y_test."""
    arrays = {
        f"{letter}_{part}": array for part, pair in parts.items() for letter, array in zip("xy", pair, strict=True)
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
