"""How Sphinx builds the site: ``make docs``. Pages that follow from the code are written first, see generate.py."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import generate  # noqa: E402

generate.write_all(DOCS)

project = "neuro_lightning"
author = "the neuro_lightning authors"
version = release = installed_version("neuro_lightning")

extensions = [
    "myst_nb",  # Markdown pages, and notebooks as pages
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_rooms.md", "_contributing.md"]

# Markdown
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# `make docs NOTEBOOKS=run` shows figures and output below the cells, and runs again what has changed alone. Without it
# a build takes seconds, and tests/test_notebook.py runs the notebooks
nb_execution_mode = "cache" if os.environ.get("NOTEBOOKS") == "run" else "off"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

# the API reference
default_role = "code"
smartquotes = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
nitpicky = True  # a reference to a name that is gone ends the build; types in signatures are not references
nitpick_ignore_regex = [("py:class", ".*")]

# the look; nothing is fetched from outside when a page is read
html_theme = "pydata_sphinx_theme"
html_title = "neuro_lightning"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
ALONE = ["index", "getting_started", "results", "speed", "honest_numbers", "architecture", "development", "changelog"]
html_sidebars = {name: [] for name in ALONE}  # no list of pages beside those that have none below them
html_theme_options = {
    "logo": {"text": "neuro_lightning"},
    "navbar_align": "left",
    "navbar_persistent": ["search-field"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 5,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
copyright = "the neuro_lightning authors, MIT licence"


def prepare_docstring(app, what, name, obj, options, lines):
    """Say to reStructuredText what our docstrings mean; before napoleon reads them.

    Indented paragraphs are code, not quotations; the words before the colon of an attribute's docstring are not its
    type.
    """
    for number in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:number]) if line), "")
        begins = lines[number].startswith("    ") and not lines[number - 1].strip()
        if begins and above and not above.startswith((" ", "-", "*")) and not above.endswith("::"):
            lines[number:number] = ["::", ""]
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment: only a first line can be read as a type


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # napoleon has 500
