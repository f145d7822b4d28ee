"""Commands that work when they are pasted: quoting for the shell and for Hydra's grammar."""

import os
import re
import shlex
import sys

from mnist_exp.system import program

# Hydra reads these as text without quotes: paths, and words of plain letters that are neither numbers nor constants.
PLAIN = re.compile(
    r"[A-Za-z0-9_.-]*/[A-Za-z0-9_./-]*|(?!(?:null|true|false|nan|inf)$)[a-z_][a-z0-9_.-]*", re.IGNORECASE
)


def command(*words: str, script: str = "train.py") -> str:
    """Return the line for a shell that gives train.py these words.

    It begins as the user's own command did: with `mnist-exp train`, or with `python` and the script.
    """
    return " ".join([program.beginning(for_shell(script)), *map(for_shell, words)])


def override(key: str, value: object) -> str:
    """Return the override that gives `key` the text of `value`, with quotes where Hydra's grammar needs them."""
    text = str(value)
    return f"{key}={text if PLAIN.fullmatch(text) else quoted(text)}"


def quoted(text: str) -> str:
    """Return the text in quotes of Hydra's grammar. `${` in it stays text, and refers to no other key."""
    from hydra.core.override_parser.types import Quote, QuotedString  # slow: commands without Hydra do without

    return QuotedString(literal(text), Quote.double).with_quotes()


def literal(text: str) -> str:
    """Return the config value that stands for the text: OmegaConf reads a plain `${` as a reference to a key."""
    return text.replace("${", r"\${")


def for_shell(word: str) -> str:
    """Quote a word for a POSIX shell; for bash and zsh where this terminal can't show all of its characters."""
    return shlex.quote(word) if _is_shown(word) else "$'" + "".join(map(_escape, os.fsencode(word))) + "'"


def shown(text: str, but: str = "") -> str:
    """Escape unprintable characters as Python does, line breaks too; the characters in `but` stay."""
    return "".join(
        letter if letter.isprintable() or letter in but else letter.encode("unicode_escape").decode() for letter in text
    )


def _is_shown(word: str) -> bool:
    """Return whether this terminal can show all characters of the word."""
    try:
        word.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return word.isprintable()


def _escape(byte: int) -> str:
    """Return the byte as it stands in $'...'."""
    letter = chr(byte)
    return letter if letter.isascii() and letter.isprintable() and letter not in "'\\" else f"\\x{byte:02x}"
