import numpy as np
import pytest
from networks import noise
from onnx import numpy_helper, parser

from edgekit.graph.layers import describe
from edgekit.graph.unfold import unfold
from edgekit.signal import snr_db
from edgekit.verify import run_onnx

BRANCHES = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,8] x, bool small) => (float[1,8] y, float[1,4] z) {
  y, z = If (small) <
    then_branch = small_body () => (float[1,8] o, float[1,4] p) {
      h = MatMul(x, w) o = Relu(h) p = MatMul(h, v)
    },
    else_branch = large_body () => (float[1,8] o, float[1,4] p) {
      o = If (small) <
        then_branch = never () => (float[1,8] i) { i = Neg(x) },
        else_branch = always () => (float[1,8] i) { h = MatMul(x, w) i = MatMul(h, w) }
      >
      p = MatMul(o, v)
    }
  >
}"""


@pytest.fixture
def branching():
    """Two branches that give their values equal names; the second one branches again."""
    model = parser.parse_model(BRANCHES)
    body = model.graph.node[0].attribute[1].g
    model.graph.initializer.append(numpy_helper.from_array(noise(8, 8), "w"))
    model.graph.initializer.append(numpy_helper.from_array(noise(8, 4), "v"))
    assert body.node
    return model


@pytest.mark.parametrize(("small", "products"), [(True, 2), (False, 3)])
def test_the_branch_that_a_call_takes_is_put_into_the_graph(branching, small, products):
    call = {"x": noise(1, 8), "small": np.array(small)}
    flat = unfold(branching, call)
    operators = [node.op_type for node in flat.graph.node]
    assert "If" not in operators
    assert operators.count("MatMul") == products
    for before, after in zip(run_onnx(branching, [call])[0], run_onnx(flat, [call])[0], strict=True):
        assert snr_db([before], [after]) > 100


def test_the_work_inside_of_a_branch_is_described(branching):
    call = {"x": noise(1, 8), "small": np.array(True)}
    assert describe(branching, call).macs == 8 * 8 + 8 * 4
    assert describe(branching, {**call, "small": np.array(False)}).macs == 2 * 8 * 8 + 8 * 4


def test_a_weight_inside_of_a_branch_is_the_branchs_own():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,8] x, bool c) => (float[1,8] y) {'
        " y = If (c) < then_branch = a () => (float[1,8] o) { o = MatMul(x, k) },"
        " else_branch = b () => (float[1,8] o) { o = MatMul(x, k) } > }"
    )
    for seed, attribute in enumerate(model.graph.node[0].attribute):
        attribute.g.initializer.append(numpy_helper.from_array(noise(8, 8, seed=seed), "k"))
    for condition in (True, False):
        call = {"x": noise(1, 8), "c": np.array(condition)}
        flat = unfold(model, call)
        assert snr_db(*(run_onnx(each, [call])[0] for each in (model, flat))) > 100
        assert [layer.params for layer in describe(model, call).layers if layer.macs] == [64]
