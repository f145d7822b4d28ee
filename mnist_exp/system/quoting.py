"""Commands to type, quoted for the shell and for Hydra's grammar, so that each works when it is pasted."""

import os
import re
import shlex
import sys

from hydra.core.override_parser.types import Quote, QuotedString

# What Hydra reads as the text that it is: a path or a word of plain letters, but no number and no constant.
PLAIN = re.compile(
    r"[A-Za-z0-9_.-]*/[A-Za-z0-9_./-]*|(?!(?:null|true|false|nan|inf)$)[a-z_][a-z0-9_.-]*", re.IGNORECASE
)


def command(*words: str) -> str:
    """What to type into a shell to give train.py these words."""
    return " ".join(["python train.py", *map(for_shell, words)])


def override(key: str, value: object) -> str:
    """An override that gives `key` the text of `value`, quoted where Hydra's grammar asks for it."""
    text = str(value)
    return f"{key}={text if PLAIN.fullmatch(text) else quoted(text)}"


def quoted(text: str) -> str:
    """The text in quotes of Hydra's grammar. A dollar before a brace stays one: it refers to no other key."""
    return QuotedString(literal(text), Quote.double).with_quotes()


def literal(text: str) -> str:
    """The value of a config that stands for the text, whatever is in it: OmegaConf reads ${...} as another key."""
    return text.replace("${", r"\${")


def for_shell(word: str) -> str:
    """The word as a POSIX shell takes it; as bash and zsh do where it has letters that this terminal can't show."""
    return shlex.quote(word) if _is_shown(word) else "$'" + "".join(map(_escape, os.fsencode(word))) + "'"


def shown(text: str, but: str = "") -> str:
    """The text with what no terminal shows, line breaks too, as Python escapes it; `but` are characters that stay."""
    return "".join(
        letter if letter.isprintable() or letter in but else letter.encode("unicode_escape").decode() for letter in text
    )


def _is_shown(word: str) -> bool:
    try:
        word.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return word.isprintable()


def _escape(byte: int) -> str:
    letter = chr(byte)
    return letter if letter.isascii() and letter.isprintable() and letter not in "'\\" else f"\\x{byte:02x}"
