"""Which values XNNPACK's integer kernels take, for torch's export quantization (PT2E)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WEIGHT, BIAS = 1, 2  # their places among the arguments of a convolution or dense layer


def static_quantizer(*, least_error: bool = False) -> Any:
    """Int8 activations per tensor, int8 weights per channel.

    Args:
        least_error: an activation's range is not what was met but what a search in its histogram finds to
            round with the least squared error.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e import MinMaxObserver

    config = get_symmetric_quantization_config(is_per_channel=True)
    if not least_error:
        observer = MinMaxObserver.with_args(eps=2**-12)
        met = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
        config = replace(config, input_activation=met, output_activation=met)
    return XNNPACKQuantizer().set_global(config)


def dynamic_quantizer() -> Any:
    """Int8 weights per channel; activations are float, and rounded to int8 where they enter a product.

    ExecuTorch's own quantizer leaves out every convolution that a ReLU follows, which are most; XNNPACK's
    kernel has the ReLU as the range of its float output.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)

    class Dynamic(XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for node in model.graph.nodes:
                if _is_plain_conv(node) and Q_ANNOTATION_KEY not in node.meta:
                    specs = {node.args[0]: config.input_activation, node.args[1]: config.weight}
                    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                        input_qspec_map=specs, _annotated=True
                    )
            annotated: torch.fx.GraphModule = super().annotate(model)
            return annotated

    return Dynamic().set_global(config)


def _is_plain_conv(node: torch.fx.Node) -> bool:
    """Two-dimensional and not depthwise, which XNNPACK has no dynamic kernel for."""
    import torch

    if node.target not in (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding):
        return False
    weight = node.args[1].meta.get("val")  # type: ignore[union-attr]
    return weight is not None and weight.ndim == 4 and weight.shape[1] > 1


def own_each_weight(network: torch.fx.GraphModule) -> None:
    """Give each use of a layer's weights and bias its own copy, in place; equal ones are stored once.

    The integer bias is scaled by the layer's input; where one layer is used twice ExecuTorch 1.5 takes the
    first use's scale for both, and XNNPACK refuses the program.
    """
    import torch

    for node in list(network.graph.nodes):
        if node.op != "get_attr":
            continue
        users = [user for user in node.users if node in user.args[WEIGHT : BIAS + 1]]
        for index, user in enumerate(users[1:], start=1):
            name = f"{node.target}_{index}".replace(".", "_")
            value = network.get_parameter(str(node.target)).detach().clone()
            network.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
            with network.graph.inserting_before(user):
                copied = network.graph.get_attr(name)
            copied.meta = copy.copy(node.meta)
            user.replace_input_with(node, copied)
    network.recompile()
