"""From a torch module or an ONNX file to the float graph that every runtime's conversion is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from edgekit.errors import BadInput, first_line
from edgekit.graph.declared import declare_inputs, declare_outputs
from edgekit.graph.names import name_nodes
from edgekit.graph.prepare import own_outputs, prepare, random_node
from edgekit.runtimes.export import export

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import Task

LARGER = 1.1


def float_graph(
    network: torch.nn.Module | onnx.ModelProto, task: Task, *, opset: int, ir_version: int
) -> tuple[onnx.ModelProto, list[str]]:
    """The float ONNX graph of `network`, simplified, and what was done on the way.

    Args:
        network: the task's model or a compressed version of it; left as it was.
        task: gives the example call, the names and the dynamic axes.
        opset: the newest operator set that the target takes.
        ir_version: the newest IR version that it takes.

    Raises:
        BadInput: no exporter can convert it, an axis that was asked dynamic comes out fixed, or its outputs
            are random.
    """
    if isinstance(network, onnx.ModelProto):
        model, notes = prepare(network, opset=opset, ir_version=ir_version)
    else:
        exported, said = export(network, task, opset)
        model, notes = prepare(exported, opset=opset, ir_version=ir_version)
        name_nodes(model.graph)
        notes = said + notes
    if node := random_node(model.graph):
        raise BadInput(
            f"node `{node}` draws random numbers: equal inputs give different outputs",
            where=f"the model of {task.name}",
            todo="make the random numbers an input, or take them out of the network",
        )
    model = simplify(model, notes)
    own_outputs(model.graph)
    inputs = [(spec.name, spec.shape) for spec in task.inputs]
    declare_inputs(model, inputs)
    declare_outputs(model, inputs, task.example)
    return model, notes


def simplify(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """The graph with constants folded and dead nodes gone; `model` itself where that fails."""
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        slim: onnx.ModelProto = onnxslim.slim(copy)
        onnx.checker.check_model(slim)
    except Exception as error:  # noqa: BLE001 - the simplifier is a courtesy; the graph is right without it
        notes.append(f"not simplified: {first_line(error)}")
        return model
    if slim.ByteSize() > LARGER * model.ByteSize():
        # It copies weights that several nodes share into each branch of an If.
        notes.append("not simplified: the simplifier made it larger")
        return model
    if _interface(slim) != _interface(model):
        notes.append("not simplified: the simplifier changed the inputs or outputs")
        return model
    del slim.graph.value_info[:]
    slim.ir_version = model.ir_version
    return slim


def _interface(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in (*model.graph.input, *model.graph.output)]
