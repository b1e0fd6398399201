import json

import pytest
from bundles import packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle.manifest import confine, parse_manifest, read_manifest, write_manifest
from edgekit.errors import BadInput


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = packed(tmp_path_factory.mktemp("sound") / "tiny")
    return json.loads((folder / "manifest.json").read_text())


def parse(data):
    return parse_manifest(json.dumps(data).encode(), "manifest.json")


def refuse(data, match):
    with pytest.raises(BadInput, match=match) as caught:
        parse(data)
    assert str(caught.value).isprintable()


def test_a_manifest_comes_back_as_it_was_written(bundle):
    content = (bundle / "manifest.json").read_bytes()
    assert write_manifest(parse_manifest(content, "x")) == content


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[1]", b'"x"', b"null", b"{}", b'{"schema": "other"}']
)
def test_what_is_no_manifest_is_refused(content):
    with pytest.raises(BadInput):
        parse_manifest(content, "manifest.json")


def test_a_manifest_of_a_later_schema_says_what_to_do(sound):
    refuse({**sound, "schema": "edgekit.bundle/2"}, "use the edgekit that made it")


def test_too_much_too_deep_and_twice_are_refused(sound):
    for content in (
        b" " * 4_000_001,
        b"[" * 1_000_000,
        b'{"schema": "edgekit.bundle/1", "recipe": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema": "edgekit.bundle/1", "schema": "edgekit.bundle/1"}',
        json.dumps(sound).replace('"min_snr_db": ', '"min_snr_db": 1e999, "x": ').encode(),
        json.dumps({**sound, "recipe": {"x": float("nan")}}).encode(),
    ):
        with pytest.raises(BadInput):
            parse_manifest(content, "manifest.json")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../b", "a\\b", "C:x", "", ".", "a//b", "a\x00b", "n" * 300]
)
def test_files_outside_the_bundle_cannot_be_listed(sound, path):
    refuse({**sound, "files": {**sound["files"], path: sound["files"]["model.onnx"]}}, "files")
    refuse({**sound, "artifact": path}, "artifact")


@pytest.mark.parametrize("field", ["name", "artifact", "inputs", "golden", "files", "budget", "quality"])
def test_a_missing_field_is_named(sound, field):
    refuse({key: value for key, value in sound.items() if key != field}, field)


def test_an_unknown_field_is_named(sound):
    refuse({**sound, "surprise": 1}, "surprise")


def test_the_artifact_and_the_golden_samples_must_be_listed(sound):
    refuse({**sound, "artifact": "other.onnx"}, r"`other\.onnx` is not among the files")


def test_a_cost_must_be_a_cost(sound):
    refuse({**sound, "cost": {"latency_p90_ms": {"value": "fast", "how": "measured", "source": "x"}}}, "cost")
    refuse({**sound, "budget": {"beauty": {"value": 1.0, "how": "limit", "source": "x"}}}, "budget")


def test_text_that_could_move_a_terminals_cursor_is_refused(sound):
    refuse({**sound, "name": "a\x1b[2Jb"}, "control characters")
    device = {**sound["device"], "target": "rpi4\nroot:"}
    refuse({**sound, "device": device}, "control characters")


def test_control_characters_are_refused_in_the_free_parts_too(sound):
    refuse({**sound, "recipe": {"steps": [{"step": "a\x1b[2J"}]}}, "control characters")
    refuse({**sound, "quality": {"kind\x07": 1}}, "control characters")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=3)
    ),
    max_leaves=8,
)


def places(data, path=()):
    """The path of every value in JSON data."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_manifest_with_anything_in_it_is_refused_in_one_line_or_read(sound, data):
    changed = json.loads(json.dumps(sound))
    path = data.draw(st.sampled_from(list(places(sound))[1:]))
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(JSON)
    try:
        manifest = parse(changed)
    except BadInput as error:
        assert str(error).isprintable()  # noqa: PT017 - refused or read, both are right
    else:
        assert parse_manifest(write_manifest(manifest), "again") == manifest


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(content):
    with pytest.raises(BadInput) as caught:
        parse_manifest(content, "manifest.json")
    assert str(caught.value).isprintable()


def test_what_is_no_bundle_folder_is_refused(bundle, tmp_path):
    with pytest.raises(BadInput, match="no such bundle"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(BadInput, match="is a file"):
        read_manifest(bundle / "run.py")
    with pytest.raises(BadInput, match="not a bundle: it has no"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_link_or_a_pipe_is_not_opened(bundle, tmp_path):
    manifest = (bundle / "manifest.json").rename(tmp_path / "m")
    (bundle / "manifest.json").symlink_to(manifest)
    with pytest.raises(BadInput, match="not a plain file"):
        read_manifest(bundle)


def test_a_path_is_followed_through_no_link(bundle, tmp_path):
    assert confine(bundle, "runner/check.py") == bundle / "runner" / "check.py"
    (bundle / "runner").rename(tmp_path / "runner")
    (bundle / "runner").symlink_to(tmp_path / "runner")
    with pytest.raises(BadInput, match="link"):
        confine(bundle, "runner/check.py")
