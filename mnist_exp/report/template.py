"""HTML pages that need no network: a Jinja template with its style and its script inside."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

BASE = Path(__file__).with_name("base.css")  # the colours, light and dark, and the controls of every page


def environment(*folders: Path) -> Environment:
    """Return the environment of the templates in folders. It escapes every value."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def inside(styles: Sequence[Path], scripts: Sequence[Path]) -> dict[str, Any]:
    """Return what a template puts inside its page: `style`, `script` and `script_digest`."""
    style, script = ("".join(path.read_text(encoding="utf-8") for path in paths) for paths in (styles, scripts))
    return {"style": Markup(style), "script": Markup(script), "script_digest": digest(script)}


def to_base64(content: bytes) -> str:
    """Return bytes as text that JavaScript's atob reads."""
    return base64.b64encode(content).decode()


def digest(script: str) -> str:
    """Return the hash with which the page's Content-Security-Policy allows its own script and no other."""
    return "sha256-" + to_base64(hashlib.sha256(script.encode()).digest())
