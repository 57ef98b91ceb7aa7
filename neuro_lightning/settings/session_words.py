"""``data.sessions=[mc_maze_small,mc_maze_medium]`` on the command line: the config of each session by its name."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from neuro_lightning.errors import ConfigError

KEY = "data.sessions"


def expand_sessions(words: Sequence[str]) -> list[str]:
    """The command line with a choice of ``conf/data`` for each session that ``data.sessions`` lists by name.

    Raises:
        ConfigError: a name is there twice, or lists are swept.

    Example:
        >>> expand_sessions(["data=sessions", "data.sessions=[mc_maze_small,mc_rtt]"])
        ['data=sessions', '+data@data.sessions.mc_maze_small=mc_maze_small', '+data@data.sessions.mc_rtt=mc_rtt']
        >>> expand_sessions(["data.sessions={left: antolik_v1, right: antolik_v1}"])
        ['+data@data.sessions.left=antolik_v1', '+data@data.sessions.right=antolik_v1']
    """
    return [expanded for word in words for expanded in (_expand(word) if word.startswith(f"{KEY}=") else [word])]


def _expand(word: str) -> list[str]:
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        return [word]  # what is wrong with it is said where all words are read
    if parsed.is_sweep_override():
        raise ConfigError(
            f"{KEY}: lists of sessions cannot be swept; give each list a file conf/data/NAME.yaml and sweep data=NAME"
        )
    value = parsed.value()
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        if double := next((name for name in value if value.count(name) > 1), None):
            raise ConfigError(
                f"{KEY} lists {double} more than once: give each a name, {KEY}={{one: {double}, two: {double}}}, and "
                "say what differs, such as data.sessions.two.simulate_seed=1"
            )
        value = {str(name).replace("/", "_"): name for name in value}
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value.values()):
        return [word]
    return [f"+data@{KEY}.{name}={option}" for name, option in value.items()]
