from edgekit.errors import first_line


def test_of_a_text_that_is_a_traceback_the_last_line_is_told():
    script = "It failed in TorchScript.\nTraceback (most recent call last):\n  here\nValueError: no"
    assert first_line(RuntimeError(script)) == "ValueError: no"
    assert first_line(RuntimeError("first\nsecond")) == "first"
    assert first_line(RuntimeError("")) == "RuntimeError"
