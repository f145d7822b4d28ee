"""The page to draw on: what is in it, and in a real browser what it answers."""

import base64
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.pages import Page
from helpers.sweeps import HOSTILE
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from mnist_exp import build, cli
from mnist_exp.data import sources
from mnist_exp.report import template
from mnist_exp.store.run_folder import InferenceFacts
from mnist_exp.system.errors import ConfigError
from mnist_exp.training.facts import INFERENCE_GROUPS
from mnist_exp.use import draw, network, trained_run
from mnist_exp.use.draw import Weights
from mnist_exp.use.trained_run import Classifier, TrainedRun

FLOAT32, FLOAT16 = Weights("float32", "for a test"), Weights("float16", "for a test")
ACTIVATIONS = sorted(path.stem for path in (ROOT / "conf" / "activation").glob("*.yaml"))
Composed = Callable[..., DictConfig]
Run = Callable[..., Outcome]


def untrained(composed: Composed, *words: str, **changed: Any) -> TrainedRun:
    """A run that config words describe, with random weights."""
    cfg = composed(*words)
    facts: InferenceFacts = {
        "classes": list("0123456789"),
        "image_shape": [1, 28, 28],
        "crop": [28, 28],
        "mean": [33.3],
        "std": [78.6],
        "preparation": "mnist",
        "config": {group: OmegaConf.to_container(cfg[group]) for group in INFERENCE_GROUPS},
    } | changed  # type: ignore[assignment]
    torch.manual_seed(0)
    model, loss = build.from_inference_facts(facts)
    torch.manual_seed(1)  # not with the numbers that the weights were drawn with: the large ones would grow most
    shake(model)
    return TrainedRun(Path("outputs/none"), facts, Classifier(model, loss, facts).eval())


def shake(model: nn.Module) -> None:
    """Make the weights larger, so that layers saturate, and unequal, such as the slopes of a PReLU."""
    for tensor in model.parameters():
        tensor.data *= 1 + torch.rand_like(tensor)


def model_of(html: str) -> dict[str, Any]:
    """What the page's scripts know of the run."""
    match = re.search(r'<script type="application/json" id="model">(.*?)</script>', html)
    assert match
    model: dict[str, Any] = json.loads(match[1])
    return model


def test_a_network_is_its_layers_and_their_weights(composed: Composed) -> None:
    run = untrained(composed, "model=lenet", "activation=prelu")
    layers = network.layers(run.model)
    assert [layer.kind.__name__ for layer in layers] == [
        *["Conv2d", "PReLU", "MaxPool2d"] * 2,
        "Flatten",
        *["Linear", "PReLU", "Dropout"] * 2,
        "Linear",
    ]
    assert layers[0].settings["padding"] == (2, 2)
    assert [tensor.shape for tensor in layers[0].tensors] == [(6, 1, 5, 5), (6,)]
    assert sum(tensor.numel() for layer in layers for tensor in layer.tensors) == 61_706 + 4


@pytest.mark.parametrize("type_", ["float32", "float16"])
def test_the_page_holds_every_weight(composed: Composed, type_: str) -> None:
    run = untrained(composed, "model.hidden_layers=[5]")
    model = model_of(draw.to_html(run, Weights(type_, "")))
    numbers = np.frombuffer(base64.b64decode(model["weights"]), f"<f{int(type_[-2:]) // 8}")
    weights = torch.cat([tensor.flatten() for tensor in run.model.parameters()]).detach()
    torch.testing.assert_close(torch.from_numpy(numbers.astype("f4")), weights.to(getattr(torch, type_)).float())
    assert sum(size for layer in model["layers"] for size in layer["sizes"]) == len(numbers)


def test_the_script_has_every_layer_that_python_lets_through() -> None:
    script = (draw.FOLDER / "network.js").read_text()
    for table, kinds in {"LAYERS": network.LAYERS, "ACTIVATIONS": network.ACTIVATIONS}.items():
        match = re.search(rf"const {table} = {{\n(.*?)\n}};", script, re.DOTALL)
        assert match
        assert set(re.findall(r"^  (\w+):", match[1], re.MULTILINE)) == {kind.__name__ for kind in kinds}
    assert len(network.ACTIVATIONS) == len(ACTIVATIONS) == 9
    for way in network.LOSSES.values():
        assert f"\n  {way}(logits)" in script


class Own(nn.Module):
    """A layer that the page can't know."""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Own(), "model: the page can't run the layer Own; it knows Sequential, Flatten, "),
        (nn.Sequential(nn.Flatten(), nn.Sequential(Own())), "model: the page can't run the layer Own; "),
        (nn.Conv2d(2, 2, 3, groups=2), "model: the page can't run Conv2d with groups=2, only 1"),
        (nn.Conv2d(1, 1, 3, padding="same"), "model: the page can't run Conv2d(1, 1, kernel_size=(3, 3), "),
        (nn.MaxPool2d(2, ceil_mode=True), "model: the page can't run MaxPool2d with ceil_mode=True, only False"),
    ],
)
def test_a_layer_that_the_page_does_not_know_is_named(layer: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        network.layers(layer)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_loss_that_the_page_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="from Own; it knows CrossEntropy, OneHotMSE"):
        network.probabilities(Own())


def test_the_page_is_whole_and_needs_no_network(composed: Composed) -> None:
    text = draw.to_html(untrained(composed), FLOAT16)
    tags = Page(text)
    assert not re.search(r"\{\{|\{%|\{#", text)
    assert not re.findall(r"https?:|//\w+\.\w|@import|url\(|\beval\b|new Function", text)
    assert not tags.having("link")
    assert all("src" not in attributes for _, attributes in tags.tags)
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    [policy] = tags.having("meta", **{"http-equiv": "Content-Security-Policy"})
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    assert policy["content"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src '{template.digest(script)}'"
    )
    assert "<title>own data, not tested: outputs/none</title>" in text
    assert "<h1>Draw a digit</h1>" in text
    assert "A network of 337,674 parameters" in text
    assert len(text) < 1_200_000


def test_names_are_only_ever_text(composed: Composed) -> None:
    classes = [HOSTILE, *"abcdefgh", "'\u2028"]
    run = untrained(composed, "model.hidden_layers=[2]", classes=classes)
    run.folder = Path(HOSTILE.replace("/", "-"))
    text = draw.to_html(run, FLOAT16)
    assert not [attributes for tag, attributes in Page(text).tags if tag == "img" or "onerror" in attributes]
    assert model_of(text)["classes"] == classes


@pytest.mark.parametrize(
    ("classes", "thing"),
    [
        ("0123456789", "a digit"),
        ("abc", "a letter"),
        ("0aB", "a letter or a digit"),
        (["Trouser", "Bag"], "a picture"),
        (["10", "11"], "a picture"),
    ],
)
def test_the_page_says_what_to_draw(composed: Composed, classes: Any, thing: str) -> None:
    run = untrained(composed, "model.hidden_layers=[]", classes=list(classes))
    assert f"<h1>Draw {thing}</h1>" in draw.to_html(run, FLOAT16)


def test_a_figure_fills_the_box_that_the_data_sets_figures_fill(composed: Composed) -> None:
    placing = model_of(draw.to_html(untrained(composed, "model=linear"), FLOAT16))["placing"]
    assert placing == {"box": 20, "by_mass": True}
    small = untrained(composed, "model=linear", image_shape=[1, 8, 8], crop=[8, 8], preparation="frame")
    assert model_of(draw.to_html(small, FLOAT16))["placing"] == {"box": 8, "by_mass": False}
    images = sources.digits("").train.images[:, 0]
    sides = torch.maximum((images.amax(2) > 127).sum(1), (images.amax(1) > 127).sum(1))
    assert (sides == 8).float().mean() > 0.95


def test_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(*TINY, "hydra.run.dir=outputs/my run")
    *_, last = outcome.out.splitlines()
    assert last == f"to try it on your own drawing: python -m mnist_exp draw '{outcome.folders[0]}'"
    cli.run("mnist-exp", shlex.split(last.partition("mnist_exp ")[2]))
    html = Path("outputs/my run/draw.html").read_text()
    weights, where = capsys.readouterr().out.splitlines()
    assert weights == "weights: float16, which leaves the class of all 297 test images as it is"
    assert where == f"{outcome.folders[0]}/draw.html: 0.0 MB; open it in a browser"
    assert model_of(html)["type"] == "float16"
    accuracy = json.loads(Path("outputs/my run/summary.json").read_text())["test_accuracy"]
    assert f"<title>digits, {100 * accuracy:.2f}\u00a0% test accuracy: outputs/my run</title>" in html

    cli.run("mnist-exp", ["draw", "outputs/my run", "--out", "page.html"])
    assert Path("page.html").read_text() == html
    for words, message in (
        (["nowhere"], "nowhere: no such folder"),
        (["outputs/my run", "--out", "nowhere/page.html"], "nowhere/page.html"),
        ([], "the following arguments are required: RUN; mnist-exp draw --help says more"),
    ):
        with pytest.raises((ConfigError, OSError), match=re.escape(message)):
            cli.run("mnist-exp", ["draw", *words])


@pytest.mark.slow
def test_a_job_of_a_sweep_suggests_no_drawing(run: Run) -> None:
    outcome = run("-m", *TINY, "epochs=1", "seed=0,1")
    assert outcome.code == 0
    assert "drawing" not in outcome.out


def test_weights_are_float32_where_float16_would_change_an_answer(run: Run) -> None:
    [folder] = run(*TINY, "epochs=1").folders
    trained = trained_run.load(folder)
    *_, weight, bias = trained.model.parameters()
    with torch.no_grad():  # the first two classes are equal but for a bit that float16 doesn't have
        weight.zero_(), bias.fill_(-1)
        bias[:2] = torch.tensor([1.0001, 1.0])
    assert draw.choose_weights(trained) == ("float16", "which leaves the class of all 297 test images as it is")
    with torch.no_grad():
        bias[:2] = torch.tensor([1.0, 1.0001])
    assert draw.choose_weights(trained) == ("float32", "because float16 changes the class of 297 of 297 test images")


def test_weights_are_float32_where_the_test_set_is_not_here(run: Run, tmp_path: Path) -> None:
    [folder] = run(*TINY, "epochs=1").folders
    trained = trained_run.load(folder)
    trained.config.data = {
        "_target_": "mnist_exp.data.sources.mnist",
        "root": str(tmp_path / "none"),
        "validation": 5000,
        "batch_size": 64,
        "seed": 0,
    }
    weights = draw.choose_weights(trained)
    assert weights.type == "float32"
    assert weights.reason.startswith("because the test set is not here to try float16 on (")
    assert f"{tmp_path}/none/MNIST/raw has no verified train-images-idx3-ubyte" in weights.reason
    assert not (tmp_path / "none").exists()  # nothing was downloaded


# In a browser.


class Browser:
    """A page in Chromium, and all that it complained of or asked for."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.said.append(request.url))

    def open(self, html: str, folder: Path) -> None:
        path = folder / "draw.html"
        path.write_text(html, encoding="utf-8")
        self.page.goto(path.as_uri())
        assert self.said == [path.as_uri()]
        self.said.clear()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.page.evaluate(script, *arguments)

    def draw(self, *points: tuple[float, float]) -> None:
        """Draw a stroke with the mouse; points are fractions of the sheet."""
        frame = self.page.locator("#sheet").bounding_box()
        places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up()

    @property
    def answer(self) -> str:
        """What a screen reader says."""
        self.page.wait_for_timeout(500)
        return str(self.page.locator("#status").text_content())


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    """A page in a browser that works offline; at the end it has complained of nothing and asked for nothing."""
    context = chromium.new_context(offline=True, has_touch=True, viewport={"width": 1200, "height": 900})
    opened = Browser(context)
    yield opened
    assert opened.said == []
    context.close()


def answers(browser: Browser, run: TrainedRun, images: Tensor, weights: Weights = FLOAT32) -> Tensor:
    """What the page's network answers to images, in a page that belongs to any run."""
    model = model_of(draw.to_html(run, weights))
    script = "([model, images]) => { const run = build(model); return images.map(image => run(image).probabilities); }"
    return torch.tensor(browser.run(script, [model, images.flatten(1).tolist()]), dtype=torch.float32)


def own(composed: Composed, model: nn.Module, **changed: Any) -> TrainedRun:
    """A run with this model."""
    run = untrained(composed, **changed)
    shake(model)
    run.classifier.model = model.eval()
    return run


@pytest.mark.slow
def test_every_network_answers_as_in_python(browser: Browser, composed: Composed, tmp_path: Path) -> None:
    browser.open(draw.to_html(untrained(composed), FLOAT32), tmp_path)
    colour = {"image_shape": [3, 20, 24], "crop": [20, 24], "mean": [90.0, 100.0, 110.0], "std": [60.0, 61.0, 62.0]}
    runs = {
        f"{model} {activation} {loss}": untrained(composed, model, f"activation={activation}", f"loss={loss}")
        for model in ("model.hidden_layers=[40,30]", "model=lenet")
        for activation in ACTIVATIONS
        for loss in ("cross_entropy", "mse")
    }
    runs |= {
        "linear": untrained(composed, "model=linear"),
        "max norm": untrained(composed, "model.hidden_layers=[40]", "model.max_norm=0.88"),
        "dropout": untrained(composed, "model.dropout=0.5", "model.input_dropout=0.2", "model.hidden_layers=[40]"),
        "cropped": untrained(composed, "model=linear", crop=[25, 23]),
        "padded": untrained(composed, "model=lenet", crop=[31, 33]),
        "colour": untrained(composed, "model=lenet", **colour),
        "47 classes": untrained(composed, "model=linear", classes=list(map(str, range(47)))),
        "own layers": own(
            composed,
            nn.Sequential(
                nn.Conv2d(1, 4, (5, 3), stride=(2, 1), padding=(1, 2), bias=False),
                nn.Sequential(nn.PReLU(4), nn.MaxPool2d(3, stride=2, padding=1), nn.Identity()),
                nn.GELU("tanh"),
                nn.Flatten(),
                nn.Linear(4 * 7 * 15, 10, bias=False),
            ),
        ),
    }
    assert len(runs) == 44
    for name, run in runs.items():
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (5, *run.facts["image_shape"]), generator=generator, dtype=torch.uint8)
        found = answers(browser, run, images)  # before torch runs the model, which limits norms in place
        expected = run.probabilities(images)
        assert (found - expected).abs().max() < 1e-5, name
        assert expected.max() < 1 or "mse" in name  # nothing is compared that can't differ
        torch.testing.assert_close(answers(browser, run, images, FLOAT16), expected, rtol=0, atol=5e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on the real MNIST."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("draw") / "run"
    words = [f"data.root={ROOT / 'data'}", "epochs=1", "plots=false", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, ROOT / "train.py", *words], cwd=folder.parent, check=True, capture_output=True)
    return trained_run.load(folder)


def reference(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """LeCun et al. 1998 with Pillow: the figure in 20 x 20, its center of mass in the middle of 28 x 28."""
    mask = Image.fromarray(ink).point(lambda value: 255 * (value > ink.max() / 2))
    figure = Image.fromarray(ink).crop(mask.getbbox())
    scale = 20 / max(figure.size)
    size = [max(1, round(side * scale)) for side in figure.size]
    small = np.asarray(figure.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    y, x = (np.indices(small.shape) * small).sum((1, 2)) / small.sum()
    top, left = (min(max(round(14 - at), 0), 28 - side) for at, side in zip((y, x), small.shape, strict=True))
    image = np.zeros((28, 28), np.uint8)
    image[top : top + small.shape[0], left : left + small.shape[1]] = np.rint(small * (255 / small.max()))
    return image


@pytest.mark.slow
def test_painted_digits_are_read_as_in_python(browser: Browser, trained: TrainedRun, tmp_path: Path) -> None:
    test = sources.mnist(str(ROOT / "data")).test
    images, labels = test.images[:200], test.labels[:200]
    weights = draw.choose_weights(trained)
    assert weights == FLOAT16._replace(reason=weights.reason)
    html = draw.to_html(trained, weights)
    assert len(html) < 1_200_000
    browser.open(html, tmp_path)

    expected = trained.probabilities(images)
    found = torch.tensor(browser.run("images => images.map(network.probabilities)", images.flatten(1).tolist()))
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(answers(browser, trained, images), expected, rtol=0, atol=1e-5)

    paint = """image => {
        network.clear();
        network.paint(image);
        const answer = [...document.querySelectorAll("#bars li")].map(row => row.textContent);
        return [network.seen(), network.probabilities(network.seen()), sheet.toDataURL(), answer];
    }"""
    painted = [browser.run(paint, image) for image in images.flatten(1).tolist()]
    seen = torch.tensor([pixels for pixels, *_ in painted], dtype=torch.uint8).view(-1, 1, 28, 28)
    found, expected = torch.tensor([answer for _, answer, *_ in painted]), trained.probabilities(seen)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    right, before = ((found.argmax(1) == labels).sum(), (trained.probabilities(images).argmax(1) == labels).sum())
    assert right >= before - 4
    shown = [f"{100 * value:.1f}" for value in found[0].tolist()]
    assert [re.sub(r"[^\d.]", "", row[1:]).replace("99.9", "100.0") for row in painted[0][3]] == [
        text.replace("99.9", "100.0") for text in shown
    ]

    ink = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))))[..., 3]
        for _, _, picture, _ in painted
    ]
    ours = torch.from_numpy(np.stack([reference(picture) for picture in ink]))[:, None]
    assert (ours.float() - seen.float()).abs().mean() < 0.5
    assert (trained.probabilities(ours).argmax(1) == found.argmax(1)).sum() >= 198


@pytest.mark.slow
def test_drawing(browser: Browser, trained: TrainedRun, tmp_path: Path) -> None:
    browser.open(draw.to_html(trained, FLOAT16), tmp_path)
    page = browser.page
    undo, clear = page.locator("#undo"), page.locator("#clear")
    assert page.locator("#class").text_content() == "?"
    assert undo.is_disabled()
    assert clear.is_disabled()

    browser.draw((0.5, 0.15), (0.49, 0.5), (0.48, 0.85))
    assert browser.answer.startswith("1, ")
    assert page.locator("#class").text_content() == "1"
    assert page.locator("#bars .first .name").text_content() == "1"
    browser.draw((0.3, 0.16), (0.5, 0.15))
    browser.draw((0.2, 0.85), (0.8, 0.85))
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert browser.answer.startswith("1, ")
    before = browser.run("network.seen()")
    page.keyboard.press("Escape")
    assert browser.answer == "Nothing is drawn."
    assert max(browser.run("network.seen()")) == 0
    undo.click()
    browser.page.wait_for_timeout(200)
    assert browser.run("network.seen()") == before

    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    assert browser.run("network.seen()") == before  # ink is light now, and ink it stays
    assert browser.run("Math.min(...context.getImageData(280, 280, 1, 1).data.slice(0, 3))") > 200

    clear.click()
    frame = page.locator("#sheet").bounding_box()
    touch = page.context.new_cdp_session(page)
    x, top, height = frame["x"] + frame["width"] / 2, frame["y"], frame["height"]
    for kind, share in (("Start", 0.15), ("Move", 0.4), ("Move", 0.6), ("Move", 0.85)):
        points = [{"x": x, "y": top + share * height}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert browser.answer.startswith("1, ")
    assert page.evaluate("scrollY") == 0


@pytest.mark.slow
def test_drawing_with_the_keyboard(browser: Browser, trained: TrainedRun, tmp_path: Path) -> None:
    browser.open(draw.to_html(trained, FLOAT16), tmp_path)
    keyboard = browser.page.keyboard
    keyboard.press("Tab")
    assert browser.run("document.activeElement.id") == "sheet"
    for key in [*["ArrowUp"] * 14, " ", *["ArrowDown"] * 28, " "]:
        keyboard.press(key)
    assert browser.answer.startswith("1, ")
    order = []
    for _ in range(4):
        keyboard.press("Tab")
        order.append(browser.run("document.activeElement.id"))
    assert order == ["undo", "clear", "width", "open"]
    names = browser.run("[...document.querySelectorAll('canvas')].map(canvas => canvas.getAttribute('aria-label'))")
    assert names == ["Drawing area", "What the network sees: 28 × 28 pixels", "256 units, ReLU", "512 units, ReLU"]  # noqa: RUF001


@pytest.mark.slow
def test_an_image_is_opened(browser: Browser, trained: TrainedRun, tmp_path: Path) -> None:
    browser.open(draw.to_html(trained, FLOAT16), tmp_path)
    test = sources.mnist(str(ROOT / "data")).test
    digit = Image.fromarray(test.images[0, 0].numpy()).resize((300, 300), Image.Resampling.BICUBIC)
    photo = Image.new("L", (900, 500), 215)
    photo.paste(35, (250, 90), digit)  # dark ink on grey paper
    photo.save(tmp_path / "photo.jpg")
    browser.page.set_input_files("#file", tmp_path / "photo.jpg")
    assert browser.answer.startswith(f"{test.labels[0]}, ")
    assert not browser.page.locator("#problem").is_visible()
    (tmp_path / "words.jpg").write_text("no image")
    browser.page.set_input_files("#file", tmp_path / "words.jpg")
    browser.page.wait_for_timeout(300)
    assert browser.page.locator("#problem").text_content().startswith("words.jpg: this browser can't read it as an")


@pytest.mark.slow
def test_a_failure_is_said_on_the_page(browser: Browser, composed: Composed, tmp_path: Path) -> None:
    browser.open(draw.to_html(untrained(composed), FLOAT16), tmp_path)
    browser.run("setTimeout(() => { throw new Error('made for a test') })")
    browser.page.wait_for_timeout(200)
    assert browser.page.locator("#problem").text_content() == "This page failed: Uncaught Error: made for a test"
    assert browser.said == ["made for a test"]
    browser.said.clear()


@pytest.mark.slow
def test_hostile_names_do_nothing_in_a_browser(browser: Browser, composed: Composed, tmp_path: Path) -> None:
    run = untrained(composed, classes=[HOSTILE, *"abcdefghi"])
    browser.open(draw.to_html(run, FLOAT16), tmp_path)
    assert browser.page.title() == "own data, not tested: outputs/none"
    assert browser.page.locator("#bars .name").first.text_content() == HOSTILE
    assert browser.page.locator("img").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("dark", [True, False])
def test_colours_are_drawn_where_the_images_have_them(
    browser: Browser, composed: Composed, tmp_path: Path, dark: bool
) -> None:
    """The sheet is scaled as a whole, as Pillow does it."""
    mean = [60.0, 70.0, 80.0] if dark else [200.0, 210.0, 220.0]
    shape = {"image_shape": [3, 20, 30], "crop": [20, 30], "mean": mean, "std": [60.0, 61.0, 62.0]}
    classes = ["aeroplane", "a name that is longer than the room there is", *map(str, range(40))]
    run = untrained(composed, "model=lenet", preparation="pad", classes=classes, **shape)
    browser.open(draw.to_html(run, FLOAT16), tmp_path)
    page = browser.page
    seen = torch.tensor(browser.run("network.seen()"))
    assert seen.unique().tolist() == [0 if dark else 255]
    assert browser.run("getComputedStyle(hint).color") == ("rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)")
    page.locator("#colour").fill("#ff8000")
    browser.draw((0.2, 0.2), (0.8, 0.8))
    picture = browser.run("() => { show(); return [network.seen(), sheet.toDataURL()]; }")
    sheet = Image.open(io.BytesIO(base64.b64decode(picture[1].partition(",")[2]))).convert("RGB")
    assert sheet.size == (560, 373)
    expected = np.asarray(sheet.resize((30, 20), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    found = np.array(picture[0]).reshape(3, 20, 30)
    assert np.abs(found - expected).max() <= 1
    assert found[:, 10, 15] == pytest.approx([255, 128, 0], abs=8)  # Lanczos overshoots
    images = torch.from_numpy(found.astype(np.uint8))[None]
    torch.testing.assert_close(
        torch.tensor(browser.run("network.probabilities(network.seen())")),
        run.probabilities(images)[0],
        rtol=0,
        atol=1e-3,
    )
    assert page.locator("#bars li").count() == 12
    page.set_viewport_size({"width": 360, "height": 740})
    assert browser.run("document.documentElement.scrollWidth") == 360
