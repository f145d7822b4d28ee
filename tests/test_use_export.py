"""Exported models, run by onnxruntime, safetensors and torch as other programs run them."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT
from helpers.trained_runs import untrained_run
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mnist_exp import build, cli
from mnist_exp.data.images import DataSet, Part
from mnist_exp.system.errors import ConfigError
from mnist_exp.use import export, trained_run
from mnist_exp.use.trained_run import TrainedRun

Composed = Callable[..., DictConfig]
SMALL = ["model.hidden_layers=[12]", "data.validation=20", "data.batch_size=10"]


def made_up(*shape: int, classes: int = 10) -> DataSet:
    """A data set of noise: 60 training and 40 test images."""
    rng = torch.Generator().manual_seed(1)
    train, test = (
        Part(torch.randint(0, 256, (n, *shape), generator=rng, dtype=torch.uint8), torch.arange(n) % classes)
        for n in (60, 40)
    )
    return DataSet("made", tuple(f"class {i}" for i in range(classes)), train, test, "f" * 64)


@pytest.fixture(autouse=True)
def no_pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep torch.export from pretending a GPU, for which backward would start a thread: later tests could not fork."""
    monkeypatch.setattr(torch._C, "_ensureCUDADeviceGuardSet", lambda: None, raising=False)


@pytest.fixture
def made(tmp_path: Path, composed: Composed) -> Callable[..., TrainedRun]:
    """Make a run of a model without training, and load it."""

    def make(*overrides: str, source: DataSet | None = None) -> TrainedRun:
        cfg = composed(*overrides)
        return trained_run.load(untrained_run(tmp_path / "run", cfg, source or made_up(1, 28, 28)))

    return make


@pytest.fixture
def folder(made: Callable[..., TrainedRun], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose data set is found."""
    monkeypatch.setattr(build, "source", lambda cfg: made_up(1, 28, 28))
    return made(*SMALL).folder


def by_onnxruntime(path: Path, images: Tensor) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images.numpy()})[0]


def test_onnxruntime_gives_the_runs_probabilities_for_any_number_of_images(
    made: Callable[..., TrainedRun], tmp_path: Path
) -> None:
    run, path, images = made(*SMALL), tmp_path / "model.onnx", made_up(1, 28, 28).test.images
    assert export.to_onnx(run, path, images) < 1e-6
    for n in (0, 1, 7, 40):
        expected = run.probabilities(images[:n]).numpy()
        np.testing.assert_allclose(by_onnxruntime(path, images[:n]), expected, rtol=0, atol=1e-6)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == export.metadata(run)
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        1,
        28,
        28,
    ]
    for place in (ROOT, Path(torch.__file__).parent):
        assert str(place).encode() not in path.read_bytes()


def test_torch_export_needs_torch_alone(made: Callable[..., TrainedRun], tmp_path: Path) -> None:
    run, path, images = made(*SMALL), tmp_path / "model.pt2", made_up(1, 28, 28).test.images
    assert export.to_torch_export(run, path, images) <= 1e-6
    found = dict.fromkeys(export.metadata(run), "")
    module = torch.export.load(path, extra_files=found).module()
    for n in (0, 1, 7, 40):
        torch.testing.assert_close(module(images[:n]), run.probabilities(images[:n]), rtol=0, atol=1e-6)
    assert found == export.metadata(run)
    for place in (ROOT, Path(torch.__file__).parent):
        assert str(place).encode() not in path.read_bytes()


def test_safetensors_has_all_that_rebuilds_the_model(made: Callable[..., TrainedRun], tmp_path: Path) -> None:
    run, path, images = made(*SMALL), tmp_path / "model.safetensors", made_up(1, 28, 28).test.images
    export.to_safetensors(run, path, images)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts == export.metadata(run)
    model = nn.Sequential(
        nn.Flatten(), nn.Identity(), nn.Linear(784, 12), nn.ReLU(), nn.Identity(), nn.Linear(12, 10), nn.Softmax(dim=1)
    )
    model.load_state_dict(load_file(path))
    pixels = (images.float() - torch.tensor(json.loads(facts["mean"]))) / torch.tensor(json.loads(facts["std"]))
    torch.testing.assert_close(model(pixels), run.probabilities(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(export.from_safetensors(path.read_bytes())(images), run.probabilities(images))


def test_metadata_says_what_the_model_is_and_where_it_is_from(made: Callable[..., TrainedRun]) -> None:
    facts = export.metadata(made(*SMALL, source=made_up(1, 28, 28, classes=3)))
    assert json.loads(facts["classes"]) == ["class 0", "class 1", "class 2"]
    assert json.loads(facts["data"]) == {"name": "made", "sha256": "f" * 64}
    assert (facts["config_id"], facts["preparation"]) == ("0123456789ab", "pad")
    assert json.loads(facts["image_shape"]) == [1, 28, 28]


def test_an_exported_model_changes_no_weights(made: Callable[..., TrainedRun], tmp_path: Path) -> None:
    """Max-norm layers limit their weights in place before each use."""
    run, path, images = made(*SMALL, "model.max_norm=0.1"), tmp_path / "model.pt2", made_up(1, 28, 28).test.images
    export.to_torch_export(run, path, images)
    program = torch.export.load(path)
    kinds = {spec.kind.name for spec in program.graph_signature.output_specs}
    assert kinds == {"USER_OUTPUT"}
    assert not [node for node in program.graph.nodes if "mul_" in str(node.target)]
    module = program.module()
    before = {name: weights.clone() for name, weights in module.state_dict().items()}
    assert before["model.2.weight"].norm(dim=1).max() <= 0.1 + 1e-6
    module(images)
    assert all(torch.equal(weights, before[name]) for name, weights in module.state_dict().items())


@pytest.mark.parametrize(
    ("ours", "theirs", "other_classes", "difference", "is_equal"),
    [
        ([0.6, 0.4], [0.6, 0.4], 0, 0.0, True),
        ([0.6, 0.4], [0.600005, 0.399995], 0, 5e-6, True),
        ([0.6, 0.4], [0.60002, 0.39998], 0, 2e-5, False),
        ([0.6, 0.4], [0.4, 0.6], 1, 0.2, False),
        ([0.500002, 0.499998], [0.499999, 0.500001], 1, 3e-6, False),
        ([0.5000001, 0.4999999], [0.4999999, 0.5000001], 0, 2e-7, True),  # a tie has no class to differ from
        ([0.6, 0.4], [math.nan, math.nan], 0, math.nan, False),
        ([math.nan, math.nan], [math.nan, math.nan], 0, math.nan, False),
    ],
)
def test_comparison(
    ours: list[float], theirs: list[float], other_classes: int, difference: float, is_equal: bool
) -> None:
    found = export._compare(torch.tensor([ours]), torch.tensor([theirs]))
    assert (found.other_classes, found.is_equal) == (other_classes, is_equal)
    assert found.difference == pytest.approx(difference, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "words"), [(3.0, "another class for "), (1.001, "up to "), (math.nan, "up to nan ")]
)
def test_a_model_that_differs_is_not_written(
    change: float, words: str, made: Callable[..., TrainedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path, content = made(*SMALL), tmp_path / "model.safetensors", export._safetensors
    path.write_bytes(b"older")

    def altered(run: TrainedRun) -> bytes:
        other = trained_run.load(run.folder)
        with torch.no_grad():
            other.model.get_parameter("5.weight")[3] *= change
        return content(other)

    monkeypatch.setattr(export, "_safetensors", altered)
    with pytest.raises(ConfigError, match=f"model.safetensors: not written: .*{words}"):
        export.to_safetensors(run, path, made_up(1, 28, 28).test.images)
    assert path.read_bytes() == b"older"
    assert {file.name for file in tmp_path.iterdir()} == {"run", "model.safetensors"}


def test_the_command_verifies_on_all_test_images_and_prints_a_line_for_each_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file.pt2").write_bytes(b"older")
    cli.run("mnist-exp", ["export", str(folder), "--safetensors", "weights", "--torch-export", "a file.pt2"])
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.partition(", prob")[0] for line in out.splitlines()] == [
        "weights  0.04 MB; same class for all 40 test images",
        "a file.pt2  0.06 MB; same class for all 40 test images",
    ]
    assert torch.export.load(tmp_path / "a file.pt2")


def test_without_the_data_the_user_decides(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(cfg: DictConfig) -> DataSet:
        raise ConfigError("data.root=data: MNIST is incomplete")

    monkeypatch.setattr(build, "source", gone)
    words = ["export", str(folder), "--safetensors", str(tmp_path / "weights")]
    with pytest.raises(
        ConfigError, match=r"can't be verified on the test images \(--noise .*\): data.root=data: MNIST"
    ):
        cli.run("mnist-exp", words)
    assert not (tmp_path / "weights").exists()
    cli.run("mnist-exp", [*words, "--noise"])
    assert "same class for all 1,000 images of noise, probabilities within 0" in capsys.readouterr().out


def test_a_run_without_its_config_can_be_verified_on_noise_alone(folder: Path, tmp_path: Path) -> None:
    (folder / ".hydra" / "config.yaml").unlink()
    words = ["export", str(folder), "--safetensors", str(tmp_path / "weights")]
    with pytest.raises(ConfigError, match=r"--noise .*\): .*config.yaml: No such file or directory$"):
        cli.run("mnist-exp", words)
    cli.run("mnist-exp", [*words, "--noise"])


def test_test_images_that_are_others_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "source", lambda cfg: made_up(1, 28, 28)._replace(sha256="e" * 64))
    with pytest.raises(ConfigError, match=r"trained on made with SHA-256 f{64}, but it is e{64} now"):
        trained_run.load(folder).test_images()


def test_noise_looks_like_the_runs_images(made: Callable[..., TrainedRun]) -> None:
    run = made(*SMALL, source=made_up(1, 28, 28))
    images = export.noise(run)
    assert (images.dtype, images.shape) == (torch.uint8, (1000, 1, 28, 28))
    assert images.float().mean() == pytest.approx(run.facts["mean"][0], rel=0.1)
    assert images.float().std() == pytest.approx(run.facts["std"][0], rel=0.2)
    assert torch.equal(images, export.noise(run))


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("onnx", export.to_onnx),
        ("onnxruntime", export.to_onnx),
        ("onnxscript", export.to_onnx),
        ("safetensors", export.to_safetensors),
    ],
)
def test_a_missing_package(
    package: str,
    call: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"^{package}: not installed; type pip install 'mnist_exp\[export\]'$"):
        call(cast(TrainedRun, None), tmp_path / "model", made_up(1, 28, 28).test.images)


def test_files_that_cannot_be_written(
    made: Callable[..., TrainedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images = made(*SMALL), made_up(1, 28, 28).test.images
    with pytest.raises(FileNotFoundError) as error:
        export.to_safetensors(run, tmp_path / "nowhere" / "model", images)
    assert error.value.filename == str(tmp_path / "nowhere" / "model")
    with pytest.raises(IsADirectoryError):
        export.to_safetensors(run, tmp_path / "run", images)
    assert {file.name for file in tmp_path.iterdir()} == {"run"}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "model").write_bytes(b"older")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        export.to_safetensors(run, tmp_path / "model", images)
    assert (tmp_path / "model").read_bytes() == b"older"
    assert {file.name for file in tmp_path.iterdir()} == {"run", "model"}


class Undecided(nn.Module):
    """What can't be exported: its operations depend on the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_exported_is_one_line(
    made: Callable[..., TrainedRun], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = made(*SMALL)
    run.model.append(Undecided())  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"^model: torch can't export it: Could not guard on data-dependent.*$"):
        export.to_torch_export(run, tmp_path / "model", made_up(1, 28, 28).test.images)
    assert capfd.readouterr() == ("", "")


def options(group: str) -> list[str]:
    names = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    assert len(names) > 1
    return names


MNIST, DIGITS, COLOUR = (1, 28, 28), (1, 8, 8), (3, 32, 32)
LIMITED = ["model.hidden_layers=[12,9]", "model.dropout=0.5", "model.input_dropout=0.2", "model.max_norm=0.1"]
CASES = [
    *((MNIST, [f"activation={name}", "model=lenet"]) for name in options("activation")),
    *(
        (shape, [f"model={model}", f"loss={loss}"])
        for model in options("model")
        for loss in options("loss")
        for shape in (DIGITS, MNIST, COLOUR)
        if (model, shape) != ("lenet", DIGITS)  # which it refuses
    ),
    *((shape, LIMITED) for shape in (DIGITS, MNIST, COLOUR)),
    *(
        (shape, [f"augmentation.crop.size={shape[1] + more}", "augmentation.crop.padding=3"])
        for shape in (DIGITS, MNIST, COLOUR)
        for more in (-5, -2, 3, 6)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "overrides"), CASES, ids=lambda value: "-".join(map(str, value)))
def test_every_option_of_conf_exports(
    shape: tuple[int, ...], overrides: list[str], made: Callable[..., TrainedRun], tmp_path: Path
) -> None:
    source = made_up(*shape)
    run = made("data.validation=20", "data.batch_size=10", *overrides, source=source)
    for name, write in export.FORMATS.items():
        assert write(run, tmp_path / name, source.test.images) <= 1e-6
    for n in (1, 40):
        images = source.test.images[:n]
        found = by_onnxruntime(tmp_path / "onnx", images)
        np.testing.assert_allclose(found, run.probabilities(images).numpy(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_weights_that_layers_share(made: Callable[..., TrainedRun], tmp_path: Path) -> None:
    run = made("model.hidden_layers=[10]", *SMALL[1:])
    layers = [layer for layer in run.model.modules() if isinstance(layer, nn.Linear)]
    layers[1].bias = layers[0].bias
    path = tmp_path / "model.safetensors"
    export.to_safetensors(run, path, made_up(1, 28, 28).test.images)
    assert load_file(path)["2.bias"].equal(load_file(path)["5.bias"])


@pytest.mark.slow
def test_a_pt2_file_runs_where_mnist_exp_is_not_installed(made: Callable[..., TrainedRun], tmp_path: Path) -> None:
    export.to_torch_export(made(*SMALL), tmp_path / "model.pt2", made_up(1, 28, 28).test.images)
    code = (
        "import sys; sys.modules['mnist_exp'] = None\n"
        "import torch\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "print(*module(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).shape)"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt2"], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("3 10\n", "")
