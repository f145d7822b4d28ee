"""A trained model for use elsewhere: as an ONNX, a safetensors or a torch.export file.

A file is written only after its content, loaded as another program loads it, has given the probabilities of the run's
own model. All three have the same metadata. None has the name of a file or folder of this machine.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from mnist_exp import build
from mnist_exp.data.batches import EVALUATION_BATCH
from mnist_exp.models import without_limits
from mnist_exp.store.run_folder import BEST, InferenceFacts
from mnist_exp.system import errors, extras, files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import checkpoint
from mnist_exp.use import trained_run
from mnist_exp.use.trained_run import Classifier, TrainedRun

TOLERANCE = 1e-5  # how far probabilities may differ from the run's own
TIE = 1e-6  # two probabilities of float32 that are this near have no order: rounding decides which is higher
OPSET = 18  # of ONNX: what torch's exporter translates to by itself, and every onnxruntime since 1.14 (2023) runs
INPUT, OUTPUT = "images", "probabilities"  # of the ONNX model

Predict = Callable[[Tensor], Tensor]  # from images, uint8 (N, C, H, W), to probabilities, float32 (N, classes)


def to_onnx(run: TrainedRun, path: Path, images: Tensor) -> float:
    """Write an ONNX file, which takes `images`, uint8 (N, C, H, W), and gives `probabilities`, float32 (N, classes).

    Args:
        run: The run.
        path: The file; one that exists is replaced.
        images: The images to verify on, uint8 (N, C, H, W), such as `run.test_images()`.

    Returns:
        The largest difference between two probabilities.

    Raises:
        ConfigError: Packages are missing, or a class or a probability differs. Nothing is written.
        OSError: The file can't be written. The old one stays.
    """
    extras.require("export", "onnx", "onnxruntime", "onnxscript")
    return _write(path, _onnx(run), _in_onnxruntime, run, images)


def to_safetensors(run: TrainedRun, path: Path, images: Tensor) -> float:
    """Write a safetensors file: the model's weights, and the metadata, from which `from_safetensors` builds it again.

    The arguments, the result and the errors are those of `to_onnx`.
    """
    extras.require("export", "safetensors")
    return _write(path, _safetensors(run), from_safetensors, run, images)


def to_torch_export(run: TrainedRun, path: Path, images: Tensor) -> float:
    """Write a torch.export file (.pt2), whose module takes and gives what the ONNX file does, without this program.

    The arguments, the result and the errors are those of `to_onnx`. No package is needed beside torch.
    """
    return _write(path, _torch_export(run), _in_torch, run, images)


FORMATS = {"onnx": to_onnx, "safetensors": to_safetensors, "torch_export": to_torch_export}


def metadata(run: TrainedRun) -> dict[str, str]:
    """Return what a file says about its model. What is not text is JSON.

    The keys are those of InferenceFacts, and of summary.json: config_id, data, versions, git, test_accuracy.
    """
    state = checkpoint.load(run.folder / BEST)
    facts = {
        **run.facts,
        **{key: state.get(key) for key in ("config_id", "data", "versions")},
        **{key: run.summary.get(key) for key in ("git", "test_accuracy")},
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def noise(run: TrainedRun, count: int = 1000) -> Tensor:
    """Return images of noise with the mean and the standard deviation of the run's images, uint8 (count, C, H, W)."""
    normal = torch.randn(count, *run.facts["image_shape"], generator=torch.Generator().manual_seed(0))
    return (normal * run.classifier.std + run.classifier.mean).clamp_(0, 255).byte()


def from_safetensors(content: bytes) -> Classifier:
    """Build a model from the content of a file that `to_safetensors` wrote, and from nothing else."""
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # as the format is specified
    texts = header["__metadata__"]
    facts = {
        key: texts[key] if key == "preparation" else json.loads(texts[key]) for key in InferenceFacts.__annotations__
    }
    model, loss = build.from_inference_facts(cast(InferenceFacts, facts))
    model.load_state_dict(load(content))
    return Classifier(model, loss, cast(InferenceFacts, facts)).eval()


def export_and_print(folder: Path, paths: dict[str, Path], on_noise: bool) -> None:
    """Write the model of a run in some formats, and print a line for each.

    Args:
        folder: The run folder, or `latest`.
        paths: The file of each format, by its name in FORMATS.
        on_noise: Whether the files are verified on images of noise in place of the test images.

    Raises:
        ConfigError: The folder holds no trained model, the test images are not there, or a file fails its verification.
        OSError: A file can't be written.
    """
    run = trained_run.load(folder)
    images, kind = (noise(run), "images of noise") if on_noise else (_test_images_or_advice(run), "test images")
    for name, path in paths.items():
        difference = FORMATS[name](run, path, images)
        print(
            f"{path}  {path.stat().st_size / 1e6:.2f} MB; same class for all {len(images):,} {kind}, "
            f"probabilities within {difference:.2g}"
        )


def _test_images_or_advice(run: TrainedRun) -> Tensor:
    try:
        return run.test_images()
    except (ConfigError, OSError) as error:
        raise ConfigError(
            "nothing is written, because the exported model can't be verified on the test images (--noise verifies it "
            f"on images of noise): {errors.explain(error)}"
        ) from error


def _write(path: Path, content: bytes, load: Callable[[bytes], Predict], run: TrainedRun, images: Tensor) -> float:
    """Write a file whose content, loaded, gives what the run gives. Returns the largest difference."""
    predict = load(content)
    with torch.inference_mode():
        theirs = torch.cat([predict(part) for part in images.split(EVALUATION_BATCH)])
    found = _compare(run.probabilities(images), theirs)
    if not found.is_equal:
        raise ConfigError(
            f"{path}: not written: loaded again, the exported model gives another class for {found.other_classes:,} of "
            f"{len(images):,} images, and probabilities that differ by up to {found.difference:.1e} (allowed: "
            f"{TOLERANCE:.0e})"
        )
    files.write(path, content)
    return found.difference


class _Comparison(NamedTuple):
    other_classes: int  # images
    difference: float  # the largest

    @property
    def is_equal(self) -> bool:
        return self.other_classes == 0 and self.difference <= TOLERANCE  # which NaN is not


def _compare(ours: Tensor, theirs: Tensor) -> _Comparison:
    """Compare probabilities (N, classes). A class that ours rate as high as their own is not another class."""
    chosen = ours.gather(1, theirs.argmax(dim=1, keepdim=True)).flatten()
    other = ours.amax(dim=1) - chosen > TIE
    return _Comparison(int(other.sum()), float((ours - theirs).abs().max()))


def _program(run: TrainedRun) -> torch.export.ExportedProgram:
    """Return the classifier as a graph of operations on any number of images."""
    example = torch.zeros(2, *run.facts["image_shape"], dtype=torch.uint8)  # torch makes 1 image a special case
    batch = {0: torch.export.Dim("batch")}
    with _tracing():
        program = torch.export.export(without_limits(run.classifier), (example,), dynamic_shapes=(batch,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has the folders of this machine
    return program


@contextmanager
def _tracing() -> Iterator[None]:
    """Turn the errors of torch's exporters into one line. They say much more, on stderr, which nobody asked for.

    Raises:
        ConfigError: The model, of a user's own, does what can't be exported.
    """
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model: torch can't export it: {reason}") from error


def _onnx(run: TrainedRun) -> bytes:
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "dynamic_shapes": ({0: "batch"},)}
    graph = _program(run)
    with _tracing():
        program: Any = torch.onnx.export(graph, dynamo=True, opset_version=OPSET, verbose=False, **names)
    program.model.metadata_props.update(metadata(run))
    return cast(bytes, program.model_proto.SerializeToString())


def _in_onnxruntime(content: bytes) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _safetensors(run: TrainedRun) -> bytes:
    from safetensors.torch import save

    weights = without_limits(run.model).state_dict()
    alone = {name: tensor.contiguous().clone() for name, tensor in weights.items()}  # the format shares no memory
    content: bytes = save(alone, metadata(run))
    return content


def _torch_export(run: TrainedRun) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(run), buffer, extra_files=dict(metadata(run)))
    return buffer.getvalue()


def _in_torch(content: bytes) -> Predict:
    return cast(Predict, torch.export.load(io.BytesIO(content)).module())
