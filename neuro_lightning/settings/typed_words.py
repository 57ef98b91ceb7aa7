"""Words of a command line that Hydra answers with its usage, several lines or a traceback: one line instead."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.quoting import override

MULTIRUN = ("-m", "--multirun")
ALONE = (*MULTIRUN, "--resolve", "-r", "--run", "--version", "--hydra-help")  # the next word is not their value
HYDRA_FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd", "--experimental-rerun", "--info", "-i",
)  # fmt: skip


def check_words(arguments: Sequence[str]) -> None:
    """Refuse words that are neither an override nor a flag of Hydra's.

    Args:
        arguments: the command line, without the program.

    Raises:
        ConfigError: such as ``--model=gru``, ``model gru``, ``data = lorenz``, or ``--resolve`` alone.
    """
    if "--resolve" in arguments and not {"--cfg", "-c"} & set(arguments):
        raise ConfigError("--resolve goes with --cfg job, which prints the config; resuming is resume=RUN")
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word.startswith("-"):
            _check_flag(word)
        elif "=" not in word and not word.startswith("~") and not _is_value_of(before):
            raise ConfigError(f"{word!r} is no override, which are KEY=VALUE{_hint(before, word, arguments)}")


def _hint(before: str, word: str, arguments: Sequence[str]) -> str:
    if "=" in arguments:
        return ", without spaces around the ="
    if "/" in word:
        return ": give the key of this path, too"
    return "; several values: -m seed=0,1,2" if "=" in before else ""


def _is_value_of(before: str) -> bool:
    """Whether the word after this one is the value of a flag."""
    return before.startswith("-") and before not in ALONE


def _check_flag(word: str) -> None:
    """Refuse a setting that is typed as a flag."""
    flag, equals, value = word.partition("=")
    if any(known.startswith(flag) if flag.startswith("--") else known == flag for known in HYDRA_FLAGS):
        return
    setting = f"{flag.lstrip('-')}={value if equals else '...'}"
    raise ConfigError(f"{word}: no such flag; settings are written without dashes, {setting}; --help lists them")


def parse_words(arguments: Sequence[str]) -> Iterator[tuple[str, Override]]:
    """Each override with what Hydra reads in it.

    Args:
        arguments: the command line, without the program.

    Raises:
        ConfigError: a word that Hydra's grammar does not know; Hydra says it in three lines, or in a traceback.
    """
    parser = OverridesParser.create()
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word.startswith("-") or _is_value_of(before):
            continue
        try:
            parsed = parser.parse_override(word)
            reason = "" if word.lstrip("+~").partition("=")[0] else "it has no key"
        except HydraException as error:
            reason = str(error).splitlines()[0]
        if reason:
            raise ConfigError(f"{word}: Hydra cannot read this override ({reason}); {_written_right(word)}")
        yield word, parsed


def check_single(arguments: Sequence[str]) -> None:
    """Refuse several values of a key without ``-m``.

    Raises:
        ConfigError: saying how a sweep, a list and text with commas are typed.
    """
    if {*MULTIRUN, "hydra.mode=MULTIRUN"} & set(arguments):
        return
    for word, parsed in parse_words(arguments):
        if parsed.is_sweep_override():
            raise ConfigError(_several_values(word, parsed))


def _several_values(word: str, parsed: Override) -> str:
    key, _, value = word.partition("=")
    text = f"{word}: several values are a sweep, train.py -m {word}"
    if parsed.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
        return text
    return f"{text}; a list is '{key}=[{value}]', and text with commas {_in_quotes(key, value)}"


def _in_quotes(key: str, value: str) -> str:
    """An override of text, in the quotes of a shell and of Hydra: ``"KEY='a=b'"``."""
    word = override(key, value)
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _written_right(word: str) -> str:
    """How a word that Hydra cannot read may be written."""
    key, _, value = word.partition("=")
    if value.startswith("~"):
        return f"~ is not filled in within a word: write {key}=$HOME{value[1:]}"
    if not key or value.startswith(("[", "{")):
        return (
            "a value with brackets, commas, spaces or = in it that are text needs quotes of its own: "
            "'KEY=\"VALUE\"'; a list is 'KEY=[VALUE,VALUE]'"
        )
    return f"text with brackets, commas or = in it needs quotes of its own: {_in_quotes(key, value)}"
