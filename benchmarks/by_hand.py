"""A search by hand, as a user of Optuna writes it around `mnist_exp.train`; benchmarks/search.py times it.

    python -m benchmarks.by_hand NUMBER RUNS [key=value ...]

Tries RUNS settings by TPE with the seed NUMBER, and prints the best one as the last line: a list in JSON.
"""

import json
import sys

import optuna

import mnist_exp


def main() -> None:
    """Search, and print the best setting."""
    number, runs, *overrides = sys.argv[1:]

    def objective(trial: optuna.Trial) -> float:
        setting = [
            f"optimizer.lr={trial.suggest_float('lr', 1e-4, 1e-1, log=True)}",
            f"optimizer.weight_decay={trial.suggest_float('weight_decay', 1e-6, 1e-2, log=True)}",
            f"model.dropout={trial.suggest_float('dropout', 0, 0.5)}",
            f"model.hidden_layers={trial.suggest_categorical('hidden_layers', ['[32]', '[64]', '[64,32]'])}",
        ]
        trial.set_user_attr("setting", setting)
        try:
            return mnist_exp.train(*overrides, *setting).summary["best_val_accuracy"] or 0.0
        except FloatingPointError as error:  # it diverged
            raise optuna.TrialPruned from error

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=int(number)))
    study.optimize(objective, n_trials=int(runs))
    print(json.dumps(study.best_trial.user_attrs["setting"]))


if __name__ == "__main__":
    main()
