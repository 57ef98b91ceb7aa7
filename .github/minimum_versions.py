"""Print the oldest versions that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
    if floor := re.match(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?(>=|~=|==)([^,;]+)", line):
        print(f"{floor[1]}=={floor[4]}")
