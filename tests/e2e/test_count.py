"""A real network on emulated boards, by real arm64 runtimes: what an inference executes and what it holds."""

import contextlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from bundles import contents_of
from emulated import requirements_of, site
from steps import context_of, convert_graph, fresh

from edgekit.bundle.pack import write_bundle
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.ways import ways_of
from edgekit.devices.container import open_container
from edgekit.devices.count import count_inference
from edgekit.devices.device import run
from edgekit.devices.local import RUNNER
from edgekit.emulation.count import CLASSES, PLACE, counting_qemu
from edgekit.errors import VerificationFailed
from edgekit.graph.layers import describe
from edgekit.report.count_words import count_lines

PYTHON = "/venv/bin/python"
# 300 MB that are gone again when the second reading is taken.
SHORT_PEAK = """
import json, sys
sys.path.insert(0, "/edgekit/runner")
import facts, guest_memory
watch = guest_memory.Watch(facts)
watch.read()
block = bytearray(300_000_000)
for place in range(0, len(block), 4096):
    block[place] = 1
del block
watch.read()
print(json.dumps(watch.figures()))
"""


@pytest.fixture(scope="module")
def bundles(tiny_cnn, tiny_graph, tmp_path_factory):
    """A trained network as bundles: in float for LiteRT, in int8 for onnxruntime."""
    root = tmp_path_factory.mktemp("count")

    def pack(runtime, quantized):
        converted = convert_graph(tiny_cnn, tiny_graph, runtime, root)
        context, artifact = context_of(tiny_cnn, tiny_graph, root), converted.artifact
        if quantized:
            ways = (way for way in ways_of(runtime) if way.method == "static")
            settings = Settings(method="static")
            way = next(way for way in ways if not way.why_not(converted, settings, context))
            artifact = way.make(converted, settings, tiny_cnn, context, fresh(root))
        folder = root / f"{runtime}-bundle"
        folder.mkdir()  # one that the container's user may enter
        write_bundle(folder, replace(contents_of(tiny_graph, context.calls), artifact=artifact))
        return folder

    return {"float": pack("tflite", False), "int8": pack("onnxruntime", True)}


@contextlib.contextmanager
def board(target, bundle, folder):
    """The board of a target, with edgekit's runner, a bundle, its environment and the QEMU that counts.

    The environment is of unpacked wheels, because an installation takes its time under emulation.
    """
    environment = folder / "venv"
    packages = environment / "lib" / "python3.11" / "site-packages"
    if not environment.exists():
        packages.mkdir(parents=True)
        (environment / "bin").mkdir()
        (environment / "bin" / "python").symlink_to("/usr/bin/python3")
        (environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    mounts = {
        PLACE: counting_qemu(print),
        "/venv": environment,
        f"/venv/{packages.relative_to(environment)}": site(tuple(requirements_of(bundle))),
        "/edgekit": RUNNER.parent,
        "/bundle": bundle,
    }
    with contextlib.closing(open_container(target, detail=print, mounts=mounts)) as device:
        yield device


def counted(device):
    return count_inference(device, PYTHON, "/edgekit/run.py", "/bundle", detail=print)


def test_a_float_network_multiplies_as_often_as_it_must_and_the_same_number_each_time(
    bundles, tiny_cnn, tiny_graph, tmp_path
):
    with board("rpi4", bundles["float"], tmp_path) as device:
        first, second = counted(device), counted(device)
    found = first["per_inference"]
    assert first["spread"] < 0.01
    assert found["instructions"] == pytest.approx(second["per_inference"]["instructions"], rel=0.01)
    names = [spec.name for spec in tiny_cnn.inputs]
    macs = describe(tiny_graph, dict(zip(names, tiny_cnn.example, strict=True))).macs
    assert 0.95 < 4 * found["fma"] / macs < 1.2  # four products in a vector
    assert found["dot"] == 0
    assert sum(found[name] for name in CLASSES) == found["instructions"]
    assert first["facts"]["core"] == "Cortex-A72"
    assert "million instructions, by 1 thread; 5 inferences differ by" in count_lines(first)[0]
    assert count_lines(first)[-1].endswith("executed instructions of the emulated core, not time")


def test_int8_uses_dot_products_where_the_core_has_them_and_nowhere_else(bundles, tmp_path):
    found = {}
    for target in ("rpi4", "rpi5"):
        with board(target, bundles["int8"], tmp_path) as device:
            found[target] = counted(device)["per_inference"]
    assert (found["rpi4"]["dot"], found["rpi5"]["widening"]) == (0, 0)
    assert found["rpi5"]["dot"] > 0
    assert found["rpi4"]["widening"] > 0
    assert found["rpi5"]["instructions"] < found["rpi4"]["instructions"]


def test_a_bundle_that_answers_wrong_is_not_counted(bundles, tmp_path):
    damaged = shutil.copytree(bundles["float"], tmp_path / "damaged")
    (damaged / "golden.npz").write_bytes(b"")
    with board("rpi4", damaged, tmp_path) as device, pytest.raises(VerificationFailed, match=r"golden\.npz"):
        counted(device)


def test_memory_of_the_board_is_told_without_the_emulators(bundles, tmp_path):
    command = ["/edgekit/run.py", "--bundle", "/bundle", "--memory"]
    with board("rpi4", bundles["float"], tmp_path) as device:
        done = run(device, [PYTHON, *command], silence=300)
        short = run(device, [PYTHON, "-c", SHORT_PEAK], silence=300)
    found, peak = json.loads(done.stdout), json.loads(short.stdout)
    here = [sys.executable, RUNNER, "--bundle", bundles["float"], "--memory"]
    native = json.loads(subprocess.run(here, capture_output=True, check=True, timeout=120).stdout)
    assert found["before_load_rss_mb"] <= found["at_least_rss_mb"] <= found["peak_rss_mb"]
    # The same packages, of another architecture.
    assert 0.8 < found["peak_rss_mb"] / native["peak_rss_mb"] < 1.3
    assert found["peak_with_emulator_mb"] > found["peak_rss_mb"] + 30
    for bound in ("at_least_rss_mb", "peak_rss_mb"):
        assert peak[bound] - peak["before_load_rss_mb"] == pytest.approx(300, abs=3)
