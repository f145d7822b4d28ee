"""A user's mistake gives a message of one line: the key, the value, what is allowed, what to type."""

import errno
from collections.abc import Callable

import pytest
from conftest import Outcome

from mnist_exp.system.errors import did_you_mean, explain, offer

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("optimzer=sgd", "optimzer: no such key, did you mean optimizer? Choose from epochs, "),
        ("epocs=3", "epocs: no such key, did you mean epochs? Choose from epochs, "),
        ("lr=0.1", "lr: no such key, did you mean optimizer.lr? Choose from epochs, "),
        ("hidden_layers=[8]", "hidden_layers: no such key, did you mean model.hidden_layers? Choose from"),
        ("optimizer=sdg", "optimizer=sdg: no such option, did you mean sgd? Choose from adagrad, "),
        ("activation=rellu", "activation=rellu: no such option, did you mean relu? Choose from elu, gelu, "),
        ("experiment=digit", "experiment=digit: no such option, did you mean digits? Choose from"),
        ("data.batchsize=32", "data.batchsize: no such key, did you mean data.batch_size? Choose from data.root, "),
        ("augmentation.rotaton.degrees=3", "did you mean augmentation.rotation? Choose from augmentation.rotation, "),
        ("hydra/launcher=fussed", "hydra/launcher=fussed: no such option, did you mean fused? Choose from basic, "),
        ("--multrun", "--multrun: no such flag, did you mean --multirun?"),
        (
            "resume=José/x",
            "resume=José/x: can't be read; a value with such characters needs quotes: 'resume=\"José/x\"'",
        ),
        ("model.hidden_layers=[8", "model.hidden_layers=[8: can't be read; a list is typed model.hidden_layers=[1,2]"),
        (
            "loss=\x1e<\n",
            r"""loss=\x1e<\n: can't be read; a value with such characters needs quotes: $'loss="\x1e<\x0a"'""",
        ),
        ("sgd", "sgd: is not an override, because it has no =; type key=value"),
        ("optimizer.lr=1,2", "optimizer.lr=1,2: has several values; -m makes a sweep of them"),
        ("seed=range(0,3)", "seed=range(0,3): has several values; -m makes a sweep of them"),
    ],
)
def test_one_line_that_helps(run: Run, typed: str, message: str) -> None:
    outcome = run(typed)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"error: {message}") or (message in outcome.err and message.startswith("did you"))
    assert "\n" not in outcome.err


def test_a_name_that_is_like_none_is_not_guessed() -> None:
    assert did_you_mean("xyz", ["adam", "sgd"]) == ""
    assert offer("xyz", ["adam", "sgd"], ["a.xyzzy"]) == "choose from adam, sgd"


def test_the_full_disk_of_a_copy_is_that_of_the_copy() -> None:
    full, forbidden = (OSError(code, "no", "from", None, "to") for code in (errno.ENOSPC, errno.EACCES))
    assert (explain(full), explain(forbidden)) == ("to: no", "from: no")
