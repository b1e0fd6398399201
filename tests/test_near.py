from edgekit.near import nearest


def test_the_near_miss_is_named_whatever_its_case():
    assert nearest("RPI", ["rpi4", "x86-cpu"]) == "did you mean `rpi4`?"
    assert nearest("latencyy_p90_ms", ["latency_p90_ms", "drop"]) == "did you mean `latency_p90_ms`?"


def test_words_that_are_as_near_are_all_named():
    assert nearest("rpi", ["rpi3", "rpi4", "x86-cpu"]) == "did you mean `rpi4` or `rpi3`?"
    assert nearest("cores_", ["cores", "core"]) == "did you mean `cores`?"


def test_a_word_near_to_nothing_gets_no_advice():
    assert nearest("zebra", ["rpi4", "x86-cpu"]) is None
