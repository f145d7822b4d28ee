"""Throughput of fused training, in models that train one epoch per second, against three other ways.

    python -m benchmarks.fused [--models 2 4 8 ...] [--layers 32,32 128,64 256,512] [--rounds 3]
    python -m benchmarks.fused --memory    the memory per model of a fused group: as torch counts it, and as its process
                                           grows, which includes what malloc leaves unused

one by one   our own single runs in one process; on a CPU, a second core prepares their batches
workers      two processes, each with a run of its own
usual way    a DataLoader around torchvision's transforms

All train on the real MNIST with the default augmentation, in turn, on a GPU if there is one. Models with one seed
differ in their learning rates; models with a seed each differ in nothing else. Starting processes, loading data and
writing files is not timed. On a CPU, more than 16 models train for a part of an epoch, in all ways, and the time is
scaled.
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

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks import figures
from benchmarks.epoch import as_installed, loaders
from mnist_exp import build
from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.sweep.launchers import grouping
from mnist_exp.system.fork import run_in_subprocess
from mnist_exp.training import loop

CONF = str(Path(__file__).resolve().parents[1] / "conf")
WARMUP = 1000  # images
WORKERS = 2


def config(layers: str, *overrides: str) -> DictConfig:
    """Return the config of the default run with these hidden layers."""
    return compose("config", [f"model.hidden_layers=[{layers}]", *overrides])


def training(cfg: DictConfig, share: float = 1) -> loop.Training:
    """Build the parts of a run, with a share of the images."""
    build.setup_torch(cfg)
    device = build.device(cfg)
    data = build.split(cfg, build.cached_source(cfg), device)
    model = build.model(cfg, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, len(data.train))
    whole = loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val)
    return part(whole, round(share * len(data.train.images)), round(share * len(data.val.images)))


def part(training: loop.Training, train: int, val: int) -> loop.Training:
    """Return the same with the first `train` and `val` images."""
    return training._replace(train=training.train[:train], val=training.val[:val])


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def one_by_one(cfg: DictConfig, share: float) -> float:
    """Return the models per second of single runs."""
    parts = training(cfg, share)
    loop.train_and_validate(part(parts, WARMUP, WARMUP), 1)
    return share / seconds(lambda: loop.train_and_validate(parts, 2))


def in_processes(groups: Sequence[Sequence[DictConfig]], share: float) -> float:
    """Return the models per second of groups that train at the same time, each as one in a process of its own.

    The first steps, in which memory is claimed, are not timed.
    """

    def work(configs: Sequence[DictConfig]) -> None:
        torch.set_num_interop_threads(1)  # no core is spare to prepare batches
        if len(configs) > 1:
            memory.keep_freed_memory()
        whole = [training(cfg, share) for cfg in configs]
        for epoch, trainings in enumerate([[part(each, WARMUP, WARMUP) for each in whole], whole], start=1):
            train: Callable[[int], object] = partial(loop.train_and_validate, trainings[0])
            if len(configs) > 1:
                train = FusedTrainer(trainings).train_epoch
            barrier.wait()
            train(epoch)
        barrier.wait()

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(groups) + 1)
    processes = [context.Process(target=work, args=(configs,)) for configs in groups]
    for process in processes:
        process.start()
    barrier.wait()
    barrier.wait()
    taken = seconds(barrier.wait)
    for process in processes:
        process.join()
    return share * sum(map(len, groups)) / taken


def torch_memory(configs: Sequence[DictConfig]) -> float:
    """Return the most bytes that torch holds at a time for a fused group, in a short epoch."""
    if build.device(configs[0]).type == "cuda":
        short_epoch(configs)
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        short_epoch(configs)
    events = (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")
    most: float = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return most


def short_epoch(configs: Sequence[DictConfig]) -> None:
    """Build a fused group, and train it for a few steps."""
    FusedTrainer([part(training(cfg), WARMUP, WARMUP) for cfg in configs]).train_epoch(1)


def process_growth(configs: Sequence[DictConfig]) -> float:
    """Return the most bytes by which the process of a fused group grows in an epoch."""
    memory.keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = FusedTrainer([training(cfg) for cfg in configs])
    memory.trim()
    trainer.train_epoch(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def necessary_memory(cfg: DictConfig, own_batch: bool) -> int:
    """Return the bytes of a model's weights, gradients and Adam's state, and of its layers' outputs for a batch."""
    parts = training(cfg)
    weights = sum(tensor.nbytes for tensor in parts.model.parameters())
    outputs = sum(2 * layer.out_features for layer in parts.model.modules() if isinstance(layer, torch.nn.Linear))
    pixels = parts.train.images[0].numel() if own_batch else 0
    return 4 * weights + 4 * int(cfg.data.batch_size) * (pixels + outputs)  # before and after the activation


def fused(configs: Sequence[DictConfig], share: float) -> float:
    """Return the models per second of fused groups, one per core, as with hydra/launcher=fused."""
    [groups] = grouping.rounds(configs[0], range(len(configs)), max_models=None)
    return in_processes([[configs[index] for index in group] for group in groups], share)


def usual_way(cfg: DictConfig) -> float:
    """Return the models per second of a DataLoader: an eighth of an epoch is timed."""
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
        loss.item()  # waits for a GPU

    with as_installed():
        return 1 / (8 * seconds(eighth))


def main() -> None:
    """Print the speeds, or the memory per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[2**power for power in range(1, 9)])
    parser.add_argument("--layers", nargs="+", default=["32,32", "128,64", "256,512"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler prints much
    with initialize_config_dir(CONF, version_base="1.3"):
        for layers in options.layers:
            if options.memory:
                print(f"\nhidden layers [{layers}], MB per model, of the 64 models beyond the first 16", flush=True)
                measure_memory(layers)
                continue
            print(f"\nhidden layers [{layers}], models per second: median (range) of {options.rounds} rounds")
            for count in options.models:
                compare(count, sweeps(layers, count), options.rounds)


def sweeps(layers: str, count: int) -> dict[str, list[DictConfig]]:
    """Return the configs of models that share a stream of batches, and of models that don't."""
    return {
        "one seed": [config(layers, f"optimizer.lr={0.001 * 1.01**number}") for number in range(count)],
        "a seed each": [config(layers, f"seed={number}") for number in range(count)],
    }


def measure_memory(layers: str) -> None:
    """Print the memory per model."""
    build.cached_source(config(layers))
    for name, configs in sweeps(layers, 80).items():
        necessary = run_in_subprocess(partial(necessary_memory, configs[0], name == "a seed each"))
        for source, measure in ("torch", torch_memory), ("the process", process_growth):
            many, few = (run_in_subprocess(partial(measure, group)) for group in (configs, configs[:16]))
            taken = (many - few) / 64
            print(f"{name:12} {source:12} {taken / 2**20:6.2f}, {taken / necessary:.2f} of the necessary", flush=True)
            label = f"memory per model, {name}, {source}"
            figures.line(label, taken / 2**20, "MB", layers=layers, of_necessary=taken / necessary)


def compare(count: int, sweeps: dict[str, list[DictConfig]], rounds: int) -> None:
    """Print the speed of `count` models fused, and its ratio to the speed of the other ways."""
    found: dict[str, list[float]] = {}
    share = 1 if run_in_subprocess(torch.cuda.device_count) else min(1, 16 / count)
    for _ in range(rounds):
        ours = {name: fused(configs, share) for name, configs in sweeps.items()}
        cfg = sweeps["one seed"][0]
        others = {
            "one by one": run_in_subprocess(partial(one_by_one, cfg, share)),
            "workers": in_processes([[cfg]] * WORKERS, share),
            "usual way": run_in_subprocess(partial(usual_way, cfg)),
        }
        for name, speed in ours.items():
            found.setdefault(name, []).append(speed)
            for way, other in others.items():
                found.setdefault(f"{name} / {way}", []).append(speed / other)
    for name, values in found.items():
        layers = list(cfg.model.hidden_layers)
        figures.show(f"{count:4}  {name}", values, "" if "/" in name else "models/s", models=count, layers=layers)


if __name__ == "__main__":
    main()
