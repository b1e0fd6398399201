import numpy as np
import onnx
import pytest
from networks import noise
from onnx import numpy_helper

from edgekit.graph.gemms import plain_gemms, split_gemms
from edgekit.verify import run_onnx


def gemm(attributes="", bias=True, weight=True):
    text = (
        '<ir_version: 9, opset_import: ["": 17]> g (float[3,4] x) => (float[3,4] y) '
        f"{{ y = Gemm{attributes}(x, w{', b' if bias else ''}) }}"
    )
    model = onnx.parser.parse_model(text)
    model.graph.node[0].name = "dense"
    model.graph.initializer.append(numpy_helper.from_array(noise(4, 4), "w"))
    if bias:
        model.graph.initializer.append(numpy_helper.from_array(noise(4, seed=1), "b"))
    return model


@pytest.mark.parametrize("attributes", ["", "<transB=1>"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_a_sum_give_the_same(attributes, bias):
    model = gemm(attributes, bias)
    before = model.SerializeToString()
    split = split_gemms(model, plain_gemms(model))
    assert [node.op_type for node in split.graph.node] == ["MatMul", "Add"][: 1 + bias]
    assert split.graph.node[0].name == "dense"
    assert {tensor.name for tensor in split.graph.initializer} <= {"dense_factor", "b"}
    assert model.SerializeToString() == before
    calls = [{"x": noise(3, 4)}]
    assert np.allclose(run_onnx(model, calls)[0][0], run_onnx(split, calls)[0][0], atol=1e-6)


@pytest.mark.parametrize("attributes", ["<alpha=2.0>", "<beta=0.5>", "<transA=1>"])
def test_one_that_does_more_is_left_alone(attributes):
    assert plain_gemms(gemm(attributes)) == []
