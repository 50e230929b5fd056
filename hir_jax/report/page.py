"""One file of HTML with all that it needs: data, style, scripts, plot library; nothing is fetched.

Its parts are the files of `page/`. The data is JSON, compressed, in base64: no text of a model, a
question or a config is ever part of the markup, and the scripts put texts into the page by
`textContent` alone. Should that ever fail, a content security policy, by the digests of what is
written here, lets no other script run and nothing be fetched.
"""

import base64
import gzip
import hashlib
import html
import importlib.resources
import json
import re
from typing import Any

from hir_jax.errors import UserError

MARK = "<!-- written by hir_jax --mode=report -->"  # the beginning of the file tells it from others
STYLES = ("uPlot.min.css", "page.css")
# In the order in which they are run. Ours stand in one scope: see the head of data.js.
LIBRARY = "uPlot.iife.min.js"
SCRIPTS = (
    "data.js",
    "elements.js",
    "address.js",
    "overview.js",
    "charts.js",
    "curves.js",
    "browser.js",
    "sample.js",
    "config.js",
    "main.js",
)


def render(content: Any, title: str) -> str:
    """The page that shows what `gather.gather` gives."""
    ours = "\n".join(map(_part, SCRIPTS))
    scripts = [_part(LIBRARY), f'"use strict";\n(() => {{\n{ours}\n}})();\n']
    style = "\n".join(map(_part, STYLES))
    filled = {
        "mark": MARK,
        "title": html.escape(title),
        "policy": policy(scripts, [style]),
        "style": style,
        "data": compress(content),
        "scripts": "".join(f"<script>{script}</script>\n" for script in scripts),
    }
    # In one pass, so that nothing filled in is looked into.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], _part("page.html"))


def compress(content: Any) -> str:
    """JSON, by gzip, in base64: letters, digits, +, / and = alone.

    Halves of surrogate pairs, which a model's output or a file may hold, stay as JSON's escapes.

    Raises:
        UserError: a number is beyond what a float holds; no run writes such.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as e:
        raise UserError(
            "--mode=report: expected numbers as a run writes them in the workdir's files, found "
            f"one beyond all bounds ({e}). Put the files back as they were."
        ) from e
    # The same content gives the same bytes: no time of writing in the head.
    packed = gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()


def decompress(data: str) -> Any:
    """The inverse of `compress`."""
    return json.loads(gzip.decompress(base64.b64decode(data)))


def policy(scripts: list[str], styles: list[str]) -> str:
    """What the page may do: run these scripts, use these styles, show images that it holds."""

    def digests(texts: list[str]) -> str:
        found = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in found)

    return (
        f"default-src 'none'; script-src {digests(scripts)}; style-src {digests(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")
