"""What the tests of figures share: draw a figure with warnings as errors, and read its texts."""

import warnings

from matplotlib.figure import Figure


def drawn(figure):
    """The figure, after it was really drawn: most of matplotlib's errors come only then."""
    assert isinstance(figure, Figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def labels(figure):
    return {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}


def texts(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]
