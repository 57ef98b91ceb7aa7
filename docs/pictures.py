"""Draws the docs' pictures as SVG.

``python docs/pictures.py`` writes the overview, which the README shows and which is under version control; the picture
of the package's rooms is drawn from the imports at every build of the docs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
INK, GREY, LINE = "#1f2a37", "#5b6675", "#94a3b8"
COLORS = {"blue": "#dbeafe", "green": "#dcfce7", "amber": "#fef3c7", "grey": "#eef2f7", "violet": "#ede9fe"}
EDGES = {"blue": "#3b82f6", "green": "#22a35a", "amber": "#d99a12", "grey": "#94a3b8", "violet": "#8b5cf6"}


def svg(width: float, height: float, parts: list[str]) -> str:
    """A picture of this size with a white ground."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' "
        f"height='{height:g}' {FONT}>"
    )
    arrow = (
        "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
        f"orient='auto-start-reverse'><path d='M0 0 L10 5 L0 10 z' fill='{GREY}'/></marker></defs>"
    )
    ground = f"<rect width='{width:g}' height='{height:g}' rx='10' fill='white'/>"
    return "\n".join([head, arrow, ground, *parts, "</svg>\n"])


def text(x: float, y: float, words: str, *, size: float = 14, color: str = INK, weight: int = 400, anchor="start",
         mono: bool = False) -> str:  # fmt: skip
    """One line of text that begins at (x, y), or is centered there."""
    family = " font-family='ui-monospace, SFMono-Regular, Menlo, Consolas, monospace'" if mono else ""
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size:g}' fill='{color}' font-weight='{weight}' "
        f"text-anchor='{anchor}' xml:space='preserve'{family}>{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, color: str, title: str, lines: list[str] = (),
        *, mono: bool = False) -> Iterator[str]:  # fmt: skip
    """A box with a title and lines of text."""
    yield (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='8' fill='{COLORS[color]}' "
        f"stroke='{EDGES[color]}' stroke-width='1.2'/>"
    )
    yield text(x + 14, y + 25, title, size=15, weight=600)
    for number, line in enumerate(lines):
        yield text(x + 14, y + 46 + 18 * number, line, size=12.5, color=GREY, mono=mono)


def arrow(*points: tuple[float, float]) -> str:
    """A line through the points, with a tip at its end."""
    path = " ".join(f"{'M' if k == 0 else 'L'}{x:g} {y:g}" for k, (x, y) in enumerate(points))
    return f"<path d='{path}' fill='none' stroke='{GREY}' stroke-width='1.6' marker-end='url(#tip)'/>"


def overview_picture() -> str:
    """Dataset x model x trainer -> a run's folder -> scores, figures and a submission."""
    parts: list[str] = []
    parts += box(20, 22, 232, 78, "blue", "dataset", ["data=mc_rtt", "spikes, traces or images"])
    parts += box(20, 146, 232, 78, "green", "model", ["model=gru", "and its loss, optimizer, schedule"])
    parts += box(20, 270, 232, 78, "amber", "trainer", ["trainer=gpu", "one process or several"])
    for y in (130, 254):
        parts.append(text(136, y, "×", size=20, color=GREY, anchor="middle"))
    for y in (62, 186, 310):
        parts.append(arrow((254, y), (286, y), (286, 186), (330, 186)) if y != 186 else arrow((254, 186), (330, 186)))
    parts.append(text(292, 178, "train", size=12.5, color=GREY))
    parts += box(
        334, 84, 252, 188, "grey", "run folder",
        ["run.json      what was run,", "              what came out", "metrics.csv   every step",
         "output.log    the terminal", "checkpoints/  best, last", "figures/", ".hydra/       the config"],
        mono=True,
    )  # fmt: skip
    parts.append(text(460, 304, "-m makes a sweep of runs,", size=12.5, color=GREY, anchor="middle"))
    parts.append(text(460, 322, "with one table at the end", size=12.5, color=GREY, anchor="middle"))
    parts += box(676, 22, 264, 78, "violet", "scores", ["beside baselines, true rates", "and the noise ceiling"])
    parts += box(676, 146, 264, 78, "violet", "figures", ["rates, PSTHs, latents,", "receptive fields, learning curve"])
    parts += box(676, 270, 264, 78, "violet", "submission", ["of one run or of an ensemble,", "checked and scored"])
    for y in (62, 186, 310):
        parts.append(arrow((588, 186), (630, 186), (630, y), (672, y)) if y != 186 else arrow((588, 186), (672, 186)))
    parts.append(text(624, 306, "predict", size=12.5, color=GREY, anchor="end"))
    return svg(960, 380, parts)


def parts_picture() -> str:
    """What networks are made of: read-in, core and readout for spikes and traces, core and readout for images."""
    rows = [
        (
            "spikes",
            "traces",
            [
                ("green", "read-in", ["knows the neurons", "readin=identity, smoothed, ..."]),
                ("violet", "core", ["knows no neurons", "model=gru, ndt, stndt, lfads"]),
                ("green", "readout", ["knows the neurons", "readout=linear"]),
            ],
            ("rates", "of all neurons in all bins"),
        ),
        (
            "images",
            "",
            [
                ("grey", "", []),
                ("violet", "core", ["knows no neurons", "core=conv, vit"]),
                ("green", "readout", ["knows the neurons", "readout=gaussian, dense, ..."]),
            ],
            ("responses", "of all neurons"),
        ),
    ]
    parts, width, lefts = [], 226, (120, 376, 632)
    for number, (first, second, boxes, (result, of)) in enumerate(rows):
        y = 24 + 112 * number
        parts.append(text(20, y + (36 if second else 44), first, size=15, weight=600))
        parts.append(text(20, y + 58, second, size=15, weight=600))
        shown = [(left, *values) for left, values in zip(lefts, boxes, strict=True) if values[1]]
        parts.append(arrow((92, y + 40), (shown[0][0] - 4, y + 40)))
        for left, color, title, lines in shown:
            parts += box(left, y, width, 84, color, title, lines)
            parts.append(arrow((left + width, y + 40), (left + width + 26, y + 40)))
        parts += [text(890, y + 36, result, size=15, weight=600), text(890, y + 56, of, size=12.5, color=GREY)]
    return svg(1060, 236, parts)


def room_of(path: Path, package: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def room_imports(package: Path) -> dict[str, set[str]]:
    """Which parts of the package each part imports, lazy imports included."""
    imports: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = room_of(path, package)
        if room in ("__init__", "conf"):
            continue
        found = imports.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                if parts[0] == package.name and len(parts) > 1:
                    found.add(parts[1])
    return {room: {other for other in found if other in imports and other != room} for room, found in imports.items()}


def room_rows(imports: dict[str, set[str]]) -> list[list[str]]:
    """The parts in rows, lowest first; each imports only from rows below it, or its own if there is a circle."""
    rows: list[list[str]] = []
    left = dict(imports)
    while left:
        free = sorted(room for room, found in left.items() if not found & left.keys())
        if not free:  # a circle: take its smallest closed set together
            free = sorted(min((_reachable(room, left) for room in left), key=len))
        rows.append(free)
        left = {room: found for room, found in left.items() if room not in free}
    return rows


def _reachable(room: str, imports: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [room]
    while todo:
        if (here := todo.pop()) not in seen:
            seen.add(here)
            todo += imports[here] & imports.keys()
    return seen


def rooms_picture(package: Path) -> str:
    """The parts of the package in rows, each importing from the rows below it."""
    rows = room_rows(room_imports(package))[::-1]
    height, width, gap = 34, 980, 12
    parts = []
    for number, row in enumerate(rows):
        y = 20 + number * (height + 18)
        widths = [9.2 * len(room) + 30 for room in row]
        x = (width - sum(widths) - gap * (len(row) - 1)) / 2
        for room, room_width in zip(row, widths, strict=True):
            color = "blue" if (package / room).is_dir() else "grey"
            parts.append(
                f"<rect x='{x:g}' y='{y:g}' width='{room_width:g}' height='{height}' rx='7' fill='{COLORS[color]}' "
                f"stroke='{EDGES[color]}' stroke-width='1.2'/>"
            )
            parts.append(text(x + room_width / 2, y + 22, room, size=14, anchor="middle", mono=True))
            x += room_width + gap
    bottom = 20 + len(rows) * (height + 18)
    parts.append(text(width / 2, bottom + 8, "blue: a folder of modules; grey: one module. Each row imports from rows "
                      "below it.", size=12.5, color=GREY, anchor="middle"))  # fmt: skip
    return svg(width, bottom + 24, parts)


STEPS = [
    ("blue", "the command line", "words are checked: options that exist, keys that are allowed", "cli.py"),
    ("blue", "Hydra composes conf/", "one file for each group, then what was typed", "cli.py"),
    ("blue", "the settings", "one frozen object, checked: unread keys, types, allowed classes", "settings/settings.py"),
    ("green", "the data module", "finds or simulates files, reads, splits, says its DataSpec", "data/module.py"),
    ("green", "the model", "a network built from the DataSpec, its loss, optimizer and schedule", "models/base.py"),
    ("amber", "the trainer", "loggers, callbacks, devices", "runs/factory.py"),
    ("amber", "training", "batch -> network -> loss; validation chooses best.ckpt", "runs/train.py"),
    ("violet", "scores", "of best.ckpt, of the baselines, of the true rates", "runs/outcome.py"),
    ("violet", "the run's folder", "run.json, figures, the table in the terminal", "artifacts/records.py"),
]
"""What happens in a training, from top to bottom: color, name, what is done, and in which module."""


def road_picture(package: Path) -> str:
    """The way of one training from the command line to its scores; raises FileNotFoundError if a module has moved."""
    parts, height = [], 62
    for number, (color, name, done, module) in enumerate(STEPS):
        if not (package / module).is_file():
            raise FileNotFoundError(f"docs/pictures.py names {module}, which is not there")
        y = 16 + number * (height + 20)
        parts += box(150, y, 560, height, color, name, [done])
        parts.append(text(698, y + 25, module, size=12.5, color=GREY, anchor="end", mono=True))
        if number:
            parts.append(arrow((430, y - 20), (430, y - 2)))
    return svg(860, 16 + len(STEPS) * (height + 20), parts)


if __name__ == "__main__":
    (ROOT / "docs" / "images" / "overview.svg").write_text(overview_picture())
