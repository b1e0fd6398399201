import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modelfiles import refused

from edgekit.errors import BadInput
from edgekit.task.shape_option import DTYPES, ShapeOption, parse_shape, parse_shapes

WORDS = st.from_regex(r"[a-wyzA-Z_]{1,9}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "name", "sizes", "words", "dtype"),
    [
        ("1x3x32x32", None, (1, 3, 32, 32), {}, None),
        ("image=1x3x32x32", "image", (1, 3, 32, 32), {}, None),
        ("input:0=1x4", "input:0", (1, 4), {}, None),
        ("tokens=1x16:int64", "tokens", (1, 16), {}, "int64"),
        ("batchx3x32x32", None, (None, 3, 32, 32), {0: "batch"}, None),
        ("batch@1xtime@16", None, (1, 16), {0: "batch", 1: "time"}, None),
        ("1xmaxx3", None, (1, None, 3), {1: "max"}, None),
        ("sr=scalar:int64", "sr", (), {}, "int64"),
        ("7", None, (7,), {}, None),
    ],
)
def test_shapes_are_read_as_they_are_documented(text, name, sizes, words, dtype):
    assert parse_shape(text) == ShapeOption(name=name, sizes=sizes, words=words, dtype=dtype)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is not a shape"),
        ("=1x3", "is not a shape"),
        ("1,3,32,32", "`1,3,32,32` is not a size"),
        ("batchxtime@16", "`batchxtime` may be one axis or two; write `batch@1xtime` for two, or choose"),
        ("1xx3", "`` is not a size"),
        ("-1x3", "`-1` is not a size"),
        ("1x0x3", "a size is 0"),
        ("1x3:flot32", "unknown type `flot32`; did you mean `float32`?"),
        ("1x3:", "unknown type ``"),
        ("1x99999999999", "is not a size"),
        ("99999999x99999999", "has more than 1,000,000,000 elements"),
        ("image=", "is not a shape"),
        ("1x3x²", "is not a size"),
    ],
)
def test_other_texts_are_refused_in_one_line(text, line):
    with pytest.raises(BadInput) as caught:
        parse_shape(text)
    assert line in str(caught.value)


@given(st.text(max_size=30))
@example("1x3:" + "x" * 500)
@example("x\n1")
def test_any_text_is_a_shape_or_one_line(text):
    error = refused(lambda: parse_shape(text))
    assert error is None or "\n" not in str(error)
    assert error or all(size is None or size > 0 for size in parse_shape(text).sizes)


@given(
    st.lists(st.one_of(st.integers(1, 30), st.tuples(WORDS, st.integers(1, 30))), min_size=1, max_size=5),
    st.sampled_from([None, "image", "input.1"]),
    st.sampled_from([None, *DTYPES]),
)
def test_what_is_written_is_what_is_read(sizes, name, dtype):
    shown = "x".join(str(size) if isinstance(size, int) else f"{size[0]}@{size[1]}" for size in sizes)
    text = (f"{name}=" if name else "") + shown + (f":{dtype}" if dtype else "")
    option = parse_shape(text)
    assert option.sizes == tuple(size if isinstance(size, int) else size[1] for size in sizes)
    assert option.words == {axis: size[0] for axis, size in enumerate(sizes) if not isinstance(size, int)}
    assert (option.name, option.dtype) == (name, dtype)


def test_several_shapes_have_all_a_name_or_none():
    assert [option.name for option in parse_shapes(("a=1x2", "b=3"))] == ["a", "b"]
    for texts, line in ((("1x2", "b=3"), "some shapes have a name"), (("b=2", "b=3"), "`b` stands twice")):
        with pytest.raises(BadInput, match=line):
            parse_shapes(texts)
