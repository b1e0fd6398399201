import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from bundles import contents_of, files_of, packed

from edgekit.bundle.pack import write_bundle
from edgekit.bundle.place import check_destination, fresh_folder, replace_folder
from edgekit.errors import BadInput, OutsideFailure


def test_a_bundle_appears_whole_where_nothing_was_and_its_folders_are_made(tmp_path):
    place = tmp_path / "deep" / "er" / "tiny"
    with fresh_folder(place) as partial:
        write_bundle(partial, contents_of())
        assert not place.exists()
        replace_folder(partial, place)
    assert (place / "manifest.json").exists()
    assert [path.name for path in place.parent.iterdir()] == ["tiny"]


def test_a_new_bundle_replaces_the_old_one_and_nothing_of_it_stays(bundle):
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"")
    with fresh_folder(bundle) as partial:
        write_bundle(partial, contents_of(name="newer"))
        expected = files_of(partial)
        replace_folder(partial, bundle)
    assert files_of(bundle) == expected
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_a_bundle_of_another_version_may_be_replaced(bundle):
    (bundle / "manifest.json").write_text('{"schema": "edgekit.bundle/99"}')
    check_destination(bundle)


def test_an_empty_folder_may_be_used(tmp_path):
    check_destination(tmp_path)


def test_a_build_that_fails_leaves_the_old_bundle_and_no_trace(bundle):
    before = files_of(bundle)

    def fail(partial):
        (partial / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), fresh_folder(bundle) as partial:
        fail(partial)
    assert files_of(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_the_old_bundle_comes_back_when_the_new_one_cannot_be_moved(bundle, tmp_path):
    before = files_of(bundle)
    with pytest.raises(OutsideFailure):
        replace_folder(tmp_path / "missing", bundle)
    assert files_of(bundle) == before


def test_a_file_in_the_way_is_refused(tmp_path):
    place = tmp_path / "out"
    place.write_text("mine")
    with pytest.raises(BadInput, match=r"out: is a file, and the bundle is a folder; choose another place"):
        check_destination(place)
    with pytest.raises(BadInput, match="is a file, not a folder"):
        check_destination(place / "below" / "it")
    assert place.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 7}', '{"schema": "other/1"}', "[" * 100_000])
def test_a_folder_that_is_no_bundle_is_never_overwritten(tmp_path, content):
    place = tmp_path / "photos"
    place.mkdir()
    (place / "manifest.json").write_text(content)
    with pytest.raises(BadInput, match="exists and is no bundle"):
        check_destination(place)
    with pytest.raises(BadInput, match="exists and is no bundle"):
        replace_folder(packed(tmp_path / "new"), place)
    assert (place / "manifest.json").read_text() == content


def test_a_bundle_that_holds_files_of_someones_own_is_not_overwritten(bundle):
    (bundle / "notes").mkdir()
    (bundle / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds `notes/mine\.txt`, which is not part of the bundle"):
        check_destination(bundle)


def test_a_link_is_refused(bundle, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle)
    with pytest.raises(BadInput, match="is a link"):
        check_destination(link)


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work():
    program = (
        "import os, sys; from pathlib import Path; from edgekit.bundle.place import check_destination\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "check_destination(Path(sys.argv[1]))"
    )
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, into which only its owner may look
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", program, f"{folder}/tiny"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert f"{folder}/tiny: cannot be written: nothing may be written to `{folder}`; choose" in done.stderr


def test_a_folder_where_nothing_can_be_made_is_one_line():
    refused = pytest.raises(
        OutsideFailure, match=r"/proc/edgekit/tiny: cannot be written: .*; make room there"
    )
    with refused, fresh_folder(Path("/proc/edgekit/tiny")):
        pass


def test_a_disk_without_room_is_one_line_and_leaves_nothing(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path; from bundles import contents_of;"
        "from edgekit.bundle.pack import write_bundle; from edgekit.bundle.place import fresh_folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "with fresh_folder(Path(sys.argv[1])) as partial: write_bundle(partial, contents_of())"
    )
    command, here = [sys.executable, "-c", program, tmp_path / "tiny"], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, check=False)
    last = done.stderr.splitlines()[-1]
    assert "OutsideFailure" in last
    assert "cannot be written: File too large; make room there" in last
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_at_any_moment_leaves_the_old_bundle_or_the_new_one(bundle):
    program = (
        "import sys; from pathlib import Path; from edgekit.bundle.place import *;"
        "place = Path(sys.argv[1]); print('ready', flush=True)\n"
        "import shutil\n"
        "while True:\n"
        "    with fresh_folder(place) as partial:\n"
        "        shutil.copytree(place, partial, dirs_exist_ok=True); replace_folder(partial, place)\n"
    )
    before = files_of(bundle)
    for number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", program, bundle], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        process.stdout.readline()
        time.sleep(number * 0.037)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()
        assert files_of(bundle) == before
