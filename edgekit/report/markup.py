"""HTML and SVG as small functions: what comes from outside is escaped in `text`, and only there.

`Markup` is a string that is safe to put into a page. The type checker refuses a plain string where
`Markup` is wanted, so nothing reaches a page without passing through these functions.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NewType

from edgekit.errors import clean

Markup = NewType("Markup", str)

VOID = {"meta", "link", "rect", "line", "circle", "path", "polyline", "polygon", "br"}


def text(value: object) -> Markup:
    """`value` as escaped text, one line."""
    return Markup(html.escape(clean(value)))


def lines(value: str) -> Markup:
    """Several lines of text, escaped, for `pre`."""
    return Markup("\n".join(html.escape(_keep_spaces(line)) for line in value.splitlines()))


def _keep_spaces(line: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def element(tag: str, *children: Markup, **attributes: str | float | None) -> Markup:
    """One element. Attributes are escaped; `class_` gives `class`, `stroke_width` gives `stroke-width`.

    An attribute that is None is left out.
    """
    pairs = [
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(clean(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    head = f"<{tag}{''.join(pairs)}"
    return Markup(f"{head}/>") if tag in VOID else Markup(f"{head}>{''.join(children)}</{tag}>")


def join(parts: Iterable[Markup], between: str = "") -> Markup:
    """Several pieces as one."""
    return Markup(html.escape(between).join(parts))


def status_class(status: str) -> str:
    """The style class of a verdict: `not-met`."""
    return status.lower().replace(" ", "-")


def said(sentence: str) -> Markup:
    """A sentence in which what stands between backticks is set as code."""
    pieces = [Markup(html.escape(piece)) for piece in clean(sentence).split("`")]
    if len(pieces) % 2 == 0:
        return text(sentence)
    return join(element("code", piece) if number % 2 else piece for number, piece in enumerate(pieces))


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Markup]]) -> Markup:
    """A table whose first column heads its rows; scrolls by itself when the window is narrow."""
    head = element("tr", *(element("th", text(name), scope="col") for name in heads))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]
    content = element(
        "table",
        element("caption", text(caption)),
        element("thead", head),
        element("tbody", *body),
    )
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=caption)


def section(title: str, *parts: Markup, intro: str = "") -> Markup:
    """A titled part of the page."""
    opening = element("p", said(intro), class_="intro") if intro else Markup("")
    return element("section", element("h2", text(title)), opening, *parts)


def bullets(items: Iterable[str]) -> Markup:
    """A list of sentences; nothing when there is none."""
    parts = [element("li", said(item)) for item in items]
    return element("ul", *parts) if parts else Markup("")


def page(title: str, *parts: Markup) -> str:
    """A whole page, in one file: its style is inside, and its policy forbids scripts and the network."""
    style = files("edgekit.report").joinpath("style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", text(title)),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style)),
    )
    body = element("body", element("main", *parts))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"
