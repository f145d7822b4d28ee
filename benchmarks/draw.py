"""The page of `mnist-exp draw` in Chromium: how long it takes for a drawing, and what it looks like.

    python -m benchmarks.draw outputs/.../draw.html [--rounds 9] [--picture docs/images/draw.png]

page      opening it, until its network is ready
prepare   from the sheet to the image that the network sees
network   the forward pass on that image
whole     both, and the pictures and bars on the page: what a move of the pen costs

Prints the median and the range over the rounds, each of 20 repetitions (the page: of one).
"""

import argparse
import math
from pathlib import Path
from typing import Any

from benchmarks import figures

CHROMIUM = "/usr/bin/chromium"
MEASURE = """() => {
  const pixels = network.seen();
  const steps = {
    prepare: () => prepare(context.getImageData(0, 0, sheet.width, sheet.height), MODEL),
    network: () => network.probabilities(pixels),
    whole: () => show(),
  };
  return Object.fromEntries(Object.entries(steps).map(([name, step]) => {
    const start = performance.now();
    for (let i = 0; i < 20; i++) step();
    return [name, (performance.now() - start) / 20];
  }));
}"""


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse around (x, y); angles in turns, clockwise from the right."""
    angles = [2 * math.pi * (start + (end - start) * i / 24) for i in range(25)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


# A five in three strokes, nearly closed to a six, in fractions of the sheet.
FIVE = [
    [(0.68, 0.16), (0.55, 0.165), (0.40, 0.18)],
    [(0.40, 0.18), (0.375, 0.30), (0.355, 0.44)],
    [(0.355, 0.44), *arc(0.47, 0.62, 0.22, 0.215, -0.28, 0.56)],
]


def draw(page: Any) -> None:
    """Draw a five with the mouse."""
    frame = page.locator("#sheet").bounding_box()
    for stroke in FIVE:
        places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=2)
        page.mouse.up()
    page.wait_for_timeout(500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1080, "height": 1130}, color_scheme="light")
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            page.goto(options.html.absolute().as_uri())
            opened = page.evaluate("performance.now()")
            draw(page)
            rounds.append({"page": opened} | page.evaluate(MEASURE))
        if options.picture:
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=options.picture)
        print(f"{page.title()}, {options.rounds} rounds, Chromium {browser.version}")
        print(f"says: {page.locator('#status').text_content()}")
        for name in rounds[0]:
            figures.show(name, [times[name] for times in rounds], "ms", chromium=browser.version)
        browser.close()


if __name__ == "__main__":
    main()
