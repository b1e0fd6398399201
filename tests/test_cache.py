import json
import os
import threading
import time

import pytest

import edgekit.cache
from edgekit.cache import Cache
from edgekit.errors import OutsideFailure

KEY = {"input": "a digest", "parameters": [1, 2]}


def write(text):
    return lambda folder: (folder / "result").write_text(text)


def test_a_finished_stage_is_found_again_by_its_title_and_key(tmp_path):
    made = Cache(tmp_path).make("convert", KEY, write("one"))
    again = Cache(tmp_path)
    assert again.find("convert", KEY) == made
    assert (made / "result").read_text() == "one"
    assert again.reused == ["convert"]


@pytest.mark.parametrize(("title", "key"), [("quantize", KEY), ("convert", {**KEY, "parameters": [1, 3]})])
def test_another_title_or_key_is_another_stage(tmp_path, title, key):
    Cache(tmp_path).make("convert", KEY, write("one"))
    assert Cache(tmp_path).find(title, key) is None


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).make("convert", KEY, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_is_made_again(tmp_path):
    made = Cache(tmp_path).make("convert", KEY, write("one"))
    (made / "result").write_text("two")
    assert Cache(tmp_path).find("convert", KEY) is None
    again = Cache(tmp_path).make("convert", KEY, write("one"))
    assert (again / "result").read_text() == "one"


def test_a_seal_that_is_no_seal_is_no_entry(tmp_path):
    made = Cache(tmp_path).make("convert", KEY, write("one"))
    for seal in ("", "[]", json.dumps({"missing": "00"})):
        (made / "seal.json").write_text(seal)
        assert Cache(tmp_path).find("convert", KEY) is None


def test_without_a_root_nothing_is_kept():
    first = Cache(None)
    first.make("convert", KEY, write("one"))
    assert first.find("convert", KEY) is not None
    assert Cache(None).find("convert", KEY) is None


def test_a_root_that_cannot_be_written_is_said_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideFailure, match="EDGEKIT_CACHE"):
        Cache(tmp_path / "file" / "cache").make("convert", KEY, write("one"))


def test_the_oldest_entries_go_when_the_cache_grows_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(edgekit.cache, "MOST_BYTES", 2500)
    cache = Cache(tmp_path)
    for number in range(4):
        cache.make("convert", {"number": number}, write("x" * 1000))
    kept = [number for number in range(4) if Cache(tmp_path).find("convert", {"number": number})]
    assert kept == [0, 1, 2, 3]  # one build may still read what it made
    Cache(tmp_path).make("convert", {"number": 4}, write("x" * 1000))
    kept = [number for number in range(5) if Cache(tmp_path).find("convert", {"number": number})]
    assert 4 in kept
    assert len(kept) == 2


def test_what_is_no_stage_is_never_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(edgekit.cache, "MOST_BYTES", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"x" * 1000)
    Cache(tmp_path).make("convert", KEY, write("one"))
    Cache(tmp_path).make("quantize", KEY, write("one"))
    assert (tmp_path / "photos" / "one.png").exists()


def test_what_a_killed_build_left_is_dropped_after_a_day(tmp_path):
    for name, age_s in (("old", 2 * 86400), ("new", 60)):
        left = tmp_path / f".partial-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age_s,) * 2)
    Cache(tmp_path).make("convert", KEY, write("one"))
    assert not (tmp_path / ".partial-old").exists()
    assert (tmp_path / ".partial-new").exists()


def test_an_error_that_is_not_the_disks_is_not_called_that(tmp_path):
    def fail(folder):
        raise ConnectionResetError("the peer is gone")

    with pytest.raises(ConnectionResetError):
        Cache(tmp_path).make("convert", KEY, fail)


def test_two_builds_that_make_the_same_stage_at_once_both_get_it(tmp_path):
    barrier, found = threading.Barrier(2), []

    def fill(folder):
        barrier.wait(timeout=10)
        write("one")(folder)

    def build():
        found.append(Cache(tmp_path).make("convert", KEY, fill))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert (found[0] / "result").read_text() == "one"
