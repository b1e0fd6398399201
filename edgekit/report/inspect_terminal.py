"""What `edgekit inspect` shows on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.errors import clean
from edgekit.graph.layers import Layer
from edgekit.inspection import Inspection
from edgekit.report.terminal_tables import LAYERS_SHOWN


def print_inspection(found: Inspection, console: Console, *, all_layers: bool) -> None:
    """Print the network's numbers, then its layers, largest first unless all are wanted in order."""
    console.print(Text(clean(found.name), style="bold"))
    for kind, values in (("input", found.inputs), ("output", found.outputs)):
        for name, shape, dtype in values:
            console.print(Text(f"{kind} {clean(name)}: {dtype}[{', '.join(map(str, shape))}]"))
    _print_numbers(found, console)
    for name, value in found.facts.items():
        console.print(Text(f"{name}: {clean(value)}", style="dim"), overflow="fold")
    console.print()
    if not found.layers:
        console.print(
            "its layers are not listed: the artifact is no ONNX file; inspect what it was built from"
        )
        return
    shown = list(found.layers) if all_layers else largest(found.layers)
    console.print(_table(shown, found.macs or 0))
    if len(shown) < len(found.layers):
        console.print(
            Text(f"{len(found.layers) - len(shown)} smaller layers are not shown; --all lists them")
        )


def _print_numbers(found: Inspection, console: Console) -> None:
    if found.params is None or found.weight_bytes is None:
        return
    console.print(
        f"{found.params:,} parameters, {found.weight_bytes / 1e6:.2f} MB of weights"
        + (", quantized" if found.quantized else "")
    )
    console.print(
        f"{(found.macs or 0) / 1e6:.1f} M multiply-accumulates a call, "
        f"activations at most {(found.activation_peak_bytes or 0) / 1e6:.2f} MB at once"
    )


def largest(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with the most work; among equals those that write most."""
    return sorted(layers, key=lambda layer: (layer.macs, layer.output_elements), reverse=True)[:LAYERS_SHOWN]


def _table(layers: Sequence[Layer], macs: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for head in ("layer", "op", "kind", "precision", "M MACs", "share", "params", "output"):
        table.add_column(
            head, overflow="fold", justify="left" if head in ("layer", "op", "kind") else "right"
        )
    for layer in layers:
        table.add_row(
            Text(clean(layer.name)),
            Text(clean(layer.op)),
            layer.kind,
            layer.precision,
            f"{layer.macs / 1e6:.2f}",
            f"{layer.macs / macs:.1%}" if macs else "-",
            f"{layer.params:,}",
            f"{layer.output_elements:,}",
        )
    return table
