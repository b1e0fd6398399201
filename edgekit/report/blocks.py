"""The pieces that the pages of builds and benchmarks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgekit.cost import Figure, Verdict
from edgekit.report.charts import budget_bar
from edgekit.report.markup import Markup, element, join, lines, said, status_class, table, text
from edgekit.report.words import interval_text, limit_label, value_text


def header(kicker: str, title: str, under: Sequence[str]) -> Markup:
    """The head of a page: what kind of report, about what, and the circumstances."""
    return element(
        "header",
        element("p", text(kicker), class_="kicker"),
        element("h1", text(title)),
        element("p", text(" · ".join(under)), class_="under"),
    )


def banner(word: str, lead: str, more: Iterable[str], *, kind: str | None = None) -> Markup:
    """The outcome in a word and a sentence, and what to know about it; `kind` gives the colour."""
    kind = kind or status_class(word)
    body = [element("p", said(lead), class_="lead"), *(element("p", said(sentence)) for sentence in more)]
    label = element("div", text(word), class_=f"word {kind}")
    return element("div", label, element("div", *body), class_=f"banner {kind}", role="status")


def card(name: str, figure: str, more: str, mark: Markup) -> Markup:
    """One large number."""
    return element(
        "div",
        element("p", text(name), class_="name"),
        element("p", text(figure), class_="figure"),
        element("p", text(more), class_="more"),
        mark,
        class_="card",
    )


def cards(parts: Sequence[Markup]) -> Markup:
    """A row of large numbers."""
    return element("div", *parts, class_="cards")


def verdict_mark(status: str) -> Markup:
    """The verdict as a coloured word."""
    return element("span", text(status), class_=f"verdict {status_class(status)}")


def how_mark(figure: Figure | None) -> Markup:
    """How a figure was got, as a word in a frame: solid, dashed or dotted."""
    return element("span", text(figure.how), class_=f"how {figure.how}") if figure else Markup("")


def figure_cell(name: str, figure: Figure | None) -> Markup:
    """A figure with its interval below it."""
    interval = interval_text(name, figure)
    below = element("span", text(interval), class_="sub") if interval else Markup("")
    return element("span", text(value_text(name, figure)), below, class_="figures")


def limits_table(caption: str, verdicts: Sequence[Verdict], kind: str) -> Markup:
    """Each limit as a bar of the figure against it; `kind` is that of the quality."""
    heads = ("limit", "verdict", "figure", "at most", "figure against limit", "how")
    return table(caption, heads, [_limit_row(verdict, kind) for verdict in verdicts])


def _limit_row(verdict: Verdict, kind: str) -> list[Markup]:
    name, figure = verdict.name, verdict.figure
    label, most = limit_label(name, kind), value_text(name, verdict.limit)
    interval = interval_text(name, figure)
    spoken = f"{value_text(name, figure)}{f', {interval}' if interval else ''}"
    bar = budget_bar(
        figure.value if figure else None,
        verdict.limit.value,
        low=figure.low if figure else None,
        high=figure.high if figure else None,
        status=verdict.status,
        label=f"{label} {spoken}, limit {most}: {verdict.status}",
        key=name,
    )
    return [
        text(label),
        verdict_mark(verdict.status),
        figure_cell(name, figure),
        element("span", text(most), class_="figures"),
        bar,
        how_mark(figure),
    ]


def block(content: str) -> Markup:
    """Text to copy."""
    return element("pre", element("code", lines(content)), tabindex=0)


def definitions(words: Mapping[str, str]) -> Markup:
    """Words and what they mean."""
    pairs = [join([element("dt", text(word)), element("dd", text(said))]) for word, said in words.items()]
    return element("dl", *pairs)


def facts_table(caption: str, facts: Iterable[tuple[str, str]]) -> Markup:
    """Names and what they are."""
    rows = [[text(name), text(value)] for name, value in facts]
    return element("div", table(caption, ("what", "value"), rows), class_="facts")
