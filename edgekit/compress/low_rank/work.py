"""What a module costs at the shapes of its inputs: as the layers that the cost model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.graph.layers import Kind, Layer

if TYPE_CHECKING:
    import torch


def layers_of(module: torch.nn.Module, sample: torch.Tensor) -> list[Layer]:
    """The convolutions and linear layers that `module` runs on this input, in order, in float32."""
    import torch

    found: list[Layer] = []

    def note(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        weight = layer.weight
        found.append(
            Layer(
                name=f"{len(found)}",
                op="Conv" if weight.ndim > 2 else "Gemm",
                kind=_kind(layer),
                macs=output.numel() * weight[0].numel(),
                params=sum(p.numel() for p in layer.parameters()),
                input_elements=inputs[0].numel(),
                output_elements=output.numel(),
                precision="float32",
                channels=weight.shape[0],
            )
        )

    heavy = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    handles = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, heavy)]
    try:
        with torch.no_grad():
            module(sample)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _kind(layer: Any) -> Kind:
    if layer.weight.ndim == 2:
        return "gemm"
    if layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "grouped"
    return "pointwise" if set(layer.kernel_size) == {1} else "dense"
