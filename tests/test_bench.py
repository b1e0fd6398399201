import json
from pathlib import Path

import pytest

from edgekit.bench import bench, measure_memory, verify_bundle, write_result
from edgekit.bundle.archive import write_archive
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed


@pytest.fixture
def archive(bundle, tmp_path):
    write_archive(bundle, tmp_path / "tiny.tar.gz")
    return tmp_path / "tiny.tar.gz"


def test_a_bundle_and_its_archive_are_verified(bundle, archive):
    for path in (bundle, archive):
        found = verify_bundle(path)
        assert (found.manifest.name, found.samples, found.lowest_snr_db, found.notes) == ("tiny", 8, None, ())


def test_memory_is_measured_in_a_process_of_its_own(archive):
    found = measure_memory(archive)
    assert 10 < found["before_load_rss_mb"] < found["peak_rss_mb"] < 1000


def test_an_archive_is_timed_with_the_threads_that_were_asked_for(archive):
    assert bench(archive, mode="quick", threads=1)["protocol"]["threads"] == 1


def test_more_threads_than_cores_are_refused(bundle):
    with pytest.raises(BadInput, match="1000 threads asked for"):
        bench(bundle, mode="quick", threads=1000)


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "edgekit.bundle/2"}'])
def test_a_manifest_of_another_schema_fails_the_verification(bundle, content):
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(VerificationFailed, match=r"manifest\.json"):
        verify_bundle(bundle)


@pytest.mark.parametrize("run", [verify_bundle, measure_memory, lambda path: bench(path, mode="quick")])
def test_what_is_no_bundle_is_bad_input(tmp_path, run):
    for path in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises(BadInput):
            run(path)


def test_the_result_is_written_with_its_raw_samples_or_not_at_all(tmp_path):
    write_result({"samples_ms": [1.5, 2.0]}, tmp_path / "new" / "b.json")
    assert json.loads((tmp_path / "new" / "b.json").read_text()) == {"samples_ms": [1.5, 2.0]}
    with pytest.raises(OutsideFailure, match="cannot be written"):
        write_result({}, Path("/proc/edgekit/b.json"))
