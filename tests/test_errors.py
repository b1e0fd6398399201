from edgekit.errors import clean, count, first_line


def test_of_a_text_that_is_a_traceback_the_last_line_is_told():
    script = "It failed in TorchScript.\nTraceback (most recent call last):\n  here\nValueError: no"
    assert first_line(RuntimeError(script)) == "ValueError: no"
    assert first_line(RuntimeError("first\nsecond")) == "first"
    assert first_line(RuntimeError("")) == "RuntimeError"


def test_a_line_is_printable_and_no_longer_than_asked():
    assert clean("a\n b\x1b[31m") == "a b\ufffd[31m"
    assert clean("x" * 50, 40) == "x" * 37 + "..."
    assert clean("x" * 40, 40) == "x" * 40
    assert first_line(RuntimeError("y\x07" * 200), 10) == "y\ufffd" * 3 + "y..."


def test_a_noun_has_its_number():
    assert [count(number, "core") for number in (0, 1, 4)] == ["0 cores", "1 core", "4 cores"]
