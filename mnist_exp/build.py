"""From a config to the parts of a run: the only caller of instantiate."""

import copy
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp import errors, memory
from mnist_exp.data import batches
from mnist_exp.data.batches import Cut, Split
from mnist_exp.data.sources import Images
from mnist_exp.errors import ConfigError

log = logging.getLogger(__name__)

# What a config may name as a _target_. Not all of torch: torch.hub.load and torch.load run strangers' code.
# More prefixes come, comma-separated, from the environment alone: no config can allow itself anything.
ALLOWED = ("torch.nn.", "torch.optim.", "mnist_exp.")
ALLOW_MORE = "MNIST_EXP_ALLOW"


def device(cfg: DictConfig) -> torch.device:
    """Set up torch for this run and return the device that cfg.device names; auto is cuda, then mps, then cpu."""
    torch.set_num_threads(cfg.threads)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    torch.set_flush_denormal(True)  # Adam's moments of pixels that are always dark would slow each step by a tenth
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it when deterministic
    # As torch.use_deterministic_algorithms, which would import 150 MB of compilers as well.
    torch.set_deterministic_debug_mode("error" if cfg.deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and never read
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    names += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    asked = {"auto": names[0], "cuda": "cuda:0"}.get(cfg.device, cfg.device)
    if asked not in names:
        raise ConfigError(f"device={cfg.device}: torch finds {', '.join(names)} on this machine; auto takes the first")
    return torch.device(asked)


NOT_THE_SOURCE = ("validation", "batch_size", "seed")  # keys of cfg.data that say what to do with the images
_kept: dict[str, Images] = {}


def source(cfg: DictConfig) -> Images:
    """The data set that cfg.data names, fetched and verified if need be; one that is kept is at hand."""
    with _blaming("data"):
        load = _part(cfg.data, without=NOT_THE_SOURCE)
        return _kept.get(repr(load)) or cast(Images, load())


def keep(cfg: DictConfig) -> Images:
    """As `source`, and hold on to it: the jobs of a sweep, forked off this process, share it."""
    images = source(cfg)
    return _kept.setdefault(repr(_part(cfg.data, without=NOT_THE_SOURCE)), images)


_last_cut: dict[tuple[Any, ...], tuple[Images, Cut]] = {}


def split(cfg: DictConfig, source: Images, device: torch.device) -> Split:
    """Training, validation and test batches on the device."""
    with _blaming("augmentation"):
        augment = _part(cfg.augmentation)()
        augment.center(source.train_images[:1])  # refuses a size that can't be
    with _blaming("data"):
        order, chance = generator(cfg.seed, "order"), generator(cfg.seed, "augmentation")
        parts = batches.split(_cut(cfg, source, device), cfg.data.batch_size, augment, order, chance)
    return parts._replace(name=source.name, classes=source.classes, sha256=source.sha256)


def _cut(cfg: DictConfig, source: Images, device: torch.device) -> Cut:
    """The data set in its three parts. The last one is kept, for the runs of one process often have the same."""
    key = *map(id, source), cfg.data.validation, cfg.data.seed, device
    if key not in _last_cut:
        _last_cut.clear()
        train, test = (source.train_images, source.train_labels), (source.test_images, source.test_labels)
        parts = batches.cut(train, test, cfg.data.validation, generator(cfg.data.seed, "split"), device)
        _last_cut[key] = source, parts  # with the source, so that no other one gets its ids
    return _last_cut[key][1]


def model(cfg: DictConfig, split: Split, num_classes: int) -> nn.Module:
    """The model, its sizes from the data, its weights and its dropout each from a stream of cfg.seed."""
    torch.manual_seed(stream(cfg.seed, "weights"))
    model = _model(cfg, split, num_classes)
    with _blaming("init"):
        _part(cfg.init)(model)
    torch.manual_seed(stream(cfg.seed, "dropout"))
    return model.to(split.val.images.device)


def _model(cfg: DictConfig, split: Split, num_classes: int) -> nn.Module:
    """The model as it is built, its weights by torch's own rule."""
    with _blaming("activation"):
        activation = _part(cfg.activation)
        activation()
    with _blaming("model"):
        in_shape = tuple(split.val.images.shape[1:])
        model: nn.Module = _part(cfg.model)(in_shape=in_shape, num_classes=num_classes, activation=activation)
        return model


def loss(cfg: DictConfig) -> Any:
    """The loss, a module that also turns logits into probabilities."""
    with _blaming("loss"):
        return _part(cfg.loss)()


def optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """The optimizer of all the model's parameters."""
    with _blaming("optimizer"):
        optimizer: Optimizer = _part(cfg.optimizer, without=("lr_range",))(model.parameters())
        _stand_in(cfg, next(model.parameters()).device)  # only a step may tell that there is no fused kernel for it
        return optimizer


def schedule(cfg: DictConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """The learning rate over the run, stepped once a batch. It says where a run with patience may end halfway down."""
    if cfg.patience is not None and course(cfg, cfg.epochs, 0) != course(cfg, cfg.epochs + 1, 0):
        name = cfg.schedule._target_.rpartition(".")[2]
        log.info(
            f"schedule={name} spreads the learning rate over all {cfg.epochs} epochs; patience may stop before its end"
        )
    return _schedule(cfg, optimizer, steps_per_epoch)


def _schedule(cfg: DictConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    with _blaming("schedule"):
        build_schedule = partial(_part(cfg.schedule), epochs=cfg.epochs, steps_per_epoch=steps_per_epoch)
        _first_rates(build_schedule(_stand_in(cfg)), min(3, cfg.epochs * steps_per_epoch - 1))  # what only a step shows
        schedule: LRScheduler = build_schedule(optimizer)
        return schedule


def course(cfg: DictConfig, epochs: int, first: int) -> tuple[dict[str, Any], list[float]]:
    """A schedule's settings, and its `first` learning rates, in a run of so many `epochs` of one step each."""
    with _blaming("schedule"):
        schedule: LRScheduler = _part(cfg.schedule)(_stand_in(cfg), epochs=epochs, steps_per_epoch=1)
        return schedule.state_dict(), _first_rates(schedule, first)


def _first_rates(schedule: LRScheduler, steps: int) -> list[float]:
    """The learning rates of so many steps."""
    rates = list[float]()
    schedule.optimizer.step()  # or torch would warn that the schedule is ahead of it
    for _ in range(steps):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.step()
    return rates


def _stand_in(cfg: DictConfig, device: str | torch.device = "cpu") -> Optimizer:
    """An optimizer of one weight, which has taken a step."""
    weight = torch.zeros(1, device=device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    stand_in: Optimizer = _part(cfg.optimizer, without=("lr_range",))([weight])
    stand_in.step()
    return stand_in


def require_memory(cfg: DictConfig, split: Split, device: torch.device, times: int = 1) -> None:
    """Raise ConfigError where there is too little memory for what training keeps of a model, `times` over."""
    try:
        with torch.device("meta"):  # shapes without memory
            weights = list(_model(cfg, split, len(split.classes)).parameters())
    except Exception:  # a model that needs numbers to be built: how large it is, is seen when it is there
        return
    count = sum(tensor.nbytes for tensor in weights)
    with _blaming("optimizer"):
        [state] = _stand_in(cfg).state.values() or [{}]
    kept = sum(isinstance(value, Tensor) and value.shape == (1,) for value in state.values()) * count
    needs = {"weights": count, "gradients": count, "optimizer state": kept}
    memory.require(device.type, needs | {"checkpoint": count + kept if device.type == "cpu" else 0}, times)


def check_step(cfg: DictConfig, model: nn.Module, loss: Any, split: Split) -> None:
    """Refuse a model or a loss that can't be trained, by a pass over a whole batch and one over the epoch's last.

    Weights, buffers and random numbers stay as they are. Raises ConfigError.
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
        with _blaming(f"model{which}"):
            logits = model(images)
        with _blaming(f"loss{which}"):
            mean = loss(logits, labels)
        with _blaming(f"model{which}"):
            mean.backward()
    model.zero_grad()
    model.load_state_dict(before)
    torch.manual_seed(stream(cfg.seed, "dropout"))


def rehearse(cfg: DictConfig, times: int = 1) -> None:
    """Build every part of a run, on the CPU, and let it go, so that what can't be built is told now.

    Raises ConfigError, also where there is too little memory for so many such runs at a time. A process that is going
    to fork has it done apart, for it asks for GPUs.
    """
    chosen, data = device(cfg), split(cfg, keep(cfg), torch.device("cpu"))
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork, and this may be a forked process
    require_memory(cfg, data, chosen, times)
    network, objective = model(cfg, data, len(data.classes)), loss(cfg)
    check_step(cfg, network, objective, data)
    _schedule(cfg, optimizer(cfg, network), len(data.train))


def stream(seed: int, name: str) -> int:
    """A seed for one named source of randomness: other names and other seeds have nothing to do with it."""
    return int.from_bytes(hashlib.sha256(f"{name} {seed}".encode()).digest()[:7])


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named source of randomness."""
    return torch.Generator().manual_seed(stream(seed, name))


def _part(node: DictConfig, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The node's _target_ with its keys filled in, to be called with what only the run knows."""
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    for key, value in _everything(values):
        if key == "_target_":
            _require_allowed(value)
        elif isinstance(value, str) and "${" in value:  # instantiate would resolve it once more, into anything
            raise ConfigError(f"{key}={value}: an escaped interpolation is not a value")
    kept = {key: value for key, value in values.items() if key not in without}
    return cast(Callable[..., Any], instantiate(kept, _partial_=True, _convert_="all"))


def _everything(value: dict[str, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    """Every (key or number, value) at any depth."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield key, child
        if isinstance(child, dict | list):
            yield from _everything(child)


def _require_allowed(target: Any) -> None:
    """Refuse what is not torch's or ours, by its name and by where the name leads (mnist_exp.build.os.system...)."""
    more = os.environ.get(ALLOW_MORE, "").replace(",", " ").split()
    prefixes = (*ALLOWED, *(f"{prefix.rstrip('.')}." for prefix in more))
    if str(target).startswith(prefixes):
        try:
            found = get_object(target)
        except Exception as error:  # whatever importing it raises
            raise ConfigError(f"_target_={target}: can't be loaded: {' '.join(str(error).split())}") from error
        if f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}".startswith(prefixes):
            return
    raise ConfigError(
        f"_target_={target}: not run; a config may name {', '.join(prefixes)} and what {ALLOW_MORE} lists"
    )


@contextmanager
def _blaming(group: str) -> Iterator[None]:
    """Name the group in what its part says is wrong; words that begin with `key=` become `group.key=`."""
    try:
        yield
    except Exception as error:  # whatever a part raises, of torch's or of a user's own
        if errors.is_of_memory(error):
            raise
        said = str(error).partition("\nException raised from")[0]
        told = said if isinstance(error, OSError) else " ".join(said.split())  # that has a line for each of its sources
        joint = "." if re.match(r"\w[\w.]*=", told) else ": "
        raise ConfigError(f"{group}{joint}{told}") from error
