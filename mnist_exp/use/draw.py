"""A page on which to draw, and on which a trained network answers: draw.html.j2 with style, scripts and weights inside.

The page needs no network and no server. network.js runs the model, prepare.js makes an image like those of the data set
from what is drawn, and draw.js is the rest.
"""

import copy
import string
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import nn

from mnist_exp.data import fetch
from mnist_exp.report import template
from mnist_exp.store.run_folder import InferenceFacts, Summary
from mnist_exp.system import errors, files, quoting
from mnist_exp.use import network, trained_run
from mnist_exp.use.figure import PLACINGS
from mnist_exp.use.trained_run import TrainedRun

FOLDER = Path(__file__).parent
NAME = "draw.html"
SCRIPTS = [FOLDER / name for name in ("network.js", "prepare.js", "draw.js")]
LONGEST_SIDE = 560  # px of the sheet: 20 for each pixel of a 28 x 28 image
MOST_BARS = 12  # classes that are always shown; of more, the most probable
LONGEST_LIST = 40  # characters of the classes' names in a sentence
PEN = {"figure": 44, "dark": 60, "light": 60}  # px of its width, on each kind of sheet


class Placed(TypedDict):
    """Where the page puts a figure: `figure.Placing` for the run's images, in pixels."""

    box: int  # the figure's longer side
    by_mass: bool


class Weights(NamedTuple):
    """How the page holds the weights.

    Attributes:
        type: float16 or float32.
        reason: Why, in words.
    """

    type: str
    reason: str


def write_and_print(folder: Path, out: Path | None) -> None:
    """Write the page of a run, and print where it is and how its weights are stored.

    Args:
        folder: The run folder, or `latest`.
        out: The file to write; None for draw.html in the run folder.

    Raises:
        ConfigError: The folder holds no trained run, or the page can't run its model.
        OSError: The file can't be written.
    """
    run = trained_run.load(folder)
    network.layers(run.model)  # refuses what the page can't run, before the test set is read
    weights = choose_weights(run)
    content = to_html(run, weights).encode()
    path = out or run.folder / NAME
    files.write(path, content)
    print(f"weights: {weights.type}, {weights.reason}")
    print(f"{quoting.shown(str(path))}: {len(content) / 1e6:.1f} MB; open it in a browser")


def choose_weights(run: TrainedRun) -> Weights:
    """Return float16 if it changes no class that the network gives to an image of the test set, else float32."""
    try:
        with fetch.no_download():
            images = run.test_images()
    except (ValueError, OSError) as error:
        if not errors.is_mendable(error):
            raise
        reason = str(error).partition("\n")[0]
        return Weights("float32", f"because the test set is not here to try float16 on ({reason})")
    rounded = copy.deepcopy(run.classifier)
    network.round_weights(rounded.model)
    before, after = (
        TrainedRun(run.folder, run.facts, classifier).probabilities(images).argmax(dim=1)
        for classifier in (run.classifier, rounded)
    )
    changed, count = int((before != after).sum()), f"{len(before):,} test images"
    if changed:
        return Weights("float32", f"because float16 changes the class of {changed:,} of {count}")
    return Weights("float16", f"which leaves the class of all {count} as it is")


def to_html(run: TrainedRun, weights: Weights) -> str:
    """Return the page of a run.

    Args:
        run: The trained run.
        weights: How the page holds its weights.

    Raises:
        ConfigError: The page can't run the model.
    """
    summary = run.summary
    height, width = run.facts["image_shape"][1:]
    scale = LONGEST_SIDE / max(height, width)
    surface = _surface(run.facts)
    ink, paper = ("#ffffff", "#000000") if surface == "dark" else ("#000000", "#ffffff")
    return (
        template.environment(FOLDER)
        .get_template("draw.html.j2")
        .render(
            title=_title(run, summary),
            thing=_thing(run.classes),
            claim=_claim(run, summary),
            inside=_inside(run),
            facts=_facts(run, summary, weights),
            classes=run.classes,
            most=MOST_BARS,
            surface=surface,
            width=round(width * scale),
            height=round(height * scale),
            pen=PEN[surface],
            ink=ink,
            model=_model(run, weights.type) | {"paper": paper, "most_bars": MOST_BARS},
            **template.inside([template.BASE, FOLDER / "draw.css"], SCRIPTS),
        )
    )


def _model(run: TrainedRun, weights: str) -> dict[str, Any]:
    """Return what the page's scripts know of the run."""
    layers = network.layers(run.model)
    numbers = [tensor.detach().flatten() for layer in layers for tensor in layer.tensors]
    content = torch.cat(numbers or [torch.empty(0)]).numpy().astype(np.dtype(weights).newbyteorder("<"))
    described = [
        {"type": layer.kind.__name__, "settings": layer.settings, "sizes": [tensor.numel() for tensor in layer.tensors]}
        for layer in layers
    ]
    facts = {name: run.facts[name] for name in ("classes", "image_shape", "crop", "mean", "std", "preparation")}
    return facts | {
        "placing": _placing(run.facts),
        "layers": described,
        "probabilities": network.probabilities(run.classifier.loss),
        "type": weights,
        "weights": template.to_base64(content.tobytes()),
    }


def _placing(facts: InferenceFacts) -> Placed | None:
    """Return where the page puts a figure; None where the whole sheet is the image."""
    placing = PLACINGS.get(facts["preparation"])
    return placing and {"box": round(placing.side * min(facts["image_shape"][1:])), "by_mass": placing.by_mass}


def _surface(facts: InferenceFacts) -> str:
    """Return what the user draws on: figure, for ink alone on nothing; else dark or light, as the images are."""
    if facts["preparation"] in PLACINGS:
        return "figure"
    return "dark" if sum(facts["mean"]) / len(facts["mean"]) < 128 else "light"


def _thing(classes: list[str]) -> str:
    """Return what is to be drawn."""
    if all(name.isdecimal() and len(name) == 1 for name in classes):
        return "a digit"
    if all(len(name) == 1 for name in classes):
        return "a letter" if all(name.isalpha() for name in classes) else "a letter or a digit"
    return "a picture"


def _name(summary: Summary) -> str:
    return summary["data"]["name"] if summary["data"] else "own data"


def _accuracy(summary: Summary) -> str:
    accuracy = summary["test_accuracy"]
    return "not tested" if accuracy is None else f"{accuracy:.2%} test accuracy".replace("%", "\u00a0%")


def _title(run: TrainedRun, summary: Summary) -> str:
    return f"{_name(summary)}, {_accuracy(summary)}: {_place(run.folder)}"


def _place(folder: Path) -> str:
    """Return the name of a run folder, from the current folder if it lies below."""
    whole, here = folder.absolute(), Path.cwd()
    return quoting.shown(str(whole.relative_to(here) if whole.is_relative_to(here) else whole))


def _claim(run: TrainedRun, summary: Summary) -> str:
    parameters = sum(tensor.numel() for tensor in run.model.parameters())
    return (
        f"A network of {parameters:,} parameters answers while you draw. It was trained on {_name(summary)}: "
        f"{_accuracy(summary)}. It knows {_known(run.classes)} only: whatever you draw gets one of these names."
    )


def _known(classes: list[str]) -> str:
    if classes == list(string.digits):
        return "the digits 0 to 9"
    names = f"{', '.join(classes[:-1])} and {classes[-1]}"
    return names if len(names) <= LONGEST_LIST else f"its {len(classes)} classes"


def _inside(run: TrainedRun) -> str:
    kinds = {layer.kind for layer in network.layers(run.model)}
    if not kinds & network.ACTIVATIONS.keys():
        return "There are no hidden units: each probability comes straight from the pixels."
    maps = " Each small picture is a feature map." if nn.Conv2d in kinds else ""
    below = "" if kinds & network.ACTIVATIONS.keys() <= network.NEVER_NEGATIVE else " Orange is below zero."
    return f"Each square is a hidden unit: the stronger it is, the bluer.{below}{maps}"


def _facts(run: TrainedRun, summary: Summary, weights: Weights) -> list[tuple[str, str]]:
    """Return the page's last lines."""
    height, width = run.facts["image_shape"][1:]
    size = f"{width} \u00d7 {height} pixels"
    prepared = f"the whole sheet is scaled to {size}"
    if placing := _placing(run.facts):
        box, middle = placing["box"], "center of mass" if placing["by_mass"] else "box"
        prepared = f"the figure is scaled to fit {box} \u00d7 {box} of {size}, its {middle} in the middle"
    return [
        ("Run", _place(run.folder)),
        ("Data", f"{_name(summary)}, {_accuracy(summary)}"),
        ("Preparation", prepared),
        ("Weights", f"{weights.type}, {weights.reason}"),
    ]
