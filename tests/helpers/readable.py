"""Can a reader read it? What every figure's tests ask of its picture, whatever it shows."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg

from gracelib.drawing import style


def texts_of(fig):
    """Every text that a reader sees."""
    found = []
    for ax in fig.axes:
        found += [ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.texts]
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            shown = axis.get_visible() and ax.axison
            ticks = [t for t in axis.get_major_ticks() if shown and min(limits) <= t.get_loc() <= max(limits)]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
    for part in fig.subfigs:
        found += [*part.texts, *(text for legend in part.legends for text in legend.get_texts())]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def notes_of(fig):
    """The grey lines on scale and cells below a figure, each on one line."""
    return [text.get_text().replace("\n", " ") for part in fig.subfigs for text in part.texts]


def assert_readable(fig):
    """One of two widths; no text too small, outside, or upon another; no legend upon data."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    assert fig.get_figwidth() in (style.SINGLE, style.DOUBLE)
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts_of(fig)]
    drawn = not any(name.startswith("Not drawn") for name, _ in boxes)
    assert len(boxes) > 8 or not drawn
    assert min(text.get_fontsize() for text in texts_of(fig)) >= style.SMALL >= 7
    for what, box in boxes:
        assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1 and fig.bbox.y0 <= box.y0 and box.y1 <= fig.bbox.y1, what
    for (a, box_a), (b, box_b) in itertools.combinations(boxes, 2):
        assert not box_a.padded(-0.5).overlaps(box_b.padded(-0.5)), f"{a!r} lies upon {b!r}"
    legends = [legend for part in fig.subfigs for legend in part.legends]
    assert bool(legends) == drawn
    for legend, ax in itertools.product(legends, fig.axes):
        assert not legend.get_window_extent().overlaps(ax.get_window_extent()), "a legend covers data"
