"""The parts of a build's page: limits, candidates, routes, parity."""

from __future__ import annotations

import math

from edgekit.cost import LABELS
from edgekit.errors import clean, count
from edgekit.report.blocks import figure_cell, limits_table, verdict_mark
from edgekit.report.charts import Point, ratio_bar, scatter
from edgekit.report.markup import Markup, bullets, element, join, said, section, table, text
from edgekit.report.sentences import here_text, standing, subject
from edgekit.report.words import (
    UNKNOWN,
    decibel_text,
    latency_field,
    quality_kind,
    quality_word,
    ratio_text,
    runtime_text,
    score_text,
    value_text,
)
from edgekit.result import BuildResult, Parity, Rival, Route, Tried


def limits_section(result: BuildResult) -> Markup:
    """Each limit as a bar of the figure against it."""
    tried = subject(result)
    if not any(result.budget.known()):
        return section("Budget", element("p", text("No limit was named.")))
    intro = (
        "The upright line is the limit. Whiskers are the interval of a prediction; a hatched bar is not "
        "decided: measure on the device."
    )
    caption = f"How {clean(tried.name)} stands against the budget"
    bars = limits_table(caption, standing(tried, result.budget), quality_kind(tried))
    give = [element("h3", text("To meet the budget")), bullets(result.relax)] if result.relax else []
    return section("Budget", bars, *give, intro=intro)


def candidates_section(result: BuildResult) -> Markup:
    """All candidates: two charts and a table, which share their numbers."""
    latency = latency_field(result.budget, [tried.cost for tried in result.tried])
    charts = element(
        "div", _scatter(result, "size_mb", "MB"), _scatter(result, latency, "ms"), class_="charts"
    )
    kind = next((tried.quality.kind for tried in result.tried if tried.quality), "none")
    quality = quality_word(kind)
    heads = ["candidate", "outcome", "size", LABELS[latency][0], "peak memory", quality, "drop", "why"]
    rows = [_candidate_row(result, number, latency) for number in range(len(result.tried))]
    intro = "Left and below is better. The ring marks the candidate in the bundle."
    caption = "Every candidate with its cost on the target"
    return section("Candidates", charts, table(caption, heads, rows), intro=intro)


def _scatter(result: BuildResult, name: str, unit: str) -> Markup:
    points = []
    for number, tried in enumerate(result.tried):
        figure, drop = getattr(tried.cost, name), tried.cost.drop
        known = ", ".join([value_text(name, figure), f"drop {value_text('drop', drop)}"])
        points.append(
            Point(
                x=figure.value if figure else None,
                y=drop.value * 100 if drop else None,
                x_low=figure.low if figure else None,
                x_high=figure.high if figure else None,
                mark=str(number + 1),
                name=f"{clean(tried.name)}: {known}",
                status=tried.outcome or "",
                shipped=number == result.shipped,
            )
        )
    x_limit, y_limit = getattr(result.budget, name), result.budget.drop
    title = f"Quality drop over {LABELS[name][0]}"
    drawing = scatter(
        points,
        label=f"{title}: {'; '.join(point.name for point in points)}",
        x_label=f"{LABELS[name][0]}, {unit}",
        y_label="drop, %",
        x_limit=x_limit.value if x_limit else None,
        y_limit=y_limit.value * 100 if y_limit else None,
    )
    return element("figure", element("figcaption", text(title)), drawing)


def _candidate_row(result: BuildResult, number: int, latency: str) -> list[Markup]:
    tried = result.tried[number]
    names = ("size_mb", latency, "peak_memory_mb")
    reason = [element("span", said(tried.reason))]
    if here := here_text(tried):
        reason.append(element("span", text(f"on this machine: {here}"), class_="sub"))
    return [
        join([element("span", text(number + 1), class_="number"), text(tried.name)]),
        _outcome(tried, shipped=number == result.shipped),
        *(figure_cell(name, getattr(tried.cost, name)) for name in names),
        text(score_text(tried.quality)),
        figure_cell("drop", tried.cost.drop),
        element("div", *reason, class_="reason"),
    ]


def _outcome(tried: Tried, *, shipped: bool) -> Markup:
    if not tried.realised or tried.outcome is None:
        return element("span", text("not built"), class_="sub")
    mark = verdict_mark(tried.outcome)
    word = element("span", text("shipped"), class_="shipped")
    return join([mark, element("br"), word]) if shipped else mark


def runtimes_section(result: BuildResult) -> Markup:
    """The float network in each of the target's runtimes; nothing where there was one only."""
    if len(result.runtimes) < 2:
        return Markup("")
    latency = latency_field(result.budget, [rival.cost for rival in result.runtimes])
    heads = ("runtime", "chosen", LABELS[latency][0], "time", "peak memory", "size", "parity", "why")
    intro = "The network as it is, uncompressed, in each runtime. The time is that over the chosen one's."
    rows = [_runtime_row(rival, latency) for rival in result.runtimes]
    return section("Runtimes", table("The runtimes of the target", heads, rows), intro=intro)


def _runtime_row(rival: Rival, latency: str) -> list[Markup]:
    threads = "" if rival.threads is None else f", {count(rival.threads, 'thread')}"
    parity = UNKNOWN if rival.parity is None else decibel_text(rival.parity.snr_db)
    return [
        text(f"{runtime_text(rival.runtime)}{threads}"),
        element("span", text("chosen"), class_="shipped") if rival.chosen else text("no"),
        figure_cell(latency, getattr(rival.cost, latency)),
        text(UNKNOWN if rival.ratio is None else f"{rival.ratio:.2f}x"),
        figure_cell("peak_memory_mb", rival.cost.peak_memory_mb),
        figure_cell("size_mb", rival.cost.size_mb),
        text(parity if rival.runtime != "onnxruntime" else "the reference"),
        element("div", said(rival.reason), class_="reason"),
    ]


def routes_section(result: BuildResult) -> Markup:
    """The ways of quantizing that were tried, with what each gave; nothing when there was none."""
    tables = [_routes_table(tried) for tried in result.tried if tried.routes]
    if not tables:
        return Markup("")
    intro = (
        "Several ways of doing the same step, measured on this network against the float32 model in one "
        "alternating run on this machine, 1 thread. The line is 1: to its right is better."
    )
    return section("Quantization routes", *tables, intro=intro)


def _routes_table(tried: Tried) -> Markup:
    heads = ("route", "speed", "size", "drop", "layers left in float", "kept", "why")
    return table(f"Routes of {clean(tried.name)}", heads, [_route_row(route) for route in tried.routes])


def _route_row(route: Route) -> list[Markup]:
    speed = ratio_text(route.latency_ratio, "faster", "slower")
    size = ratio_text(route.size_ratio, "smaller", "larger")
    drop = UNKNOWN if route.drop is None else f"{route.drop * 100:.2f} %"
    return [
        text(route.name),
        element("div", text(speed), ratio_bar(route.latency_ratio, f"{clean(route.name)}: {speed}")),
        element("div", text(size), ratio_bar(route.size_ratio, f"{clean(route.name)}: {size}")),
        element("span", text(drop), class_="figures"),
        text(UNKNOWN if route.left_in_float is None else route.left_in_float),
        element("span", text("kept"), class_="shipped") if route.chosen else text("no"),
        element("div", said(route.reason), class_="reason"),
    ]


def parity_section(result: BuildResult) -> Markup:
    """How close each stage's outputs are to those of the stage before."""
    heads = ("stage", "signal to noise", "at least", "largest difference", "same top-1", "verdict")
    tables = [
        table(f"Stages of {clean(tried.name)}", heads, [_parity_row(parity) for parity in tried.parities])
        for tried in result.tried
        if tried.parities
    ]
    if not tables:
        return Markup("")
    intro = "After each conversion the outputs are compared with those of the stage before, on real inputs."
    return section("Parity of each stage", *tables, intro=intro)


def _parity_row(parity: Parity) -> list[Markup]:
    agrees = parity.snr_db >= parity.floor_db
    verdict = element(
        "span", text("agrees" if agrees else "diverges"), class_=f"verdict {'met' if agrees else 'not-met'}"
    )
    return [
        text(parity.stage),
        text(decibel_text(parity.snr_db)),
        text(decibel_text(parity.floor_db)),
        text(f"{parity.max_abs:.3g}" if math.isfinite(parity.max_abs) else UNKNOWN),
        text("does not apply" if parity.top1 is None else f"{parity.top1 * 100:.2f} %"),
        verdict,
    ]
