"""From a config to the parts of a run: the only caller of instantiate."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp.data import batches
from mnist_exp.data.batches import Cut, Split
from mnist_exp.data.sources import Images
from mnist_exp.errors import ConfigError

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
    with _blaming("activation"):
        activation = _part(cfg.activation)
        activation()
    torch.manual_seed(stream(cfg.seed, "weights"))
    with _blaming("model"):
        in_shape = tuple(split.val.images.shape[1:])
        model: nn.Module = _part(cfg.model)(in_shape=in_shape, num_classes=num_classes, activation=activation)
    with _blaming("init"):
        _part(cfg.init)(model)
    torch.manual_seed(stream(cfg.seed, "dropout"))
    return model.to(split.val.images.device)


def loss(cfg: DictConfig) -> Any:
    """The loss, a module that also turns logits into probabilities."""
    with _blaming("loss"):
        return _part(cfg.loss)()


def optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """The optimizer of all the model's parameters."""
    with _blaming("optimizer"):
        build_optimizer = _part(cfg.optimizer, without=("lr_range",))
        optimizer: Optimizer = build_optimizer(model.parameters())
        stand_in = torch.zeros(1, device=next(model.parameters()).device, requires_grad=True)
        stand_in.grad = torch.zeros_like(stand_in)
        build_optimizer([stand_in]).step()  # only then torch may tell that the device has no fused kernel for it
        return optimizer


def schedule(cfg: DictConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """The learning rate over the run, stepped once a batch."""
    with _blaming("schedule"):
        build_schedule = _part(cfg.schedule)
        schedule: LRScheduler = build_schedule(optimizer, epochs=cfg.epochs, steps_per_epoch=steps_per_epoch)
        return schedule


def course(cfg: DictConfig, epochs: int, first: int) -> tuple[dict[str, Any], list[float]]:
    """A schedule's settings, and its `first` learning rates, in a run of so many `epochs` of one step each."""
    stand_in = optimizer(cfg, nn.Linear(1, 1))
    schedule: LRScheduler = _part(cfg.schedule)(stand_in, epochs=epochs, steps_per_epoch=1)
    settings, rates = schedule.state_dict(), list[float]()
    stand_in.step()  # or torch would warn that the schedule is ahead of it
    for _ in range(first):
        rates.append(stand_in.param_groups[0]["lr"])
        schedule.step()
    return settings, rates


def rehearse(cfg: DictConfig) -> None:
    """Build every part of a run, on the CPU, and let it go, so that what can't be built is told now.

    Raises ConfigError. A process that is going to fork has it done apart, for it asks for GPUs.
    """
    device(cfg)
    data = split(cfg, keep(cfg), torch.device("cpu"))
    loss(cfg)
    schedule(cfg, optimizer(cfg, model(cfg, data, len(data.classes))), len(data.train))


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
    except (ValueError, TypeError, AttributeError, RuntimeError, OSError, ImportError, InstantiationException) as error:
        said = str(error).partition("\nException raised from")[0]
        told = said if isinstance(error, OSError) else " ".join(said.split())  # that has a line for each of its sources
        joint = "." if re.match(r"\w[\w.]*=", told) else ": "
        raise ConfigError(f"{group}{joint}{told}") from error
