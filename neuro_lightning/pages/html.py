"""A page as HTML: one file that opens without a network."""

from __future__ import annotations

import base64
import functools
import gzip
from importlib.resources import files

from neuro_lightning.pages.parts import Page

TEMPLATE = "page.html"


def to_html(page: Page) -> str:
    """The page as HTML. Names of neurons, files and overrides are escaped; nothing is loaded from elsewhere.

    All but the turning drawings and the sorting of tables is there without JavaScript.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("neuro_lightning.pages") / TEMPLATE).read_text(encoding="utf-8"))
    sections = [section for section in page.sections if section]
    library = packed_library() if any(section.spaces for section in sections) else ""
    return template.render(page=page, sections=sections, library=library)


@functools.cache
def packed_library() -> str:
    """Plotly's JavaScript, compressed, as text: a third of its size."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
