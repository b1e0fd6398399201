import gzip
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from bundles import files_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle.archive import open_bundle, unpack, write_archive
from edgekit.errors import BadInput, OutsideFailure


def tar_of(*entries, pax=None):
    """A .tar.gz of (TarInfo or name, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=pax) as tar:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refuse(tmp_path, data, match):
    path = tmp_path / "hostile.tar.gz"
    path.write_bytes(data)
    folder = tmp_path / "into"
    folder.mkdir()
    with pytest.raises(BadInput, match=match):
        unpack(path, folder)


def test_the_same_bundle_gives_the_same_archive_whatever_its_dates_and_modes(bundle, tmp_path):
    write_archive(bundle, tmp_path / "one.tar.gz")
    for path in bundle.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    write_archive(bundle, tmp_path / "other-name.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "other-name.tar.gz").read_bytes()


def test_what_comes_out_of_an_archive_is_what_went_in(bundle, tmp_path):
    write_archive(bundle, tmp_path / "a.tar.gz")
    with open_bundle(tmp_path / "a.tar.gz") as folder:
        assert files_of(folder) == files_of(bundle)
        assert folder.name == "tiny"
    assert not folder.exists()


def test_a_devices_own_tar_opens_it_and_run_py_can_be_executed(bundle, tmp_path):
    write_archive(bundle, tmp_path / "a.tar.gz")
    subprocess.run(["tar", "-xzf", tmp_path / "a.tar.gz", "-C", tmp_path], check=True)
    assert files_of(tmp_path / "tiny") == files_of(bundle)
    assert (tmp_path / "tiny" / "run.py").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "tiny" / "model.onnx").stat().st_mode & 0o777 == 0o644


def test_what_is_wrong_in_an_archive_is_said_of_the_archive(bundle, tmp_path):
    write_archive(bundle, tmp_path / "a.tar.gz")
    refused = pytest.raises(BadInput, match=rf"^{tmp_path}/a\.tar\.gz/model\.onnx: is wrong; mend it$")
    with refused, open_bundle(tmp_path / "a.tar.gz") as folder:
        raise BadInput("is wrong", where=str(folder / "model.onnx"), todo="mend it")


def test_files_that_the_manifest_does_not_list_stay_behind(bundle, tmp_path):
    (bundle / "secret.txt").write_text("mine")
    write_archive(bundle, tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert "tiny/secret.txt" not in tar.getnames()


def test_a_listed_file_that_is_a_link_is_not_followed_into_an_archive(bundle, tmp_path):
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="reached by a link"):
        write_archive(bundle, tmp_path / "a.tar.gz")
    assert not list(tmp_path.glob("*a.tar.gz*"))


def test_an_archive_that_cannot_be_written_is_one_line(bundle, tmp_path):
    with pytest.raises(OutsideFailure, match="cannot be written"):
        write_archive(bundle, Path("/proc/edgekit/a.tar.gz"))
    with pytest.raises(BadInput, match="is a folder"):
        write_archive(bundle, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x",
        "a/../../x",
        "a/..",
        "../x",
        "a//x",
        "a/./x",
        "a",
        "a/",
        "a\\b/c",
        "C:/x",
        "a/b\x1b[2J",
        "a/" + "n" * 256,
    ],
)
def test_paths_that_lead_outside_or_nowhere_are_refused(tmp_path, name):
    refuse(tmp_path, tar_of((name, b"x")), "hostile")
    assert [path.name for path in tmp_path.iterdir()] in (
        ["hostile.tar.gz", "into"],
        ["into", "hostile.tar.gz"],
    )
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize(
    "entry",
    [
        special("a/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("a/link", tarfile.LNKTYPE, "/etc/passwd"),
        special("a/pipe", tarfile.FIFOTYPE),
        special("a/disk", tarfile.BLKTYPE),
        special("a/tty", tarfile.CHRTYPE),
        special("a/folder", tarfile.DIRTYPE),
        special("a/holes", tarfile.GNUTYPE_SPARSE),
    ],
)
def test_everything_but_plain_files_is_refused(tmp_path, entry):
    refuse(tmp_path, tar_of((entry, b"")), r"hostile\.tar\.gz: ")
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("second", ["a/x", "a/X"])
def test_a_file_that_comes_twice_is_refused(tmp_path, second):
    refuse(tmp_path, tar_of(("a/x", b"1"), (second, b"2")), "twice")


def test_two_folders_are_no_bundle(tmp_path):
    refuse(tmp_path, tar_of(("a/x", b"1"), ("b/x", b"2")), "more than one bundle")


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path):
    refuse(tmp_path, tar_of(("a/x", b"1"), ("a/x/y", b"2")), "a file where it has a folder")


def test_an_empty_archive_is_refused(tmp_path):
    refuse(tmp_path, tar_of(), "is empty")


def test_too_many_files_are_refused(tmp_path):
    refuse(tmp_path, tar_of(*((f"a/{number}", b"") for number in range(1101))), "ordinary size")


def test_a_file_that_says_it_is_huge_is_refused_before_it_is_written(tmp_path):
    info = tarfile.TarInfo("a/x")
    info.size = 5_000_000_000
    refuse(tmp_path, gzip.compress(info.tobuf() + bytes(4096)), "ordinary size")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_header_that_unpacks_without_end_is_refused(tmp_path):
    refuse(tmp_path, tar_of(("a/x", b""), pax={"comment": "0" * 50_000_000}), "more than it says")


@pytest.mark.parametrize("keep", [0, 1, 9, 20, 60, 100])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    refuse(tmp_path, tar_of(("a/x", os.urandom(5000)))[:keep], "hostile")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=2000), packed=st.booleans())
def test_any_bytes_are_unpacked_inside_the_folder_or_refused(data, packed):
    check_any(gzip.compress(data) if packed else data)


SOUND = gzip.decompress(
    tar_of(("a/manifest.json", b"{}"), ("a/b/c", b"content"), ("a/" + "n" * 150, b"long"))
)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8)), max_size=6)
)
def test_any_change_of_a_sound_archive_is_unpacked_inside_the_folder_or_refused(changes):
    data = bytearray(SOUND)
    for place, piece in changes:
        data[place : place + len(piece)] = piece
    for place in range(0, len(data), 512):  # right checksums, so that the headers are believed
        header = bytearray(data[place : place + 512])
        if any(header):
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data[place : place + 512] = header
    check_any(gzip.compress(bytes(data)))


def check_any(data):
    with tempfile.TemporaryDirectory() as root:
        path, folder = Path(root) / "x.tar.gz", Path(root) / "into"
        path.write_bytes(data)
        folder.mkdir()
        try:
            assert unpack(path, folder).parent == folder
        except BadInput as error:
            assert str(error).isprintable()  # noqa: PT017 - refused or unpacked, both are right
        assert {entry.name for entry in Path(root).iterdir()} == {"x.tar.gz", "into"}
        assert all(entry.is_file() or entry.is_dir() for entry in folder.rglob("*"))
