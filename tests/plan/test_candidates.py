from edgekit.plan.candidates import Offer, candidates
from edgekit.target import load_target


def names(**offer):
    return [one.name for one in candidates(load_target("rpi4"), Offer(**{"quantized": False, **offer}))]


def test_each_narrower_network_is_tried_in_float_before_int8():
    assert names(quantizable=True, prunable=True) == [
        "float32",
        "int8",
        "pruned to 70%",
        "pruned to 70% + int8",
        "pruned to 50%",
        "pruned to 50% + int8",
        "pruned to 35%",
        "pruned to 35% + int8",
    ]


def test_what_the_task_does_not_allow_is_not_tried():
    assert names(quantizable=True, prunable=False) == ["float32", "int8"]
    assert names(quantizable=False, prunable=True)[1:] == ["pruned to 70%", "pruned to 50%", "pruned to 35%"]
    assert names(quantizable=False, prunable=False, quantized=True) == ["as given"]
