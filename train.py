"""One run, top to bottom: build the parts, train, keep the best epoch, test it once, draw the figures.

python train.py --help
"""

if __name__ == "__main__":
    import mnist_exp.system.startup  # noqa: F401  # first of all: Ctrl-C is one line from here on

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_exp import command_line
from mnist_exp.system import errors
from mnist_exp.training.run import TrainingRun


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Train the model that `cfg` describes, and return the best validation loss."""
    with TrainingRun.open(cfg, HydraConfig.get()) as run:
        from mnist_exp.training.loop import train_and_validate  # here, because --help does not wait for torch

        prepare(run)
        for epoch in run.epochs:
            run.record(train_and_validate(run.training, epoch))
        finish(run)
        return run.best.val_loss


def prepare(run: TrainingRun) -> None:
    """Build the parts that the config names, and start the run, or resume it."""
    from mnist_exp import build
    from mnist_exp.training.loop import Training

    cfg = run.cfg
    build.setup_torch(cfg)
    device = build.device(cfg)
    data = build.split(cfg, build.source(cfg), device)
    build.require_memory(cfg, data, device)
    model = build.model(cfg, data)
    loss = build.loss(cfg)
    build.check_step(cfg, model, loss, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, steps_per_epoch=len(data.train))

    run.start(Training(model, loss, optimizer, schedule, data.train, data.val), data)


def finish(run: TrainingRun) -> None:
    """Evaluate the best epoch's weights on the validation images again, and on the test set, once; draw the results.

    A run that was pruned has none.
    """
    if run.is_pruned:
        return
    from mnist_exp.training.loop import evaluate

    model, loss = run.training.model, run.training.loss
    run.checkpoints.load_best()
    val, test = evaluate(model, loss, run.data.val), evaluate(model, loss, run.data.test)
    run.record_results(val, test)
    if run.cfg.plots:
        run.drawing.finish(run.rows, run.best, test.probabilities)


if __name__ == "__main__":
    with errors.in_one_line(), command_line.arranged_for_hydra():
        main()
