"""The learning rate over a run: each takes the optimizer and returns a scheduler that is stepped once a batch."""

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.lr_scheduler import LRScheduler


def constant(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """The optimizer's own learning rate, all the way."""
    return torch_schedules.ConstantLR(optimizer, factor=1.0)


def cosine(optimizer: Optimizer, epochs: int, steps_per_epoch: int, min_lr: float) -> LRScheduler:
    """Half a cosine from the optimizer's learning rate to `min_lr` (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return torch_schedules.CosineAnnealingLR(optimizer, T_max=epochs * steps_per_epoch, eta_min=min_lr)


def step(optimizer: Optimizer, epochs: int, steps_per_epoch: int, step_size: int, gamma: float) -> LRScheduler:
    """The learning rate times `gamma` after each `step_size` epochs."""
    return torch_schedules.StepLR(optimizer, step_size=step_size * steps_per_epoch, gamma=gamma)


def onecycle(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, pct_start: float, div_factor: float
) -> LRScheduler:
    """From a `div_factor`-th of the optimizer's learning rate up to it in `pct_start` of the run, then down to nothing.

    Momentum is left alone, so that the schedule crosses with every optimizer. Smith & Topin 2018, arXiv 1708.07120.
    """
    steps = epochs * steps_per_epoch
    if pct_start * steps == 1:  # torch would divide by the length of a rise that ends at the step where it begins
        pct_start = pct_start * (1 + 1e-9) if steps > 1 else 0.0
    return torch_schedules.OneCycleLR(
        optimizer,
        max_lr=optimizer.param_groups[0]["lr"],
        total_steps=steps,
        pct_start=pct_start,
        div_factor=div_factor,
        cycle_momentum=False,
    )
