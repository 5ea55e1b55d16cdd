"""The diagrams of the handbook: nothing overlaps, and nothing leaves its box or the sheet."""

import itertools

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch

from mtl_lib.handbook import diagrams

DRAWN = ["attention", "encoder", "three_heads", "joint_step", "pretraining"]


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_overlaps_another_or_leaves_its_box(name):
    figure = getattr(diagrams, name)()
    renderer = figure.canvas.get_renderer()
    [axes] = figure.axes
    texts = {text.get_window_extent(renderer): text.get_text() for text in axes.texts}
    texts = {extent: text for extent, text in texts.items() if text}
    boxes = [patch.get_window_extent(renderer) for patch in axes.patches]
    assert len(texts) > 10
    for (extent, text), (other, other_text) in itertools.combinations(texts.items(), 2):
        assert not extent.overlaps(other), (text, other_text)
    for extent, text in texts.items():
        assert figure.bbox.containsx(extent.x0) and figure.bbox.containsx(extent.x1), text
        assert figure.bbox.containsy(extent.y0) and figure.bbox.containsy(extent.y1), text
        for box in boxes:
            inside = box.x0 < extent.x0 and extent.x1 < box.x1
            inside = inside and box.y0 < extent.y0 and extent.y1 < box.y1
            assert inside or not box.overlaps(extent), text
    plt.close(figure)


@pytest.mark.parametrize("name", DRAWN)
def test_it_fits_a_notebook_and_its_boxes_do_not_overlap(name):
    figure = getattr(diagrams, name)()
    assert figure.get_figwidth() == 9.0
    assert all(text.get_fontsize() >= 10 for text in figure.axes[0].texts)
    drawn = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch) and p.zorder > 1]
    boxes = [patch.get_window_extent() for patch in drawn]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    plt.close(figure)
