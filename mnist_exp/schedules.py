"""The learning-rate schedules. Each takes the optimizer and returns a scheduler that is stepped once per batch."""

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.lr_scheduler import LRScheduler


def constant(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """Keep the optimizer's learning rate."""
    return torch_schedules.ConstantLR(optimizer, factor=1.0)


def cosine(optimizer: Optimizer, epochs: int, steps_per_epoch: int, min_lr: float) -> LRScheduler:
    """Decay from the optimizer's learning rate to `min_lr` along half a cosine.

    Loshchilov & Hutter 2017, arXiv 1608.03983.
    """
    return torch_schedules.CosineAnnealingLR(optimizer, T_max=epochs * steps_per_epoch, eta_min=min_lr)


def step(optimizer: Optimizer, epochs: int, steps_per_epoch: int, step_size: int, gamma: float) -> LRScheduler:
    """Multiply the learning rate by `gamma` after every `step_size` epochs."""
    return torch_schedules.StepLR(optimizer, step_size=step_size * steps_per_epoch, gamma=gamma)


def onecycle(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, pct_start: float, div_factor: float
) -> LRScheduler:
    """Increase the learning rate to the optimizer's, then decrease it to almost zero.

    Momentum stays the same, so that the schedule works with every optimizer. Smith & Topin 2018, arXiv 1708.07120.

    Args:
        optimizer: Its learning rate is the highest of the schedule.
        epochs: The length of the run.
        steps_per_epoch: Batches per epoch.
        pct_start: The fraction of the run that the increase takes.
        div_factor: The first learning rate is the highest divided by this.
    """
    steps = epochs * steps_per_epoch
    if pct_start * steps == 1:  # torch would divide by zero, the length of an increase that ends at its first step
        pct_start = pct_start * (1 + 1e-9) if steps > 1 else 0.0
    return torch_schedules.OneCycleLR(
        optimizer,
        max_lr=optimizer.param_groups[0]["lr"],
        total_steps=steps,
        pct_start=pct_start,
        div_factor=div_factor,
        cycle_momentum=False,
    )
