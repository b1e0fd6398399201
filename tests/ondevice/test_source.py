"""What may stand in the files that go to the device."""

import ast
import sys
from pathlib import Path

import pytest

from edgekit import ondevice

FOLDER = Path(ondevice.__path__[0])
FILES = [path for path in sorted(FOLDER.rglob("*.py")) if path.name != "__init__.py"]
NEWER_THAN_3_8 = set(
    "removeprefix removesuffix file_digest is_relative_to readlink bit_count lcm nextafter cache pairwise "
    "to_thread randbytes chdir batched".split()
)


@pytest.fixture(params=FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def source(request):
    return request.param


def test_it_is_a_program_for_python_3_8(source):
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    assert "annotations" in [name.name for node in tree.body if is_future(node) for name in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id == "os"
        ):
            assert node.attr not in NEWER_THAN_3_8


def is_future(node):
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def test_types_that_python_3_8_lacks_stand_in_annotations_only(source):
    tree = ast.parse(source.read_text())
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.arg)]:
        node.annotation = ast.Constant(None)
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        node.returns = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in {"dict", "list", "tuple", "set", "type", "frozenset"}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            assert not (isinstance(node.right, ast.Constant) and node.right.value is None)


# The packages that a runtime's half may import, and no other file.
RUNTIMES = {
    "session_onnxruntime": {"onnxruntime"},
    "session_openvino": {"openvino"},
    "session_tflite": {"ai_edge_litert", "tflite_runtime"},
    "session_executorch": {"executorch", "torch"},
    "session_torch": {"torch", "torchao"},
    "session_tensorrt": {"tensorrt"},
    "engine": {"tensorrt"},
}


def test_it_imports_the_standard_library_numpy_and_the_runtime_and_nothing_else(source):
    for node in ast.walk(ast.parse(source.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            own = RUNTIMES.get(source.stem, set())
            assert name.split(".")[0] in {*sys.stdlib_module_names, "numpy", *own}


def test_run_py_starts_without_numpy_and_the_runtime():
    for path in FILES:
        top = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [name.name for node in top for name in node.names] + [
            getattr(node, "module", "") for node in top
        ]
        assert not {"numpy", "onnxruntime"} & set(names)
