"""The page is whole, needs no network, shows text only as text, and its script sorts, filters and shows runs."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.arms import arm, results
from helpers.pages import Page
from helpers.sweeps import HOSTILE, KINDS, edit_summary, spoil, sweep
from jinja2 import UndefinedError

from mnist_exp.report import page, template
from mnist_exp.report.page import to_html, with_code
from mnist_exp.report.results import Results, read

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)  # one pixel
PICTURES = {"leaderboard.png": PNG}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with jobs of every status."""
    return sweep(tmp_path_factory.mktemp("page") / "failed", **KINDS["failed"])


@pytest.fixture(scope="module")
def failed(folder: Path) -> Results:
    return read([folder])


@pytest.fixture(scope="module")
def text(failed: Results, folder: Path) -> str:
    """The page of that sweep."""
    return to_html(failed, folder, PICTURES, PICTURES)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def runs_of(text: str) -> list[dict[str, Any]]:
    """What the script shows of each run, by number."""
    runs = data_of(text)["runs"]
    return [runs[place] for place in sorted(runs, key=int)]


def test_page_is_whole_and_needs_no_network(text: str) -> None:
    tags = Page(text)
    assert not re.search(r"\{\{|\{%|\{#", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not tags.having("link")
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [str(link["href"])[1:] for link in tags.having("a") if str(link.get("href")).startswith("#")]
    assert anchors == ["answer", "leaderboard", "figures", "all", "failures", "provenance"]
    assert set(anchors) <= set(ids)
    assert len(runs_of(text)) == 20
    assert (data_of(text)["more"], data_of(text)["tables"]) == ({}, {})


def test_page_has_every_part(text: str) -> None:
    counts = "13 of 20 runs completed, 4 failed, 2 interrupted, 1 pending"
    assert f'<div class="note"><p>Not finished: {counts}.' in text
    assert '<p class="headline"><code>sgd relu</code> reaches 97.03\u00a0% on validation' in text
    assert "<li>Of the 5 runs of <code>adam relu</code>, 1 diverged;" in text
    assert "has no rank" in text
    assert text.count('<span class="mark">diverged</span>') == 4
    assert '<option value="failed">failed (4)</option>' in text
    assert '<td class="left">python' in text  # the command that runs a failed job again
    assert "<dt>data</dt><dd>MNIST, SHA-256 abc</dd>" in text


def test_page_omits_parts_without_content(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"])
    text = to_html(read([folder]), folder, {}, {})
    assert Page(text).having("section", id="leaderboard")
    for part in ("figures", "search", "failures"):
        assert part not in re.findall(r'(?:id="|href="#)([\w-]+)"', text)
    assert "tags</button>" not in text
    Page(to_html(results([]), folder, {}, {}))


def test_failed_sweep_has_a_page(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"], spoiled=dict.fromkeys(range(4), "failed"))
    text = to_html(read([folder]), folder, {}, {})
    Page(text)
    assert text.count('<td class="left">failed</td>') == 4 + 4  # in the leaderboard, and among the failures


def test_warnings_and_tags_are_shown(failed: Results, folder: Path, tmp_path: Path) -> None:
    other = sweep(tmp_path / "s", **KINDS["one_seed"])
    edit_summary(other / "1", {"tags": ["base line", "<b>"], "stopped": "patience"})
    found = read([other])._replace(warnings=["runs use different versions of `torch`"])
    text = to_html(found, tmp_path, {}, {})
    assert '<div class="warning"><p>runs use different versions of <code>torch</code></p></div>' in text
    assert "tags</button>" in text
    assert "&#39;base line&#39; &#39;&lt;b&gt;&#39;" in text
    assert "stopped early (patience), after epoch 5" in runs_of(text)[1]["results"]


def test_learning_rates_are_shown(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"], "optimizer.lr": [0.01]}, [0])
    sweep(folder / "lr_search", {"optimizer": ["adam"], "optimizer.lr": [0.01, 0.1]}, [7])
    text = to_html(read([folder]), folder, {}, {})
    assert Page(text).having("section", id="search")
    assert '<td class="left">lr=0.01</td><td>1</td>' in text
    assert "A search tried 2 settings of optimizer.lr, each with 1 seed" in text


def test_figures_are_shown_in_both_themes(failed: Results, folder: Path) -> None:
    tags = Page(to_html(failed, folder, PICTURES, {"leaderboard.png": PNG + b"dark"}))
    [light], [dark] = tags.having("img", **{"class": "light"}), tags.having("img", **{"class": "dark"})
    sources = [base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in (light, dark)]
    assert sources == [PNG, PNG + b"dark"]
    assert light["alt"] == dark["alt"] != ""


def test_runs_are_linked_by_relative_paths(failed: Results, folder: Path, tmp_path: Path) -> None:
    for out in (folder, tmp_path):
        tags = Page(to_html(failed, out, {}, {}))
        links = [str(link["href"]) for link in tags.having("a") if not str(link.get("href", "#")).startswith("#")]
        assert len(links) == 18
        assert all((out / link / "metrics.csv").is_file() for link in links)


def test_only_the_pages_own_script_may_run(text: str) -> None:
    [policy] = Page(text).having("meta", **{"http-equiv": "Content-Security-Policy"})
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    assert template.digest(script) in str(policy["content"])
    assert "default-src 'none'" in str(policy["content"])
    assert script == (page.FOLDER / "page.js").read_text(encoding="utf-8")


def test_configs_and_errors_are_only_ever_text(tmp_path: Path) -> None:
    folder = spoil(sweep(tmp_path / "s", {"name": [HOSTILE, "b"]}, [0], spoiled={1: "failed"}))
    text = to_html(read([folder]), folder, {}, {})
    tags = Page(text)
    assert len(tags.having("script")) == 2
    assert not [tag for tag, attributes in tags.tags if any(key.startswith("on") for key in attributes)]
    assert runs_of(text)[0]["overrides"] == f"name={HOSTILE} seed=0"
    assert runs_of(text)[1]["error"] == HOSTILE
    assert html.escape(HOSTILE).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def test_values_that_are_no_number_leave_readable_data(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", **KINDS["one_seed"], spoiled={0: "failed"})
    with open(folder / "0" / "metrics.csv", "a") as file:
        file.write("3,nan,0.1,inf,0.1,0.001,1.5\n")
    row = runs_of(to_html(read([folder]), folder, {}, {}))[0]
    assert row["epochs"] == [1, 2, 3]
    assert row["train_loss"][2] is row["val_loss"][2] is None


def test_text_in_backticks_becomes_code() -> None:
    assert with_code("`a` <b> 5 % of `c<d`") == "<code>a</code> &lt;b&gt; 5\u00a0% of <code>c&lt;d</code>"
    assert with_code("a`b") == "a`b"
    assert with_code("`a` b`c") == "<code>a</code> b`c"
    assert with_code("1 pp") == "1\u00a0pp"


def test_template_fails_on_a_name_that_is_not_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("page.css", "page.js"):
        shutil.copy(page.FOLDER / name, tmp_path)
    (tmp_path / "page.html.j2").write_text("{{ titel }}")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    with pytest.raises(UndefinedError, match="titel"):
        to_html(results([arm("a")]), tmp_path, {}, {})


# The script, in a browser

browser = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium on the PATH")
TRY = """
const found = {}, seen = () => [...document.querySelectorAll("#runs tbody tr")].filter(row => !row.hidden);
const column = name => [...document.querySelectorAll("#runs th")].findIndex(th => th.textContent === name);
const cells = name => seen().map(row => row.cells[column(name)].textContent);
const head = name => document.querySelectorAll("#runs th")[column(name)];
head("validation (%)").querySelector("button").click();
found.up = cells("validation (%)");
found.sort = head("validation (%)").getAttribute("aria-sort");
head("validation (%)").querySelector("button").click();
found.down = cells("validation (%)");
const named = id => document.getElementById(id);
const type = (id, value, kind) => { named(id).value = value; named(id).dispatchEvent(new Event(kind)); };
type("filter", "ADAM tanh", "input");
found.filtered = seen().length;
type("status", "failed", "change");
found.failed = cells("run");
found.count = document.getElementById("count").textContent;
type("filter", "", "input"), type("status", "", "change");
const row = number => seen().find(row => row.cells[0].textContent === number);
const panel = document.getElementById("run");
row("3").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
found.hovered = panel.querySelector("h3").textContent;
found.results = panel.querySelectorAll("p")[1].textContent;
found.lines = panel.querySelectorAll("path[d*=L]").length;
found.link = panel.querySelector("a").getAttribute("href");
row("4").click();
row("5").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
found.kept = panel.querySelector("h3").textContent;
const link = row("6").cells[0].firstChild;
link.focus();
found.isActive = document.activeElement === link;
link.dispatchEvent(new FocusEvent("focusin", { bubbles: true }));  // a window in the background sends none
found.focused = panel.querySelector("h3").textContent;
const pictures = [...document.querySelectorAll("figure img")];
const shownTheme = () => pictures.filter(image => image.offsetParent).map(image => image.className);
found.before = shownTheme();
document.getElementById("theme").click();
found.after = shownTheme();
found.wide = document.documentElement.scrollWidth > innerWidth;
document.body.innerHTML = "";
document.body.append(Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) }));
"""


def browse(text: str, folder: Path) -> tuple[str, list[str]]:
    """Open a page, and return its document once the scripts have run, and what the console shows."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            *["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"],
            *[f"--user-data-dir={folder / 'profile'}", "--window-size=600,900", path.as_uri()],
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def tried(text: str, script: str, tmp_path: Path) -> Any:
    """What a script finds on a page, which the browser logs nothing about."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text)  # to add a script
    document, console = browse(text.replace("</body>", f"<script>{script}</script></body>"), tmp_path)
    match = re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)
    assert match, console
    assert console == []
    return json.loads(html.unescape(match[1]))


@browser
def test_page_sorts_filters_and_shows_runs(text: str, tmp_path: Path) -> None:
    found = tried(text, TRY, tmp_path)
    values = [float(cell) for cell in found["up"] if cell]
    assert len(values) == 13
    assert values == sorted(values)
    assert [float(cell) for cell in found["down"] if cell] == values[::-1]
    assert found["up"][13:] == found["down"][13:] == [""] * 7
    assert found["sort"] == "ascending"
    assert found["filtered"] == 5
    assert found["failed"] == ["7"]
    assert found["count"] == "1 of 20 runs"
    assert found["hovered"] == "Run 3"
    assert found["results"].startswith("validation 97.")
    assert found["lines"] >= 4
    assert found["link"].endswith("3/")
    assert found["kept"] == "Run 4"
    assert found["isActive"]
    assert found["focused"] == "Run 6"
    assert sorted([found["before"], found["after"]]) == [["dark"], ["light"]]
    assert found["wide"] is False


@browser
def test_hostile_config_does_nothing_in_a_browser(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"name": [HOSTILE, "b"]}, [0])
    document, console = browse(to_html(read([folder]), folder, PICTURES, PICTURES), tmp_path)
    assert "<title>name on MNIST</title>" in document
    assert "onerror=" in document  # as text
    assert '<aside id="run" aria-label="One run"><h3>Run 0</h3>' in document  # the page's own script ran
    assert console == []


# Long tables

TRY_LONG = """
{ const found = {}, box = document.getElementById("runs"), rows = () => [...box.querySelectorAll("tbody tr")];
const type = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
const sort = (scope, name) => [...scope.querySelectorAll("th button")].find(each => each.textContent === name).click();
const texts = column => rows().map(row => row.cells[column].textContent);
sort(box, "run"), sort(box, "run");
found.down = texts(0);
type(document.getElementById("filter"), "sgd tanh");
found.filtered = texts(0);
found.count = document.getElementById("count").textContent;
found.link = rows()[0].cells[0].firstChild.getAttribute("href");
found.status = rows()[0].cells[4].innerHTML;
rows()[0].click();
found.panel = [...document.querySelectorAll("#run p")].map(each => each.textContent);
const arms = document.getElementById("leaderboard");
type(arms.querySelector("input"), "sgd");
found.arms = [arms.querySelectorAll("tbody tr").length, arms.querySelector("output").textContent];
document.body.innerHTML = "";
const text = JSON.stringify(found);
document.body.append(Object.assign(document.createElement("pre"), { id: "found", textContent: text })); }
"""


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page of a sweep of 6 arms and 30 runs, with two rows of a table as HTML and the curves of one run."""
    monkeypatch.setattr(page, "PART", 2)
    monkeypatch.setattr(page, "CURVES", 1)
    folder = sweep(tmp_path / "s", **KINDS["small"], spoiled={29: "failed"})
    return to_html(read([folder]), tmp_path, {}, {})


def test_long_tables_have_their_first_rows_as_html_and_the_others_as_columns(long: str) -> None:
    tags = Page(long)
    assert len(tags.having("tr")) == 3 + 3 + 3 + 2  # of the leaderboard, comparisons, runs and failures; with headers
    data = data_of(long)
    numbers, optimizers, *_ = data["more"]["columns"]
    assert numbers == {"values": [str(number) for number in range(2, 30)]}
    assert optimizers == {"values": ["adam", "sgd"], "rows": [0] * 13 + [1] * 15}
    assert data["more"]["marks"]["values"] == [[], ["diverged"]]
    assert {name: len(columns[-1].get("rows", columns[-1]["values"])) for name, columns in data["tables"].items()} == {
        "leaderboard": 4,
        "comparisons": 2,
    }
    assert len(data["runs"]) == 1
    assert "The page has the curves of 1 run, those" in long
    assert "The first 2 of 30 runs; the others need JavaScript." in long
    assert {str(link["href"]) for link in tags.having("a", href="results.csv")} == {"results.csv"}


def test_failures_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "MAX_FAILURES", 2)
    folder = sweep(tmp_path / "s", **KINDS["one_seed"], spoiled=dict.fromkeys(range(3), "failed"))
    assert 'The first 2 of 3; <a href="results.csv">' in to_html(read([folder]), folder, {}, {})


@browser
def test_long_tables_are_sorted_and_filtered_as_a_whole(long: str, tmp_path: Path) -> None:
    found = tried(long, TRY_LONG, tmp_path)
    assert found["down"] == [str(number) for number in range(29, -1, -1)]
    assert found["filtered"] == ["24", "23", "22", "21", "20"]
    assert found["count"] == "5 of 30 runs"
    assert found["link"] == "s/24/"
    assert found["status"] == '<span class="status completed">completed</span>'
    assert found["panel"] == [
        "optimizer=sgd activation=tanh seed=4",
        "This page has no curves of this run; its folder has.",
        "Open the folder of run 24",
    ]
    assert found["arms"] == [3, "3 of 6 arms"]
