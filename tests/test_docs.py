"""The docs: their commands compose, every config key is explained, and the built site works in a real browser."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from browser import visit
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from neuro_lightning.settings.config import check_config
from neuro_lightning.settings.session_words import expand_sessions
from neuro_lightning.settings.settings import PredictSettings, TrainSettings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SITE = DOCS / "_build" / "html"
GENERATED = ("_", "changelog", "reference/api", "reference/config/")
PAGES = [ROOT / "README.md"] + [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if not path.relative_to(DOCS).as_posix().startswith(GENERATED)
]  # fmt: skip
COMMAND = re.compile(r"^[#$ ]*python (train\.py|predict\.py|-m neuro_lightning)")
needs_site = pytest.mark.skipif(
    "TEST_DOCS_SITE" not in os.environ and not (SITE / "index.html").is_file(), reason="make docs has not been run"
)  # .ci/run says TEST_DOCS_SITE=1, so that a site that is not there fails


def commands(path: Path) -> list[list[str]]:
    """The words of each command that a page or a config's comment shows, after ``python``."""
    lines = [line.lstrip("#$ ") if line.lstrip().startswith("#") else line for line in path.read_text().splitlines()]
    text = "\n".join(lines).replace("\\\n", " ")
    found = dict.fromkeys(line.strip() for line in text.splitlines() if COMMAND.match(line))
    words = [shlex.split(line.lstrip("#$ "), comments=True) for line in found if "<" not in line]  # <time> is no value
    return [command[1:] for command in words]


def first_values(overrides: list[str]) -> list[str]:
    """The overrides of a sweep's first job."""
    chosen = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            chosen.append(override.input_line)
        elif isinstance(override.value(), IntervalSweep):
            chosen.append(f"{override.get_key_element()}={override.value().start}")
        else:
            chosen.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
    return chosen


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_composes(path):
    with initialize_config_dir(config_dir=str(ROOT / "conf")):
        for script, *words in commands(path):
            compose_command(script, words)


def test_every_command_in_a_config_file_composes():
    with initialize_config_dir(config_dir=str(ROOT / "conf")):
        for path in sorted((ROOT / "conf").rglob("*.yaml")):
            for script, *words in commands(path):
                if len(words) > 3:  # tests/test_config.py composes every choice by itself
                    compose_command(script, words, check=False)


def compose_command(script: str, words: list[str], check: bool = True) -> None:
    if script == "-m":
        assert importlib.util.find_spec(words[0]), words[0]
        return
    overrides = expand_sessions([word for word in words if not word.startswith("-")])
    if any(word.startswith("hydra.searchpath") for word in overrides):  # tests/test_extend.py runs these
        return
    name = script.removesuffix(".py")
    try:
        cfg = compose(name, overrides=first_values(overrides))
        if check:
            check_config(cfg, known=(TrainSettings if name == "train" else PredictSettings).config_keys())
    except Exception as error:
        raise AssertionError(f"python {script} {shlex.join(words)}: {error}") from error


def test_the_pages_have_commands():
    assert sum(len(commands(path)) for path in PAGES) > 40


def test_python_examples_are_valid_python():
    for path in PAGES:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            compile(block, str(path), "exec")


def test_every_config_key_is_explained(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from config_reference import Configs

    configs = Configs.read(ROOT / "conf")
    assert len(configs.files) > 100
    assert configs.without_meaning() == [], "write what these keys mean behind them, as a comment"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_overview_is_the_one_that_is_drawn():
    drawn = subprocess.run(
        [sys.executable, "-c", "import pictures; print(pictures.overview_picture(), end='')"],
        cwd=DOCS, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert drawn.stdout == (DOCS / "images" / "overview.svg").read_text(), "run python docs/pictures.py"


# ---- the built site

VISITED = [
    "index.html",
    "getting_started.html",
    "how_to/sweep.html",
    "reference/config/model.html",
    "reference/api/metrics.html",
    "tutorials/01_quickstart.html",
    "search.html?q=smoothing",
]

VISIT = """
<!doctype html><title>visiting</title><body><script>
const seen = {}
const shown = (element) => element !== null && element.getBoundingClientRect().width > 0
async function visit(page) {
  const frame = document.createElement('iframe')
  frame.width = 1300; frame.height = 900
  const loaded = new Promise((done) => frame.onload = done)
  frame.src = '/' + page
  document.body.append(frame)
  await loaded
  const doc = frame.contentDocument
  if (page.startsWith('search')) {
    for (let k = 0; k < 100 && doc.querySelectorAll('#search-results li').length < 5; k++)
      await new Promise((done) => setTimeout(done, 100))
  }
  seen[page] = {
    title: doc.title,
    heading: doc.querySelector('h1')?.innerText ?? '',
    links: [...doc.querySelectorAll('header nav a')].filter(shown).map((a) => a.innerText.trim()),
    search: [...doc.querySelectorAll('input[type=search]')].some(shown),
    styled: frame.contentWindow.getComputedStyle(doc.body).fontFamily,
    broken: [...doc.images].filter((i) => i.complete && i.naturalWidth === 0).map((i) => i.src),
    results: doc.querySelectorAll('#search-results li').length,
  }
  frame.remove()
}
(async () => {
  for (const page of PAGES) await visit(page)
  document.body.innerHTML = '<pre id=seen></pre>'
  document.getElementById('seen').textContent = JSON.stringify(seen)
})()
</script></body>
"""


class Server(SimpleHTTPRequestHandler):
    """Serves the site and the page that visits it, and keeps what was asked for in vain."""

    missing: ClassVar[list[str]] = []

    def do_GET(self):
        if self.path != "/visit":
            return super().do_GET()
        page = VISIT.replace("PAGES", json.dumps(VISITED)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def send_error(self, code, message=None, explain=None):
        self.missing.append(f"{code} {self.path}")
        super().send_error(code, message, explain)

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """What a headless Chromium saw on each page, the files it missed, and what it wrote to its log."""
    Server.missing = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = visit(f"http://127.0.0.1:{server.server_port}/visit", tmp_path_factory.mktemp("browser"), wait_ms=60000)
        server.shutdown()
    found = re.search(r'<pre id="seen">(.*?)</pre>', seen.dom, re.DOTALL)
    assert found, seen.log[-2000:]
    pages = json.loads(found.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    return pages, Server.missing, seen.errors


@needs_site
def test_pages_show_their_title_the_navigation_and_the_search_box(visited):
    pages, _, _ = visited
    assert set(pages) == set(VISITED)
    for name, page in pages.items():
        assert "neuro_lightning" in page["title"] and page["heading"], name
        assert {"Getting started", "How-to guides", "Reference"} <= set(page["links"]), name
        assert page["search"], f"{name} shows no search box"
        assert page["broken"] == [], name
    assert pages["search.html?q=smoothing"]["results"] >= 5, "the search finds nothing"


@needs_site
def test_the_browser_misses_no_file_and_logs_no_error(visited):
    _, missing, errors = visited
    assert [path for path in missing if "favicon" not in path] == []
    assert errors == []


@needs_site
def test_pages_take_nothing_from_other_hosts():
    outside = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"[^>]*>")
    pages = [path for path in SITE.rglob("*.html") if "_modules" not in path.parts]
    assert len(pages) > 50
    found = {str(path.relative_to(SITE)): outside.findall(path.read_text()) for path in pages}
    assert {name: tags for name, tags in found.items() if tags} == {}
