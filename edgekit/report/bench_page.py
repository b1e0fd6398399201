"""The page of a benchmark: whose figures these are, the figures, and how to get them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.cost import Figure
from edgekit.errors import clean
from edgekit.report.bench_charts import histogram, timeline
from edgekit.report.bench_facts import facts_rows, machine_text
from edgekit.report.bench_sustained import latency_over_time, state_over_time, sustained_line
from edgekit.report.bench_words import (
    Standing,
    bench_cost,
    elsewhere_lines,
    memory_text,
    mismatch_lines,
    notes,
    protocol_lines,
    repeat_commands,
    runs_text,
    show_tail,
    stand,
    start_text,
    tail_text,
)
from edgekit.report.blocks import banner, block, card, cards, facts_table, header, how_mark, limits_table
from edgekit.report.markup import Markup, bullets, element, page, section, text
from edgekit.report.words import show_ms, value_text

Record = Mapping[str, Any]


def bench_page(result: Record, manifest: Record) -> str:
    """The whole page as HTML text.

    Args:
        result: what `run.py --bench` printed, as parsed JSON (schema "edgekit.bench/1").
        manifest: the bundle's manifest, as parsed JSON.
    """
    standing = stand(result, manifest)
    colour = None if standing.verdicts else "plain"
    return page(
        f"{_title(result, manifest)}: {standing.word}",
        _header(result, manifest),
        banner(standing.word, standing.lead, elsewhere_lines(result, manifest), kind=colour),
        _cards(result, manifest),
        _sentences("The device is not quite what the profile says", mismatch_lines(result, manifest)),
        _sentences("Warnings: something else shaped the timing", result["warnings"]),
        _budget_section(standing, manifest),
        _charts_section(result),
        _sentences("To know beside the figures", notes(result)),
        section("How it was measured", bullets(protocol_lines(result))),
        _repeat_section(result, manifest),
        section("Environment", facts_table("The machine and its state", facts_rows(result))),
    )


def _header(result: Record, manifest: Record) -> Markup:
    device = manifest["device"]
    under = (
        f"built for {clean(device['target'])}",
        f"{clean(manifest['runtime']['name'])} {clean(manifest['runtime']['version'])}",
        runs_text(result),
    )
    return header("edgekit bench report", _title(result, manifest), under)


def _title(result: Record, manifest: Record) -> str:
    return f"{clean(manifest['name'])} on {machine_text(result['facts'])}"


def _cards(result: Record, manifest: Record) -> Markup:
    cost, latency = bench_cost(result, manifest), result["latency"]
    span = f"from {show_ms(latency['min_ms'])} to {show_ms(latency['max_of_all_runs_ms'])}"
    parts = [
        _latency_card("p50", cost.latency_p50_ms, span),
        _latency_card("p90", cost.latency_p90_ms, tail_text("p90", latency)),
        _latency_card("p99", cost.latency_p99_ms, tail_text("p99", latency)),
        card("first call", show_ms(result["first_call_ms"]), start_text(result), Markup("")),
        card(
            "peak memory",
            value_text("peak_memory_mb", cost.peak_memory_mb),
            memory_text(result),
            how_mark(cost.peak_memory_mb),
        ),
    ]
    return cards(parts)


def _latency_card(percentile: str, figure: Figure | None, more: str) -> Markup:
    return card(f"latency {percentile}", show_tail(figure.value if figure else None), more, how_mark(figure))


def _sentences(title: str, items: Sequence[str]) -> Markup:
    return section(title, bullets(items)) if items else Markup("")


def _budget_section(standing: Standing, manifest: Record) -> Markup:
    if not standing.verdicts:
        return Markup("")
    caption = f"The limits that the bundle was built for, {clean(manifest['device']['target'])}"
    kind = (manifest["quality"] or {}).get("kind", "none")
    return section("Budget", limits_table(caption, standing.verdicts, str(kind)))


def _charts_section(result: Record) -> Markup:
    samples, latency = result["samples_ms"], result["latency"]
    marks = {name: latency[f"{name}_ms"] for name in ("p50", "p90", "p99")}
    title = "How often each latency came"
    often = _figure(title, histogram(samples, marks, label=title))
    if result.get("sustained"):
        return _sustained_section(result["sustained"], often)
    title = "Latency from the first run to the last"
    course = _figure(title, timeline(samples, label="Latency over the runs"))
    intro = "A steady run has one narrow hill and a level line; a second hill or a slope has a cause."
    return section("Every run", element("div", often, course, class_="charts"), intro=intro)


def _sustained_section(sustained: Record, often: Markup) -> Markup:
    drawings = {
        "Latency over time": latency_over_time(sustained, label="Latency over time"),
        "Temperature": state_over_time(sustained, "temperature_c", name="°C", label="Temperature over time"),
        "Clock": state_over_time(sustained, "clock_mhz", name="MHz", label="Clock over time"),
    }
    courses = element("div", *(_figure(title, drawing) for title, drawing in drawings.items() if drawing))
    line = sustained_line(sustained)
    meaning = (
        "In the first picture the line is the median of each window and the band reaches up to its p90; "
        "the second counts the runs that are judged."
    )
    parts = element("div", courses, often, class_="charts")
    return section("In the long run", parts, intro=f"{line[0].upper()}{line[1:]}. {meaning}")


def _figure(title: str, drawing: Markup) -> Markup:
    return element("figure", element("figcaption", text(title)), drawing)


def _repeat_section(result: Record, manifest: Record) -> Markup:
    where = "Beside the bundle's folder: the first line where edgekit is, the second on any device."
    return section("How to repeat it", element("p", text(where)), block(repeat_commands(result, manifest)))
