import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from edgekit.package.layer import Content, files_below, tar_of

NAME = st.text("abcdefgh", min_size=1, max_size=4)
PATHS = st.lists(NAME, min_size=1, max_size=3).map("/".join)
TREE = st.dictionaries(PATHS, st.binary(max_size=50), max_size=5)


def no_file_is_a_folder(tree):
    return not any(other.startswith(f"{name}/") for name in tree for other in tree)


@given(TREE.filter(no_file_is_a_folder))
def test_a_tree_comes_back_from_its_tar_with_every_folder_before_its_files(tree):
    data = tar_of({name: Content(content) for name, content in tree.items()})
    assert data == tar_of({name: Content(tree[name]) for name in reversed(tree)}), "the same bytes"
    seen = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            above = entry.name.rpartition("/")[0]
            assert not above or above in seen
            seen.add(entry.name)
        files = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers() if entry.isfile()}
    assert files == tree


def test_owners_modes_and_dates_are_not_those_of_this_machine(tmp_path):
    program = tmp_path / "a" / "run.py"
    program.parent.mkdir()
    program.write_text("print(1)")
    program.chmod(0o700)
    (tmp_path / "data").write_bytes(b"x")
    data = tar_of(files_below(tmp_path, "opt/m"), folders={"run/sockets": 0o1777})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert {name: entry.mode for name, entry in entries.items()} == {
        "opt": 0o755,
        "opt/m": 0o755,
        "opt/m/a": 0o755,
        "opt/m/a/run.py": 0o755,
        "opt/m/data": 0o644,
        "run": 0o755,
        "run/sockets": 0o1777,
    }
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {
        (0, 0, "root", 1_700_000_000)
    }
