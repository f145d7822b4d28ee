"""Builds the parts of a run from its config. Nothing else calls instantiate."""

import copy
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp.data import batches
from mnist_exp.data.batches import Split, SplitImages
from mnist_exp.data.images import DataSet
from mnist_exp.store.run_folder import SPLIT_KEYS, InferenceFacts
from mnist_exp.system import errors, lazy_dynamo, resources
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.program import ALLOW_MORE

# The prefixes that a _target_ may have. Not all of torch: torch.hub.load and torch.load run code from elsewhere.
# More prefixes come, comma-separated, from the environment alone, so that no config can allow itself anything.
ALLOWED = ("torch.nn.", "torch.optim.", "mnist_exp.")


def setup_torch(cfg: DictConfig) -> None:
    """Set the threads, the precision and the determinism of the whole process."""
    lazy_dynamo.install()
    torch.set_num_threads(cfg.threads)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    torch.set_flush_denormal(True)  # Adam's moments of pixels that are always dark would slow each step by a tenth
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it when deterministic
    # As torch.use_deterministic_algorithms, which would import 150 MB of compilers as well.
    torch.set_deterministic_debug_mode("error" if cfg.deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and never read


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Restore, after the block, what `setup_torch` sets in the whole process, and torch's own random numbers."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    flushed = bool(torch.tensor([1e-323], dtype=torch.float64) == 0)  # torch can set it, but not tell
    mode = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(flushed)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def device(cfg: DictConfig) -> torch.device:
    """Return the device that cfg.device names; auto is cuda, then mps, then cpu.

    Raises:
        ConfigError: This machine has no such device.
    """
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    names += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    name = {"auto": names[0], "cuda": "cuda:0"}.get(cfg.device, cfg.device)
    if name not in names:
        raise ConfigError(f"device={cfg.device}: torch finds {', '.join(names)} on this machine; auto takes the first")
    return torch.device(name)


def num_devices(cfg: DictConfig) -> int:
    """Return how many devices like that of `cfg` share the jobs that run at once: more than one if they are GPUs."""
    names_none = cfg.device in ("auto", "cuda")
    return torch.cuda.device_count() if names_none and device(cfg).type == "cuda" else 1


_sources: dict[str, DataSet] = {}


def source(cfg: DictConfig) -> DataSet:
    """Return the data set that cfg.data names, downloaded and verified if necessary.

    Raises:
        ConfigError: The data set can't be downloaded, or is damaged.
    """
    with naming("data"):
        load = _factory(cfg.data, without=SPLIT_KEYS)
        return _sources.get(repr(load)) or cast(DataSet, load())


def cached_source(cfg: DictConfig) -> DataSet:
    """Return the same as `source`, and cache it for this process and the jobs that it forks."""
    images = source(cfg)
    return _sources.setdefault(repr(_factory(cfg.data, without=SPLIT_KEYS)), images)


_last_split: dict[tuple[Any, ...], tuple[DataSet, SplitImages]] = {}


def split(cfg: DictConfig, source: DataSet, device: torch.device) -> Split:
    """Return the training, validation and test batches on the device.

    Args:
        cfg: The config of the run.
        source: The data set, on the CPU.
        device: Where the images go.

    Raises:
        ConfigError: The validation part or the batch is too large, or the augmentation doesn't fit the images.
    """
    with naming("augmentation"):
        augment = _factory(cfg.augmentation)()
        augment.center(source.train.images[:1])  # refuses a size that can't be
    with naming("data"):
        order_rng, augment_rng = generator(cfg.seed, "order"), generator(cfg.seed, "augmentation")
        images = _split_images(cfg, source, device)
        parts = batches.split_batches(images, cfg.data.batch_size, augment, order_rng, augment_rng)
    return parts._replace(
        name=source.name,
        classes=source.classes,
        sha256=source.sha256,
        image_shape=tuple(source.train.images.shape[1:]),
        preparation=source.preparation,
        cut=images.cut,
    )


def _split_images(cfg: DictConfig, source: DataSet, device: torch.device) -> SplitImages:
    """Split the data set, and cache the last split: the runs of one process often share it."""
    key = *map(id, source), cfg.data.validation, cfg.data.get("test"), cfg.data.seed, device
    if key not in _last_split:
        _last_split.clear()
        rng = generator(cfg.data.seed, "split")
        parts = batches.split_images(source, cfg.data.validation, cfg.data.get("test"), rng, device)
        _last_split[key] = source, parts  # with the source, so that no other source gets its ids
    return _last_split[key][1]


def test_images(cfg: DictConfig, source: DataSet) -> Tensor:
    """Return the test images of a run as its data set has them, not cropped: uint8 (N, C, H, W) on the CPU.

    Raises:
        ConfigError: The data set can't be split as the config says.
    """
    with naming("data"):
        return _split_images(cfg, source, torch.device("cpu")).test.images


def model(cfg: DictConfig, split: Split) -> nn.Module:
    """Return the model. The data decides on its input and output sizes, cfg.seed on its weights and its dropout.

    Raises:
        ConfigError: The model, the activation or the initialization can't be built.
    """
    torch.manual_seed(stream(cfg.seed, "weights"))
    model = _model(cfg, split.val.images.shape[1:], len(split.classes))
    with naming("init"):
        _factory(cfg.init)(model)
    torch.manual_seed(stream(cfg.seed, "dropout"))
    return model.to(split.val.images.device)


def _model(cfg: DictConfig, in_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Return the model with the weights that its constructors draw."""
    with naming("activation"):
        activation = _factory(cfg.activation)
        activation()
    with naming("model"):
        build = _factory(cfg.model)
        model: nn.Module = build(in_shape=tuple(in_shape), num_classes=num_classes, activation=activation)
        return model


def from_inference_facts(facts: InferenceFacts) -> tuple[nn.Module, Any]:
    """Return the model, whose weights are still to be loaded, and the loss, which turns logits into probabilities.

    Raises:
        ConfigError: The config names a part that can't be built.
    """
    cfg = OmegaConf.create(facts["config"])
    channels = facts["image_shape"][0]
    with torch.random.fork_rng(()):  # what constructors draw is for nothing, and must not move the caller's numbers
        return _model(cfg, (channels, *facts["crop"]), len(facts["classes"])), loss(cfg)


def loss(cfg: DictConfig) -> Any:
    """Return the loss, a module that also turns logits into probabilities."""
    with naming("loss"):
        return _factory(cfg.loss)()


def optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """Return the optimizer of all the model's parameters."""
    with naming("optimizer"):
        build = _optimizer_factory(cfg)
        optimizer: Optimizer = build(model.parameters())
        _small_optimizer(build, next(model.parameters()).device)  # a missing fused kernel shows at a step
        return optimizer


def schedule(cfg: DictConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """Return the learning-rate schedule, which is stepped once per batch."""
    with naming("schedule"):
        build = _tried_schedule(cfg, _small_optimizer(_optimizer_factory(cfg)), steps_per_epoch)
        schedule: LRScheduler = build(optimizer)
        return schedule


def _tried_schedule(cfg: DictConfig, small: Optimizer, steps_per_epoch: int) -> Callable[..., LRScheduler]:
    """Return what builds the schedule of an optimizer, tried on a small one: some errors need a step."""
    build = partial(_factory(cfg.schedule), epochs=cfg.epochs, steps_per_epoch=steps_per_epoch)
    _first_rates(build(small), min(3, cfg.epochs * steps_per_epoch - 1))
    return build


def early_stop_note(cfg: DictConfig) -> str | None:
    """Return a note for the log if patience may stop the run before its schedule is through."""
    if cfg.patience is None or lr_curve(cfg, cfg.epochs, 0) == lr_curve(cfg, cfg.epochs + 1, 0):
        return None
    name = cfg.schedule._target_.rpartition(".")[2]
    return f"schedule={name} spreads the learning rate over all {cfg.epochs} epochs; patience may stop the run earlier"


def lr_curve(cfg: DictConfig, epochs: int, first: int) -> tuple[dict[str, Any], list[float]]:
    """Return a schedule's settings, and its `first` learning rates, in a run of `epochs` of one step each."""
    with naming("schedule"):
        small = _small_optimizer(_optimizer_factory(cfg))
        schedule: LRScheduler = _factory(cfg.schedule)(small, epochs=epochs, steps_per_epoch=1)
        return schedule.state_dict(), _first_rates(schedule, first)


def _first_rates(schedule: LRScheduler, steps: int) -> list[float]:
    """Return the learning rates of the first steps."""
    rates: list[float] = []
    schedule.optimizer.step()  # torch warns of a schedule that steps first
    for _ in range(steps):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.step()
    return rates


def _optimizer_factory(cfg: DictConfig) -> Callable[..., Optimizer]:
    """Return what builds the optimizer of parameters."""
    return _factory(cfg.optimizer, without=("lr_range",))


def _small_optimizer(build: Callable[..., Optimizer], device: str | torch.device = "cpu") -> Optimizer:
    """Return an optimizer of one weight, after one step."""
    weight = torch.zeros(1, device=device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    small = build([weight])
    small.step()
    return small


def _state_tensors(small: Optimizer) -> int:
    """Return how many values an optimizer keeps for each weight, given a small one."""
    [state] = small.state.values() or [{}]
    return sum(isinstance(value, Tensor) and value.shape == (1,) for value in state.values())


def require_memory(cfg: DictConfig, split: Split, device: torch.device) -> None:
    """Raise ConfigError if the model needs more memory than is free.

    What counts is the weights, the gradients, the optimizer's state and the checkpoints that wait to be written.
    Activations do not.
    """
    with naming("optimizer"):
        state = _state_tensors(_small_optimizer(_optimizer_factory(cfg)))
    _require_memory(_weight_bytes(cfg, split), state, checkpoint_copies(cfg, device), device)


def _weight_bytes(cfg: DictConfig, split: Split) -> int:
    """Return the size of the model's weights; 0 if it is known only once the model is built."""
    shape, classes = split.val.images.shape[1:], len(split.classes)
    try:
        with torch.device("meta"):  # shapes without memory
            return sum(tensor.nbytes for tensor in _model(cfg, shape, classes).parameters())
    except Exception:  # the model needs numbers to be built
        return 0


def _require_memory(weights: int, state_tensors: int, copies: int, device: torch.device, times: int = 1) -> None:
    """Raise ConfigError if `times` models at once, with weights of so many bytes, need more memory than is free."""
    state = state_tensors * weights
    needs = {"weights": weights, "gradients": weights, "optimizer state": state}
    needs["checkpoint"] = copies * (weights + state)
    with naming("model"):
        resources.require_memory(device.type, needs, times, advice="smaller layers need less")


def checkpoint_copies(cfg: DictConfig, device: torch.device) -> int:
    """Return how many copies of a run's state its device may hold: of the best epoch, of the last one and of a new one.

    They are on the CPU, so a GPU holds none.
    """
    return min(cfg.checkpoint_every, 3) if device.type == "cpu" else 0


def check_step(cfg: DictConfig, model: nn.Module, loss: Any, split: Split) -> None:
    """Try a training step on a whole batch, and on the epoch's last and smaller one.

    Weights, buffers and random generators stay as they were.

    Raises:
        ConfigError: The model or the loss can't be trained.
    """
    before = copy.deepcopy(model.state_dict())
    size, count = split.train.batch_size, len(split.train.labels)
    last = count % size or size
    model.train()
    for n, which in (
        (size, ""),
        (last, f", at the epoch's last batch of {last} (data.batch_size={size}, {count:,} images)"),
    ):
        images, labels = next(iter(split.val[:n]))
        with naming(f"model{which}"):
            logits = model(images)
        with naming(f"loss{which}"):
            mean = loss(logits, labels)
        with naming(f"model{which}"):
            mean.backward()
    model.zero_grad()
    model.load_state_dict(before)
    torch.manual_seed(stream(cfg.seed, "dropout"))


class Optimization(NamedTuple):
    """What changes the weights of models. It was tried on one weight."""

    optimizer: Callable[..., Optimizer]  # of parameters
    schedule: Callable[..., LRScheduler]  # of an optimizer
    state_tensors: int  # how many values the optimizer keeps for each weight


class Trial:
    """Builds every part of runs on the CPU, and discards it, so that errors show before the first run starts.

    The runs differ in their optimizers and schedules alone. A process that will fork must do this in a subprocess,
    because it asks for GPUs.
    """

    def __init__(self, cfg: DictConfig, times: int = 1) -> None:
        """Prepare the data.

        Args:
            cfg: The config of one of the runs.
            times: How many such runs train at once.

        Raises:
            ConfigError: The data can't be had, or this machine has no such device.
        """
        setup_torch(cfg)
        self._cfg, self._device, self._times = cfg, device(cfg), -(-times // num_devices(cfg))
        self._data = split(cfg, cached_source(cfg), torch.device("cpu"))
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork, and this may be a forked process
        self._weight_bytes = _weight_bytes(cfg, self._data)
        self._affordable: set[int] = set()  # numbers of state tensors for which there is enough memory

    def optimization(self, cfg: DictConfig) -> Optimization:
        """Return the optimizer and the schedule of a run with these data.

        Raises:
            ConfigError: One of them can't be built.
        """
        with naming("optimizer"):
            build = _optimizer_factory(cfg)
            small = _small_optimizer(build)
            state_tensors = _state_tensors(small)
        with naming("schedule"):
            return Optimization(build, _tried_schedule(cfg, small, len(self._data.train)), state_tensors)

    def check(self, optimization: Optimization) -> None:
        """Build the network, and an optimizer and a schedule for it.

        Raises:
            ConfigError: A part can't be built, or there is too little memory.
        """
        state_tensors = optimization.state_tensors
        if state_tensors not in self._affordable:
            copies = checkpoint_copies(self._cfg, self._device)
            _require_memory(self._weight_bytes, state_tensors, copies, self._device, self._times)
            self._affordable.add(state_tensors)
        network = self._network
        with naming("optimizer"):
            optimizer = optimization.optimizer(network.parameters())
        with naming("schedule"):
            optimization.schedule(optimizer)

    @cached_property
    def _network(self) -> nn.Module:
        """The network, which can take a step."""
        network = model(self._cfg, self._data)
        check_step(self._cfg, network, loss(self._cfg), self._data)
        return network


def stream(seed: int, name: str) -> int:
    """Return the seed of one named source of randomness, independent of other names and other seeds."""
    return int.from_bytes(hashlib.sha256(f"{name} {seed}".encode()).digest()[:7])


def generator(seed: int, name: str) -> torch.Generator:
    """Return the CPU generator of one named source of randomness."""
    return torch.Generator().manual_seed(stream(seed, name))


def _factory(node: DictConfig, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Return the node's _target_ with its keys filled in, to be called with what only the run knows."""
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    for key, value in _items(values):
        if key == "_target_":
            _require_allowed(value)
        elif isinstance(value, str) and "${" in value:  # instantiate would resolve it again, into anything
            raise ConfigError(f"{key}={value}: an escaped interpolation is not a value")
    arguments = {key: value for key, value in values.items() if key not in without}
    options = {"_partial_": True, "_convert_": "all"}  # as keywords they would be merged, which takes a third longer
    return cast(Callable[..., Any], instantiate(arguments | options))


def _items(value: dict[str, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield every (key or index, value) at any depth."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield key, child
        if isinstance(child, dict | list):
            yield from _items(child)


def _require_allowed(target: Any) -> None:
    """Raise ConfigError for a target outside the allowed prefixes, by its name and by what the name leads to."""
    more = os.environ.get(ALLOW_MORE, "").replace(",", " ").split()
    prefixes = (*ALLOWED, *(f"{prefix.rstrip('.')}." for prefix in more))
    if str(target).startswith(prefixes):
        try:
            found = get_object(target)
        except Exception as error:  # anything that its import raises
            raise ConfigError(f"_target_={target}: can't be loaded: {' '.join(str(error).split())}") from error
        if f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}".startswith(prefixes):
            return
    raise ConfigError(
        f"_target_={target}: not run; a config may name {', '.join(prefixes)} and what {ALLOW_MORE} lists"
    )


@contextmanager
def naming(group: str) -> Iterator[None]:
    """Turn any error in the block into a ConfigError that names the group; `key=` at its start becomes `group.key=`."""
    try:
        yield
    except Exception as error:  # of torch, or of a user's own part
        if errors.is_out_of_memory(error):
            raise
        message = str(error).partition("\nException raised from")[0]
        if not isinstance(error, OSError):  # it has one line per source of the data
            message = " ".join(message.split())
        joint = "." if re.match(r"\w[\w.]*=", message) else ": "
        raise ConfigError(f"{group}{joint}{message}") from error
