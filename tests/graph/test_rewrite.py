import numpy as np
import pytest
from networks import noise
from onnx import numpy_helper, parser

from edgekit.compress.quantization.int8_onnxruntime import preprocessed, quantize_dynamic, quantize_static
from edgekit.compress.quantization.settings import Settings
from edgekit.graph.fusion import count_float_nodes, count_integer_nodes, optimised, use_uint8_activations
from edgekit.graph.rewrite import (
    drop_unused_domains,
    drop_unused_weights,
    join_inputs,
    stand_off_inputs,
    transpose_gemms,
)
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


@pytest.fixture
def tied():
    """Two layers that share one square weight, as tied or freshly copied layers do."""
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]> g (float[1,32] x) => (float[1,32] y) '
        "{ a = Gemm<transB = 1>(x, w) b = Relu(a) y = Gemm<transB = 1>(b, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(noise(32, 32), "w"))
    return model


CALLS = [{"x": noise(1, 32, seed=seed)} for seed in range(4)]


def outputs(model):
    return [arrays[0] for arrays in run_onnx(model, CALLS)]


def test_transposed_gemms_compute_the_same(tied):
    turned = transpose_gemms(tied)
    assert snr_db(outputs(tied), outputs(turned)) > 100
    assert len(turned.graph.initializer) == 2
    assert not any(a.i for node in turned.graph.node for a in node.attribute if a.name == "transB")


def test_a_weight_that_two_layers_share_survives_dynamic_quantization(tied):
    quantized = quantize_dynamic(tied, reduce_range=False)
    assert count_integer_nodes(optimised(quantized)) > 0
    assert snr_db(outputs(tied), outputs(quantized)) > 25


def test_identities_before_the_inputs_come_and_go(tied):
    apart = stand_off_inputs(tied)
    assert [node.op_type for node in apart.graph.node] == ["Identity", "Gemm", "Relu", "Gemm"]
    assert snr_db(outputs(tied), outputs(apart)) > 100
    assert join_inputs(apart).SerializeToString() == tied.SerializeToString()


def test_weights_that_nothing_reads_go(tied):
    tied.graph.initializer.append(numpy_helper.from_array(noise(3), "spare"))
    drop_unused_weights(tied.graph)
    assert [tensor.name for tensor in tied.graph.initializer] == ["w"]


SIGNED = """
<ir_version: 9, opset_import: ["": 17]> g (float[1,8,6,6] x) => (float[1,8,6,6] y)
<float one = {0.05}, int8 z = {7}, int8 none = {0}> {
  a = QuantizeLinear(x, one, z) b = DequantizeLinear(a, one, z)
  c = DequantizeLinear(w, one, none) d = Conv<pads = [1, 1, 1, 1]>(b, c)
  e = QuantizeLinear(d, one, z) y = DequantizeLinear(e, one, z)
}
"""


def test_unsigned_activations_give_the_same_numbers_and_fuse():
    signed = parser.parse_model(SIGNED)
    weights = np.random.default_rng(0).integers(-9, 9, (8, 8, 3, 3), np.int8)
    signed.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    unsigned = use_uint8_activations(signed)
    calls = [{"x": noise(1, 8, 6, 6)}]
    before, after = (run_onnx(model, calls, optimise=False)[0][0] for model in (signed, unsigned))
    assert np.array_equal(before, after)
    assert count_float_nodes(optimised(unsigned)) == 0
    assert count_integer_nodes(optimised(unsigned)) == 1


def test_only_operator_sets_that_are_used_are_declared(tied):
    static = quantize_static(preprocessed(tied), CALLS, Settings(), reduce_range=False)
    assert len(static.opset_import) > 1, "onnxruntime declares all that it knows"
    drop_unused_domains(static)
    assert [entry.domain for entry in static.opset_import] == [""]
    assert snr_db(outputs(tied), outputs(static)) > 20
