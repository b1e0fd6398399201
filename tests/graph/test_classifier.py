import numpy as np
import pytest
from networks import DsCnn, Encoder, PNet, Recurrent, Tagger, TinyCnn, calibrated, noise, task_of
from torch import nn

from edgekit.graph.classifier import is_classifier
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import run_onnx

POOLED = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
CASES = [
    (TinyCnn(), [noise(1, 1, 16, 16)], True),
    (nn.Sequential(calibrated(DsCnn(), 1, 49, 10), nn.Softmax(1)), [noise(1, 1, 49, 10)], True),
    (POOLED, [noise(1, 3, 16, 16)], False),
    (calibrated(Tagger(), 3, 32, 32), [noise(1, 3, 32, 32)], False),
    (Encoder(), [np.arange(12)[None]], False),
    (PNet(), [noise(1, 3, 24, 32)], False),
    (Recurrent(nn.GRU), [noise(1, 20, 16)], False),
]


@pytest.mark.parametrize(("network", "example", "expected"), CASES, ids=lambda case: type(case).__name__)
def test_scores_of_classes_are_told_from_features_labels_embeddings_and_maps(network, example, expected):
    task = task_of(network, example)
    model = float_graph(network, task, opset=20, ir_version=10)[0]
    outputs = run_onnx(model, [{"x": example[0]}])[0]
    assert is_classifier(model, outputs) is expected
