"""The part of a build's page that shows what the shipped recipe's steps did, layer by layer."""

from __future__ import annotations

from edgekit.errors import clean
from edgekit.report.markup import Markup, bullets, element, section, table, text
from edgekit.report.steps_terminal import change_cells, step_line
from edgekit.result import StepReport, Tried

HEADS = ("layer", "what it is now", "parameters", "M MACs", "error of its outputs")


def steps_section(tried: Tried) -> Markup:
    """What each network step did; nothing where there was none."""
    if not tried.steps:
        return Markup("")
    parts = [part for report in tried.steps for part in _parts(report)]
    return section(f"What the steps of {clean(tried.name)} did", *parts)


def _parts(report: StepReport) -> list[Markup]:
    rows = [[text(cell) for cell in change_cells(change)] for change in report.changes]
    found = [table(step_line(report), HEADS, rows)] if rows else [element("p", text(step_line(report)))]
    return [*found, bullets([clean(note) for note in report.notes])] if report.notes else found
