"""The page of a build: the outcome, what it rests on, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from edgekit.cost import LABELS, OUTCOMES, Figure
from edgekit.errors import clean, count
from edgekit.report.blocks import (
    banner,
    block,
    card,
    cards,
    definitions,
    facts_table,
    figure_cell,
    header,
    how_mark,
)
from edgekit.report.build_sections import (
    candidates_section,
    limits_section,
    parity_section,
    routes_section,
    runtimes_section,
)
from edgekit.report.markup import Markup, bullets, element, page, said, section, table, text
from edgekit.report.sentences import basis, headline, here_lines, next_commands, subject
from edgekit.report.steps_section import steps_section
from edgekit.report.words import (
    HOW,
    beside_float,
    interval_text,
    latency_field,
    limit_label,
    quality_kind,
    quality_name,
    quality_text,
    runtime_text,
    score_text,
    took,
    value_text,
)
from edgekit.result import BuildResult, Tried, as_json


def build_page(result: BuildResult) -> str:
    """The whole page as HTML text."""
    tried = subject(result)
    return page(
        f"{_title(result)}: {result.outcome}",
        _header(result),
        banner(result.outcome, headline(result), _under_the_headline(result, tried)),
        _cards(result, tried),
        _sentences("Warnings", result.warnings),
        _sentences("Notes", result.notes),
        limits_section(result),
        runtimes_section(result),
        candidates_section(result),
        steps_section(tried),
        routes_section(result),
        parity_section(result),
        _recipe_section(result, tried),
        _figures_section(tried),
        _environment_section(result),
    )


def _header(result: BuildResult) -> Markup:
    machine = f" on {clean(result.machine)}" if result.machine else ""
    under = (
        f"{runtime_text(result.runtime)}, {count(result.threads, 'thread')}",
        f"profile {clean(result.profile)}",
        f"built in {took(result.seconds)}{machine}",
    )
    return header("edgekit build report", _title(result), under)


def _title(result: BuildResult) -> str:
    return f"{clean(result.task)} on {clean(result.target)}"


def _under_the_headline(result: BuildResult, tried: Tried) -> list[str]:
    return [quality_text(tried.quality), *basis(result), *here_lines(tried)]


def _cards(result: BuildResult, tried: Tried) -> Markup:
    plain = next((item for item in result.tried if item.name == "float32" and item is not tried), None)
    parts = []
    for name in (
        latency_field(result.budget, [item.cost for item in result.tried]),
        "size_mb",
        "peak_memory_mb",
    ):
        figure: Figure | None = getattr(tried.cost, name)
        against = _against(name, figure, getattr(plain.cost, name) if plain else None)
        more = interval_text(name, figure) or against
        parts.append(card(LABELS[name][0], value_text(name, figure), more, how_mark(figure)))
    drop = tried.cost.drop
    lost = f"{limit_label('drop', quality_kind(tried))} {value_text('drop', drop)}" if drop else ""
    parts.append(card(quality_name(tried.quality), score_text(tried.quality), lost, how_mark(drop)))
    return cards(parts)


def _against(name: str, figure: Figure | None, plain: Figure | None) -> str:
    if figure is None or plain is None or figure.value <= 0:
        return ""
    better, worse = ("faster", "slower") if name.startswith("latency") else ("smaller", "larger")
    return beside_float(plain.value / figure.value, better, worse)


def _sentences(title: str, sentences: Sequence[str]) -> Markup:
    return section(title, bullets(sentences)) if sentences else Markup("")


def _recipe_section(result: BuildResult, tried: Tried) -> Markup:
    recipe = yaml.safe_dump(as_json(tried.recipe), sort_keys=False, allow_unicode=True)
    replay = f"edgekit build TASK --target {clean(result.target)} --recipe recipe.yaml"
    parts = [
        element("p", said("Save this as `recipe.yaml`:")),
        block(recipe),
        element("p", said("It is replayed without a search by (`TASK` is what this was built from):")),
        block(replay),
    ]
    parts += [
        element("p", text("Measure the bundle, and check it where it lies:")),
        block("\n".join(next_commands(result))),
    ]
    return section(f"Recipe of {clean(tried.name)}", *parts)


def _figures_section(tried: Tried) -> Markup:
    rows = [
        [text(_label(name, place, tried)), figure_cell(name, figure), how_mark(figure), text(figure.source)]
        for cost, place in ((tried.cost, "the target"), (tried.here, "this machine"))
        for name, figure in cost.known()
    ]
    return section(
        "How each figure was got",
        table("Every figure and its source", ("figure", "value", "how", "source"), rows),
        element("h3", text("What the words mean")),
        definitions({**HOW, **{str(status): meaning for status, meaning in OUTCOMES.items()}}),
    )


def _label(name: str, place: str, tried: Tried) -> str:
    label = limit_label(name, quality_kind(tried))
    return label if "drop" in name else f"{label} on {place}"


def _environment_section(result: BuildResult) -> Markup:
    facts = [
        ("task", result.task),
        ("target", result.target),
        ("profile", result.profile),
        ("runtime", f"{runtime_text(result.runtime)}, {count(result.threads, 'thread')}"),
        ("bundle", str(result.bundle)),
        ("machine of the build", result.machine or "unknown"),
        ("from the cache", ", ".join(result.reused) or "nothing"),
        *sorted(result.versions.items()),
    ]
    return section("Environment", facts_table("What made this bundle", facts))
