"""One run, top to bottom: build the parts, train, keep the best epoch, test it once, picture it.

python train.py --help
"""

import mnist_exp.startup  # noqa: F401  # before all else: Ctrl-C is one line from here on

# isort: split
import logging

import hydra
from omegaconf import DictConfig

from mnist_exp import command_line, config, errors, record, resume, stops
from mnist_exp.alone import Steps, TrainedAlone

log = logging.getLogger(__name__)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
@TrainedAlone
def main(cfg: DictConfig) -> Steps:
    """Do the run that `cfg` describes and return its best validation loss, for a sweeper to minimise."""
    with record.recording(resumed=cfg.resume is not None) as run:
        config.check(cfg)
        # Not at the top of the file: --help, --cfg and a wrong config do not wait for torch. It must be imported whole.
        with stops.uninterrupted():
            from mnist_exp import build, checkpoint, loop

        state = resume.load(cfg)  # where an earlier session left the run; nothing of a new one
        run.note(config_id=config.config_id(cfg), seed=cfg.seed, threads=cfg.threads, tags=list(cfg.tags))
        device = build.device(cfg)
        data = build.split(cfg, build.source(cfg), device)
        build.require_memory(cfg, data, device)
        model = build.model(cfg, data, num_classes=len(data.classes))
        loss = build.loss(cfg)
        build.check_step(cfg, model, loss, data)
        optimizer = build.optimizer(cfg, model)
        schedule = build.schedule(cfg, optimizer, steps_per_epoch=len(data.train))

        parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
        run.note(parameters=parameters, device=str(device), data={"name": data.name, "sha256": data.sha256})
        log.info(model)
        log.info(f"{parameters:,} trainable parameters, on {device}")
        sizes = ", ".join(f"{len(getattr(data, part).images):,} {part}" for part in ("train", "val", "test"))
        log.info(f"{data.name}: {sizes} images")

        checkpoints = checkpoint.Checkpoints(run.folder / "checkpoints", model, loss, optimizer, schedule, data.train)
        if state:
            checkpoints.restore(state)
            run.go_on(state)
        run.begin(config.identity(cfg), len(data.train.images))
        checkpoints.save(run.state())
        resume.keep(cfg, run.folder)
        if cfg.plots:
            from mnist_exp import plots

            plots.of_data(run.folder / "plots", data.train, data.classes, build.generator(cfg.seed, "pictures"))

        parts = loop.Training(model, loss, optimizer, schedule, data.train, data.val)
        while not run.is_over:
            # Trained here, alone, or as one with the epochs of other runs: mnist_exp.fused.
            row = yield parts, run.done + 1
            with stops.uninterrupted():
                checkpoints.save(run.state(row))
                run.epoch(row)

        checkpoints.load_best()
        result = loop.evaluate(model, loss, data.test)
        run.test(result)
        if cfg.plots:
            probabilities = loss.probabilities(result.logits)
            plots.of_results(run.folder / "plots", run.rows, run.best, data.test, probabilities, data.classes)
        log.info(run.folder)
        return run.best.val_loss


if __name__ == "__main__":
    with errors.in_one_line(), command_line.arranged_for_hydra():
        main()
