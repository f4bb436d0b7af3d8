"""What was typed, so that fire hands it on as it was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["prepare"]

# fire gives up its one-letter options where a function takes options it doesn't know by name, as ours do.
ALIASES = {"-b": "--bundle", "-i": "--input", "-o": "--output", "-c": "--config_file", "-f": "--fast", "-t": "--tta"}
ALIASES |= {"-s": "--save_probabilities", "-n": "--names", "-r": "--resume"}
# Options whose values are text even if they look like numbers or lists; of commands that hand on what they get, all.
TEXTS = {"segment": {"--bundle", "--input", "--output", "--names", "--device"}}
HELP = {"-h", "--help"}


def prepare(words: Sequence[str]) -> list[str]:
    """The command line for fire: aliases written out, text in quotes, and help asked for in a way it can't mistake.

    Example::

        >>> prepare(["segment", "-i", "2024", "--overlap", "0.3"])
        ['segment', '--input', "'2024'", '--overlap', '0.3']
        >>> prepare(["train", "glims", "--roi_size=[64,64,64]"]), prepare(["segment", "-i", "x", "--help"])
        (['train', "'glims'", "--roi_size='[64,64,64]'"], ['segment', '--', '--help'])
    """
    command, *rest = words or [""]
    if HELP.intersection(words) or not words:
        return [*([command] if rest else []), "--", "--help"]
    texts = TEXTS.get(command)
    done, option = [command], ""
    for word in rest:
        if is_option(word):
            name, equals, value = ALIASES.get(word, word).partition("=")
            option = name
            done.append(f"{name}={ascii(value) if texts is None or name in texts else value}" if equals else name)
        else:
            done.append(ascii(word) if texts is None or option in texts else word)
            option = ""
    return done


def is_option(word: str) -> bool:
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None
