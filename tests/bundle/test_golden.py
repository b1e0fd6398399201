import io

import numpy as np
import pytest
from bundles import artifact_of, image_calls, image_network

from edgekit.bundle.golden import (
    CEILING_DB,
    MOST_BYTES,
    MOST_SAMPLES,
    GoldenSamples,
    answer,
    choose,
    first_call,
    golden_npz,
)
from edgekit.bundle.manifest import read_manifest
from edgekit.errors import BadInput


def numbered(count, size=1):
    return [{"x": np.full(size, number, np.float32)} for number in range(count)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (15, [0, 2, 4, 6, 8, 10, 12, 14])],
)
def test_golden_calls_are_spread_from_the_first_to_the_last(count, expected):
    assert [int(call["x"][0]) for call in choose(numbered(count))] == expected


def test_there_are_never_more_golden_calls_than_eight_and_of_large_ones_fewer():
    assert len(choose(numbered(512))) == MOST_SAMPLES
    assert len(choose(numbered(512, size=MOST_BYTES // 4 // 3))) == 3
    assert len(choose(numbered(5, size=MOST_BYTES))) == 1


def test_numpy_reads_the_golden_file_without_pickle():
    samples = answer(artifact_of(image_network()), image_calls(2))
    loaded = np.load(io.BytesIO(golden_npz(samples)), allow_pickle=False)
    assert sorted(loaded) == ["s0_i0", "s0_o0", "s1_i0", "s1_o0"]
    np.testing.assert_array_equal(loaded["s1_i0"], samples.calls[1]["image"])


def test_the_floor_rests_on_the_parity_where_a_runtime_knows_no_other_way_to_run_it(monkeypatch):
    artifact = artifact_of(image_network())
    assert answer(artifact, image_calls(2), parity_db=20.4).min_snr_db == CEILING_DB  # the optimiser off
    half = "edgekit.ondevice.runner.session_onnxruntime.open_session"
    whole = __import__("edgekit.ondevice.runner.session_onnxruntime", fromlist=["open_session"]).open_session

    def without_reference(*arguments, options, **more):
        return whole(*arguments, options={}, **more)

    monkeypatch.setattr(half, without_reference)
    assert answer(artifact, image_calls(2), parity_db=20.4).min_snr_db == 14
    assert answer(artifact, image_calls(2), parity_db=140.0).min_snr_db == CEILING_DB


def test_arrays_in_any_memory_order_and_scalars_come_back_as_they_were():
    call = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.asarray(7), "c": np.arange(9)[::2]}
    loaded = np.load(io.BytesIO(golden_npz(GoldenSamples((call,), ([],), CEILING_DB))))
    for number, array in enumerate(call.values()):
        np.testing.assert_array_equal(loaded[f"s0_i{number}"], array)
        assert loaded[f"s0_i{number}"].shape == array.shape


def test_the_first_golden_call_is_read_from_a_bundle(voice_bundle):
    call = first_call(voice_bundle, read_manifest(voice_bundle))
    assert {name: array.shape for name, array in call.items()} == {
        "sound": (5, 8),
        "state": (1, 4),
        "rate": (),
    }


def test_a_damaged_golden_file_is_refused(bundle):
    (bundle / "golden.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(BadInput, match=r"golden\.npz: not a"):
        first_call(bundle, read_manifest(bundle))
