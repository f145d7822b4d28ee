import pytest
from helpers.figures import is_on_its_page, overlapping

from mnist_exp.figure_page import text_width
from mnist_exp.report.figures import page
from mnist_exp.report.figures.page import DARK, LIGHT, Theme


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_theme_has_a_colour_and_a_line_for_each_leading_arm(theme: Theme) -> None:
    assert len(set(theme.colors)) == len(theme.lines) == page.LEADING
    assert [line["color"] for line in theme.lines] == list(theme.colors)


def test_a_page_has_its_title_and_its_note_in_lines() -> None:
    figure, _ = page.start_page("A title", ["One sentence.", "Another one. " * 12], 2, DARK)
    assert figure.get_facecolor()[:3] == pytest.approx((0x16 / 255, 0x18 / 255, 0x1D / 255))
    title, first, second = (text.get_text() for text in figure.texts)
    assert title == "A title"
    assert f"{first} {second}" == " ".join(["One sentence.", *["Another one."] * 12])
    assert is_on_its_page(figure)
    figure.draw_without_rendering()
    assert overlapping(figure.texts) == []
    below = 2 - page.head_height(["One sentence.", "Another one. " * 12])
    lowest = min(text.get_window_extent().y0 for text in figure.texts) / figure.dpi
    assert below < lowest < below + 0.25


def test_axes_stand_where_they_are_put() -> None:
    figure, _ = page.start_page("A title", [], 4, LIGHT)
    box = page.add_axes(figure, left=1, top=0.5, width=5, height=2, theme=LIGHT).get_position()
    assert (box.x0 * 8, (1 - box.y1) * 4, box.width * 8, box.height * 4) == pytest.approx((1, 0.5, 5, 2))


def test_a_text_is_cut_where_it_has_no_room() -> None:
    assert page.fit("adam", 1) == "adam"
    cut = page.fit("adam " * 50, 1)
    assert cut.endswith("…")
    assert 0.8 < text_width(cut) <= 1
    assert page.fit("adam", 0) == "…"


def test_a_key_is_broken_after_dots() -> None:
    assert page.break_after(".", "optimizer.lr", 2) == ["optimizer.lr"]
    assert page.break_after(".", "augmentation.rotation.degrees", 1.2) == ["augmentation.", "rotation.degrees"]


def test_a_legend_has_columns_and_does_not_leave_the_page() -> None:
    names = [f"{i} an arm with a name" for i in range(7)]
    legend = page.Legend(names)
    assert (legend.columns, legend.rows) == (3, 3)
    figure, axes = page.start_page("A title", [], 1 + legend.height, LIGHT)
    legend.draw(axes, 0.8, LIGHT)
    assert [text.get_text() for text in axes.texts] == names
    assert [line.get_color() for line in axes.lines] == list(LIGHT.colors[:7])
    assert is_on_its_page(figure)
    figure.draw_without_rendering()
    assert overlapping(axes.texts) == []


def test_a_legend_cuts_names_that_are_wider_than_the_page() -> None:
    legend = page.Legend(["x" * 300, "short"])
    assert legend.columns == 1
    assert legend.labels[0].endswith("…")
