"""How many models a second train for an epoch: fused, one by one, by two workers, and the usual way.

python benchmarks/fused.py [--models 2 4 8 ...] [--layers 32,32 128,64 256,512] [--rounds 3]
python benchmarks/fused.py --memory             how much memory a crew takes for each of its models: by torch's own
                                                count, and by the size of its process, with what malloc leaves unused

All on the real MNIST with the default augmentation, in turn, on a GPU where there is one: fused against our own single
runs in one process (on a CPU with the next batches made on a second core, as ever), against two workers, each with a
run of its own, and against the usual way, a DataLoader around torchvision's transforms. Models with one seed differ in
their learning rates, each its own; models with a seed each differ in nothing else. Starting processes, loading data and
writing files is not counted. On a CPU more than 16 models train, in all the ways, for a part of an epoch, scaled.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median

import torch
from epoch import as_installed, loaders
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, profile

from mnist_exp import build
from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.sweep.launchers import grouping
from mnist_exp.system.fork import run_in_subprocess
from mnist_exp.training import loop

CONF = str(Path(__file__).resolve().parents[1] / "conf")
WARM = 1000  # images to warm up with
WORKERS = 2


def config(layers: str, *words: str) -> DictConfig:
    """The default run with these layers."""
    return compose("config", [f"model.hidden_layers=[{layers}]", *words])


def training(cfg: DictConfig, share: float = 1) -> loop.Training:
    """The parts of a run, ready for its first epoch, with a share of the images."""
    device = build.device(cfg)
    data = build.split(cfg, build.cached_source(cfg), device)
    model = build.model(cfg, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, len(data.train))
    parts = loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val)
    return part(parts, round(share * len(data.train.images)), round(share * len(data.val.images)))


def part(parts: loop.Training, train: int, val: int) -> loop.Training:
    """The same with so many images."""
    return parts._replace(train=parts.train[:train], val=parts.val[:val])


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_by_one(cfg: DictConfig, share: float) -> float:
    """Models a second."""
    parts = training(cfg, share)
    loop.train_and_validate(part(parts, WARM, WARM), 1)
    return share / seconds(lambda: loop.train_and_validate(parts, 2))


def side_by_side(crews: Sequence[Sequence[DictConfig]], share: float) -> float:
    """Models a second, those of each crew as one in a process of its own.

    A few steps before, in which memory is claimed, are not counted.
    """

    def work(crew: Sequence[DictConfig]) -> None:
        torch.set_num_interop_threads(1)  # no core is spare to make batches ready
        if len(crew) > 1:
            memory.hold()
        trainings = [training(cfg, share) for cfg in crew]
        for number, parts in enumerate([[part(it, WARM, WARM) for it in trainings], trainings], start=1):
            train = FusedTrainer(parts).epoch if len(crew) > 1 else partial(loop.train_and_validate, parts[0])
            ready.wait()
            train(number)
        ready.wait()

    context = multiprocessing.get_context("fork")
    ready = context.Barrier(len(crews) + 1)
    workers = [context.Process(target=work, args=(crew,)) for crew in crews]
    for worker in workers:
        worker.start()
    ready.wait()
    ready.wait()
    taken = seconds(ready.wait)
    for worker in workers:
        worker.join()
    return share * sum(map(len, crews)) / taken


def memory_of(crew: Sequence[DictConfig]) -> float:
    """The most bytes that torch holds for a crew at a time, in a short epoch."""
    if build.device(crew[0]).type == "cuda":
        short_epoch(crew)
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        short_epoch(crew)
    events = (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")
    most: float = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return most


def short_epoch(crew: Sequence[DictConfig]) -> None:
    """Build the runs, and train them as one."""
    FusedTrainer([part(training(cfg), WARM, WARM) for cfg in crew]).train_epoch(1)


def size_of(crew: Sequence[DictConfig]) -> float:
    """The most bytes by which a crew's process grows in an epoch."""
    memory.hold()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    together = FusedTrainer([training(cfg) for cfg in crew])
    memory.trim()
    together.train_epoch(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def accounted(cfg: DictConfig, own_batch: bool) -> int:
    """The bytes of a model's weights, gradients, Adam's state, and of what it and its layers put out for a batch."""
    parts = training(cfg)
    weights = sum(tensor.nbytes for tensor in parts.model.parameters())
    outputs = sum(2 * layer.out_features for layer in parts.model.modules() if isinstance(layer, torch.nn.Linear))
    pixels = parts.train.images[0].numel() if own_batch else 0
    return 4 * weights + 4 * int(cfg.data.batch_size) * (pixels + outputs)  # before and after the activation


def fused(configs: Sequence[DictConfig], share: float) -> float:
    """Models a second, a crew for each core, as hydra/launcher=fused has them."""
    [crews] = grouping.crews(configs[0], range(len(configs)), most=None)
    return side_by_side([[configs[place] for place in crew] for crew in crews], share)


def the_usual_way(cfg: DictConfig) -> float:
    """Models a second, of an eighth of an epoch, scaled."""
    parts = training(cfg)
    device = build.device(cfg)
    train, _ = loaders(cfg, build.split(cfg, build.cached_source(cfg), torch.device("cpu")), workers=0)
    optimizer = torch.optim.Adam(parts.model.parameters(), lr=cfg.optimizer.lr)

    def eighth() -> None:
        for (images, labels), _ in zip(train, range(len(train) // 8), strict=False):
            optimizer.zero_grad()
            loss = parts.loss(parts.model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        loss.item()  # a GPU has done it all

    with as_installed():
        return 1 / (8 * seconds(eighth))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[2**power for power in range(1, 9)])
    parser.add_argument("--layers", nargs="+", default=["32,32", "128,64", "256,512"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler is talkative
    with initialize_config_dir(CONF, version_base="1.3"):
        for layers in options.layers:
            if options.memory:
                print(f"\nhidden layers [{layers}], MB for each of 64 models beyond the first 16", flush=True)
                weigh(layers)
                continue
            print(f"\nhidden layers [{layers}], models an epoch and second: median (range) of {options.rounds} rounds")
            for count in options.models:
                compare(count, kinds(layers, count), options.rounds)


def kinds(layers: str, count: int) -> dict[str, list[DictConfig]]:
    """Models that share a stream of batches, and models that do not."""
    return {
        "one seed": [config(layers, f"optimizer.lr={0.001 * 1.01**number}") for number in range(count)],
        "a seed each": [config(layers, f"seed={number}") for number in range(count)],
    }


def weigh(layers: str) -> None:
    """Print how much memory a model takes."""
    build.cached_source(config(layers))
    for kind, configs in kinds(layers, 80).items():
        must = run_in_subprocess(partial(accounted, configs[0], kind == "a seed each"))
        for what, measure in ("torch", memory_of), ("the process", size_of):
            many, few = (run_in_subprocess(partial(measure, crew)) for crew in (configs, configs[:16]))
            taken = (many - few) / 64
            print(f"{kind:12} {what:12} {taken / 2**20:6.2f}, {taken / must:.2f} of what it must", flush=True)


def compare(count: int, kinds: dict[str, list[DictConfig]], rounds: int) -> None:
    """Print the speed of so many models fused, and how many times those of the other ways that is."""
    found, share = dict[str, list[float]](), 1 if run_in_subprocess(torch.cuda.device_count) else min(1, 16 / count)
    for _ in range(rounds):
        ours = {kind: fused(configs, share) for kind, configs in kinds.items()}
        cfg = kinds["one seed"][0]
        others = {
            "one by one": run_in_subprocess(partial(one_by_one, cfg, share)),
            "workers": side_by_side([[cfg]] * WORKERS, share),
            "usual way": run_in_subprocess(partial(the_usual_way, cfg)),
        }
        for kind, speed in ours.items():
            found.setdefault(kind, []).append(speed)
            for way, other in others.items():
                found.setdefault(f"{kind} / {way}", []).append(speed / other)
    for name, values in found.items():
        unit = "times" if "/" in name else "models/s"
        print(f"{count:4}  {name:28} {median(values):8.2f} {unit}  ({min(values):.2f}-{max(values):.2f})", flush=True)


if __name__ == "__main__":
    main()
