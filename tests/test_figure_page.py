import io

import pytest
from helpers.figures import formulas, is_on_its_page, texts
from matplotlib.image import imread

from mnist_exp import figure_page


def test_a_page_is_measured_in_inches_from_the_top_left() -> None:
    figure = figure_page.new_figure(3, "black")
    page = figure_page.add_page(figure)
    assert page.transData.transform((0, 0)) == pytest.approx((0, 3 * figure.dpi))
    assert page.transData.transform((8, 3)) == pytest.approx((8 * figure.dpi, 0))


def test_the_head_has_the_title_and_each_line_of_the_note_below_the_other() -> None:
    figure = figure_page.new_figure(3)
    figure_page.write_head(figure, "Costs $5 or $6", ["One.", "Two."])
    assert texts(figure) == ["Costs $5 or $6", "One.", "Two."]
    assert formulas(figure) == []
    tops = [(1 - text.get_position()[1]) * 3 for text in figure.texts]
    assert tops == pytest.approx([0.17, 0.42, 0.61])
    assert is_on_its_page(figure)


@pytest.mark.parametrize(("text", "size"), [("adam", 9), ("adam", 18), ("$5 and $10", 9)])
def test_the_width_of_a_text_is_the_one_it_is_drawn_with(text: str, size: float) -> None:
    figure = figure_page.new_figure(3)
    page = figure_page.add_page(figure)
    drawn = page.text(1, 1, text, size=size, parse_math=False)
    figure.draw_without_rendering()
    width = drawn.get_window_extent().width / figure.dpi
    assert figure_page.text_width(text, size) == pytest.approx(width, abs=0.02)


def test_a_figure_is_a_png_of_1200_pixels() -> None:
    png = figure_page.to_png(figure_page.new_figure(1))
    assert imread(io.BytesIO(png)).shape == (150, 1200, 4)
