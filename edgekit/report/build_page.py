"""The page of a build: the outcome, what it rests on, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from edgekit.cost import LABELS, Figure
from edgekit.report.build_sections import (
    candidates_section,
    figure_cell,
    how_mark,
    limits_section,
    parity_section,
    routes_section,
)
from edgekit.report.markup import Markup, bullets, element, join, lines, page, said, section, table, text
from edgekit.report.words import (
    HOW,
    OUTCOMES,
    basis,
    clean,
    headline,
    interval_text,
    latency_field,
    limit_label,
    next_commands,
    quality_name,
    quality_text,
    ratio_text,
    score_text,
    subject,
    threads_text,
    took,
    value_text,
)
from edgekit.result import BuildResult, Tried, as_json


def build_page(result: BuildResult) -> str:
    """The whole page as HTML text."""
    tried = subject(result)
    return page(
        f"{clean(result.task)} on {clean(result.target)}: {result.outcome}",
        _header(result),
        banner(result.outcome, headline(result), [quality_text(tried.quality)] if tried else [], basis(tried, result.profile)),
        _cards(result, tried),
        _warnings(result.warnings),
        limits_section(result),
        candidates_section(result),
        routes_section(result),
        parity_section(result),
        _recipe_section(result, tried),
        _figures_section(tried),
        _environment_section(result),
    )


def _header(result: BuildResult) -> Markup:
    under = [f"{clean(result.runtime)}, {threads_text(result.threads)}", f"profile {clean(result.profile)}"]
    under.append(f"built in {took(result.seconds)}" + (f" on {clean(result.machine)}" if result.machine else ""))
    return element(
        "header",
        element("p", text("edgekit build report"), class_="kicker"),
        element("h1", text(f"{clean(result.task)} on {clean(result.target)}")),
        element("p", text(" · ".join(under)), class_="under"),
    )


def banner(status: str, lead: str, *groups: Sequence[str]) -> Markup:
    """The outcome in one word and one sentence, and what to know about it."""
    kind = status.lower().replace(" ", "-")
    body = [element("p", said(lead), class_="lead")]
    body += [element("p", said(sentence)) for group in groups for sentence in group]
    word = element("div", text(status), class_=f"word {kind}")
    return element("div", word, element("div", *body), class_=f"banner {kind}", role="status")


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


def _cards(result: BuildResult, tried: Tried | None) -> Markup:
    if tried is None:
        return Markup("")
    plain = next((item for item in result.tried if item.name == "float32" and item is not tried), None)
    parts = []
    for name in (latency_field(result.budget, result.tried), "size_mb", "peak_memory_mb"):
        figure: Figure | None = getattr(tried.cost, name)
        against = _against(name, figure, getattr(plain.cost, name) if plain else None)
        more = interval_text(name, figure) or against
        parts.append(card(LABELS[name][0], value_text(name, figure), more, how_mark(figure)))
    drop = tried.cost.drop
    lost = f"{limit_label('drop', tried.quality)} {value_text('drop', drop)}" if drop else ""
    parts.append(card(quality_name(tried.quality), score_text(tried.quality), lost, how_mark(drop)))
    return element("div", *parts, class_="cards")


def _against(name: str, figure: Figure | None, plain: Figure | None) -> str:
    if figure is None or plain is None or figure.value <= 0:
        return ""
    better, worse = ("faster", "slower") if name.startswith("latency") else ("smaller", "larger")
    return f"{ratio_text(plain.value / figure.value, better, worse)} than float32"


def _warnings(warnings: Sequence[str]) -> Markup:
    return section("Warnings", bullets(warnings)) if warnings else Markup("")


def _recipe_section(result: BuildResult, tried: Tried | None) -> Markup:
    if tried is None:
        return Markup("")
    recipe = yaml.safe_dump(as_json(tried.recipe), sort_keys=False, allow_unicode=True)
    replay = f"edgekit build TASK --target {clean(result.target)} --recipe recipe.yaml"
    parts = [
        element("p", said("Save this as `recipe.yaml`:")),
        block(recipe),
        element("p", said("It is replayed without a search by (`TASK` is what this was built from):")),
        block(replay),
    ]
    commands = next_commands(result)
    if commands:
        parts += [element("p", text("Measure the bundle, and check it where it lies:")), block("\n".join(commands))]
    return section(f"Recipe of {clean(tried.name)}", *parts)


def block(content: str) -> Markup:
    """Text to copy."""
    return element("pre", element("code", lines(content)), tabindex=0)


def _figures_section(tried: Tried | None) -> Markup:
    rows = []
    if tried is not None:
        for cost, place in ((tried.cost, "the target"), (tried.here, "this machine")):
            for name, figure in cost.known():
                label = f"{limit_label(name, tried.quality)} on {place}" if "drop" not in name else limit_label(name, tried.quality)
                rows.append([text(label), figure_cell(name, figure), how_mark(figure), text(figure.source)])
    parts = [table("Every figure and its source", ("figure", "value", "how", "source"), rows)] if rows else []
    return section(
        "How each figure was got",
        *parts,
        element("h3", text("What the words mean")),
        _definitions({**HOW, **OUTCOMES}),
    )


def _definitions(words: dict[str, str]) -> Markup:
    pairs = [join([element("dt", text(word)), element("dd", text(meaning))]) for word, meaning in words.items()]
    return element("dl", *pairs)


def facts_table(caption: str, facts: Sequence[tuple[str, str]]) -> Markup:
    """Names and what they are."""
    rows = [[text(name), text(value)] for name, value in facts]
    return element("div", table(caption, ("what", "value"), rows), class_="facts")


def _environment_section(result: BuildResult) -> Markup:
    facts = [
        ("task", result.task),
        ("target", result.target),
        ("profile", result.profile),
        ("runtime", f"{result.runtime}, {threads_text(result.threads)}"),
        ("bundle", str(result.bundle) if result.bundle else "none was written"),
        ("machine of the build", result.machine or "unknown"),
        ("from the cache", ", ".join(result.reused) or "nothing"),
        *sorted(result.versions.items()),
    ]
    return section("Environment", facts_table("What made this bundle", facts))
