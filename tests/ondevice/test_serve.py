"""`run.py --serve`: a real process, real sockets, clients that are good, clumsy and hostile."""

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bundles import image_calls, voice_calls
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.ondevice import run

JSON, NPY, NPZ = ({"Content-Type": f"application/{kind}"} for kind in ("json", "x-npy", "x-npz"))
# Stands before the real runtime: it loads when the gate is opened, and some images do something else.
GATED = """
import os, sys
gate = os.environ["GATE"]
sys.path.remove(gate)
open(gate + "/load").read()
del sys.modules["onnxruntime"]
import onnxruntime as real
class Session(real.InferenceSession):
    def run(self, names, feeds):
        mark = feeds["image"].flat[0]
        if mark == 7:
            open(gate + "/call").read()
        if mark == 8 or os.path.exists(gate + "/broken"):
            raise RuntimeError("no such index")
        return super().run(names, feeds)
real.InferenceSession = Session
sys.modules["onnxruntime"] = real
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


class Serving:
    """A process that serves, and how it is asked."""

    def __init__(self, bundle, address, *options, program=None, **environment):
        self.address = address
        begin = [bundle / "run.py"] if program is None else ["-c", program]
        command = [sys.executable, *begin, "--serve", address, *options]
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        environment = {**kept, "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        if address.startswith("127"):
            line = self.process.stderr.readline()
            self.address = re.search(r"http://(\S+)", line).group(1)

    def connection(self):
        if self.address.startswith("unix:"):
            return UnixConnection(self.address[5:])
        return http.client.HTTPConnection(self.address, timeout=20)

    def ask(self, method, path, body=None, headers=None):
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, body, headers or {})
            return answer_of(connection)

    def raw(self, sent):
        """All that comes back for these bytes, after which nothing more is sent."""
        with contextlib.closing(self.connection()) as connection:
            connection.connect()
            connection.sock.sendall(sent)
            connection.sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.sock.recv(65536), b""))

    def wait_until(self, status):
        """Ask for its health until that is what it says."""

        def is_so():
            assert self.process.poll() is None
            with contextlib.suppress(OSError):
                return self.ask("GET", "/health")[1].get("status") == status

        until(is_so)
        return self

    def end(self):
        """SIGTERM; the exit status and what it said."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


def until(is_so):
    """Look again and again, half a minute at most."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def answer_of(connection):
    response = connection.getresponse()
    body = response.read()
    plain = response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(body) if plain and body else body, response.headers


@pytest.fixture(scope="module")
def tiny(made_bundles, tmp_path_factory):
    path = tmp_path_factory.mktemp("socket") / "tiny.sock"
    with Serving(made_bundles / "tiny", f"unix:{path}") as serving:
        yield serving.wait_until("ok")


@pytest.fixture(scope="module")
def voice(made_bundles):
    with Serving(made_bundles / "voice", "127.0.0.1:0") as serving:
        yield serving.wait_until("ok")


@pytest.fixture
def gate(tmp_path):
    """A folder in front of the runtime; opening a pipe in it lets the load, or a call, go on."""
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(GATED)
    for name in ("load", "call"):
        os.mkfifo(folder / name)
    return folder


@pytest.fixture
def gated(bundle, gate, tmp_path):
    """A process that waits with loading until the gate is opened."""
    where = f"unix:{tmp_path}/gated.sock"
    with Serving(bundle, where, PYTHONPATH=str(gate), GATE=str(gate)) as serving:
        yield serving


def open_gate(pipe):
    pipe.write_text("")  # blocks until the other side waits


@pytest.fixture
def model(made_bundles):
    return run.load(str(made_bundles / "tiny"))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(compression=zipfile.ZIP_STORED, **contents):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def marked(number):
    image = np.zeros((1, 3, 16, 16), np.float32)
    image.flat[0] = number
    return npy(image)


def in_background(function, *arguments):
    """Run it beside the test; gives its result when called."""
    pool = ThreadPoolExecutor(1)
    result = pool.submit(function, *arguments)
    pool.shutdown(wait=False)
    return lambda: result.result(30)


def test_it_says_how_it_is_and_what_it_takes(tiny):
    status, health, headers = tiny.ask("GET", "/health")
    assert (status, health["status"], health["name"], health["runtime"]) == (200, "ok", "tiny", "onnxruntime")
    assert re.fullmatch("[0-9a-f]{12}", health["version"])
    assert headers["Connection"] == "keep-alive"
    status, told, _ = tiny.ask("GET", "/")
    assert (status, told["inputs"]) == (
        200,
        [{"name": "image", "shape": ["batch", 3, 16, 16], "dtype": "float32"}],
    )
    assert tiny.ask("HEAD", "/health")[:2] == (200, b"")


@pytest.mark.parametrize("wrapped", [True, False])
def test_json_gives_what_the_model_gives(tiny, model, wrapped):
    image = image_calls(1)[0]["image"]
    body = json.dumps({"inputs": {"image": image.tolist()}} if wrapped else image.tolist())
    status, answer, _ = tiny.ask("POST", "/predict", body, JSON)
    assert status == 200
    np.testing.assert_array_equal(np.asarray(answer["outputs"]["logits"], "f4"), model.predict(image))


@pytest.mark.parametrize("kind", ["application/x-npy", "application/octet-stream"])
def test_an_array_in_gives_the_very_array_out(tiny, model, kind):
    image = np.asfortranarray(np.repeat(image_calls(1)[0]["image"], 5, axis=0))
    headers = {"Content-Type": kind, "Accept": "application/x-npy"}
    status, answer, got = tiny.ask("POST", "/predict", npy(image), headers)
    assert (status, got["Content-Type"]) == (200, "application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(answer)), model.predict(np.ascontiguousarray(image)))


def test_several_inputs_and_outputs_by_name_in_every_form(voice, made_bundles):
    call = voice_calls()[1]
    expected = run.load(str(made_bundles / "voice")).predict(*call.values())
    plain = {name: array.tolist() for name, array in call.items()}
    bodies = [
        (json.dumps({"inputs": plain}), JSON),
        (npz(zipfile.ZIP_DEFLATED, **{name: npy(array) for name, array in reversed(call.items())}), NPZ),
    ]
    for body, headers in bodies:
        status, answer, _ = voice.ask("POST", "/predict", body, headers)
        assert status == 200
        for number, name in enumerate(("speech", "new_state", "loudest")):
            np.testing.assert_array_equal(np.asarray(answer["outputs"][name], "f4"), expected[number])
        status, answer, _ = voice.ask("POST", "/predict", body, {**headers, "Accept": "application/x-npz"})
        with np.load(io.BytesIO(answer)) as arrays:
            assert arrays["loudest"].dtype == np.int64
            np.testing.assert_array_equal(arrays["new_state"], expected[1])
    wrong = voice.ask("POST", "/predict", bodies[0][0], {**JSON, "Accept": "application/x-npy"})
    assert wrong[0] == 406


@pytest.mark.parametrize(("name", "file"), [("tiny", "input.npy"), ("voice", "inputs.npz")])
def test_the_request_in_the_bundles_readme_is_answered(request, made_bundles, name, file):
    readme = (made_bundles / name / "README.md").read_text()
    assert "python run.py --serve unix:/" in readme
    _, curl = re.findall(r"^    curl .*$", readme, re.MULTILINE)
    words = shlex.split(curl)
    kind = words[words.index("-H") + 1].partition(": ")[2]
    assert words[-2:] == ["--data-binary", f"@{file}"]
    arrays = image_calls(1)[0] if name == "tiny" else voice_calls()[0]
    body = npy(arrays["image"]) if name == "tiny" else npz(**{key: npy(one) for key, one in arrays.items()})
    status, answer, _ = request.getfixturevalue(name).ask(
        "POST", "/predict", body, {"Content-Type": kind, "Accept": "*/*"}
    )
    assert status == 200
    assert answer["outputs"]


def test_eight_clients_at_once_get_the_answers_to_their_own_questions(tiny, model):
    calls = [call["image"] for call in image_calls(8)]

    def client(image):
        with contextlib.closing(tiny.connection()) as connection:
            for _ in range(25):
                connection.request("POST", "/predict", npy(image), {**NPY, "Accept": "application/x-npy"})
                status, answer, _ = answer_of(connection)
                assert status == 200
                yield np.load(io.BytesIO(answer))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: list(client(image)), calls))
    for image, own in zip(calls, answers, strict=True):
        expected = model.predict(image)
        assert len(own) == 25
        assert all(np.array_equal(one, expected) for one in own)


LONG = "x" * 70_000
REFUSED = [
    (404, "GET", "/nothing", {}, "there is no /nothing"),
    (404, "POST", "/predict/", {}, "there is no"),
    (405, "GET", "/predict", {}, "takes POST"),
    (405, "DELETE", "/health", {}, "takes GET"),
    (405, "BREW", "/", {}, "takes GET"),
    (406, "POST", "/predict", {**JSON, "Content-Length": "2", "Accept": "text/html"}, "can be application"),
    (411, "POST", "/predict", {**JSON, "Transfer-Encoding": "chunked"}, "Content-Length"),
    (411, "POST", "/predict", JSON, "Content-Length"),
    (413, "POST", "/predict", {**JSON, "Content-Length": "1000001"}, "more than 1000000 bytes"),
    (413, "POST", "/predict", {**JSON, "Content-Length": "9" * 5000}, "more than 1000000 bytes"),
    (415, "POST", "/predict", {"Content-Length": "2"}, "Content-Type must be"),
    (400, "POST", "/predict", {**JSON, "Content-Length": "-2"}, "not one number"),
    (400, "POST", "/predict", {**JSON, "Content-Length": "0x2"}, "not one number"),
    (400, "POST", "/predict", {**JSON, "Content-Length": "20"}, "shorter than its Content-Length"),
    (431, "GET", "/health", {"X": LONG}, ""),
    (431, "GET", "/health", {f"X{number}": "y" for number in range(200)}, ""),
    (431, "GET", f"/{LONG}", {}, ""),
]


@pytest.mark.parametrize(
    ("status", "method", "path", "headers", "words"), REFUSED, ids=lambda value: str(value)[:40]
)
def test_what_is_no_request_for_it_is_refused_in_one_line(tiny, status, method, path, headers, words):
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = tiny.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    line = json.loads(body)["error"]
    assert words in line
    assert "\n" not in line
    assert "Traceback" not in line


def test_two_lengths_are_no_length(tiny):
    sent = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    assert tiny.raw(sent + b"Content-Length: 3\r\n\r\n{}").startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_large_is_refused_and_the_client_that_still_sends_it_hears_so(tiny):
    status, answer, headers = tiny.ask("POST", "/predict", b"x" * 30_000_000, JSON)
    assert (status, headers["Connection"]) == (413, "close")
    assert "--max-body" in answer["error"]


def test_a_client_that_asks_first_is_answered_before_it_sends(tiny):
    with contextlib.closing(tiny.connection()) as connection:
        connection.connect()
        head = "POST /predict HTTP/1.1\r\nContent-Type: application/x-npy\r\nExpect: 100-continue\r\n"
        body = npy(image_calls(1)[0]["image"])
        connection.sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sock.sendall(body)
        assert connection.sock.recv(15) == b"HTTP/1.1 200 OK"
    too_long = f"{head}Content-Length: 5000000\r\n\r\n".encode()
    assert tiny.raw(too_long).startswith(b"HTTP/1.1 413 ")


def test_requests_that_come_in_one_piece_are_answered_in_turn(tiny):
    answer = tiny.raw(b"GET /health HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[" * 500 + b"1" + b"]" * 500, "must be numbers in nested lists"),
        (b'{"image": []}', 'the body must be {"inputs"'),
        (b'{"inputs": {}}', "0 arrays given, the model takes 1: image"),
        (b'{"inputs": {"picture": [1]}}', "no input is called picture"),
        (b'{"inputs": {"image": [[1, 2], [3]]}}', "must be numbers in nested lists"),
        (b'{"inputs": {"image": ["1"]}}', "must be numbers in nested lists"),
        (b'{"inputs": {"image": [null]}}', "must be numbers in nested lists"),
        (b'{"inputs": {"image": [1e300]}}', "holds numbers that float32 does not have"),
        (b'{"inputs": {"image": [1.5]}}', "has shape [1], must be [batch, 3, 16, 16]"),
        (b"[[]]", "has shape [1, 0], must be"),
        (b"NaN", "has shape [], must be"),
    ],
)
def test_json_that_the_model_does_not_take_is_refused_with_the_reason(tiny, body, words):
    status, answer, headers = tiny.ask("POST", "/predict", body, JSON)
    assert status == 400
    assert words in answer["error"]
    assert headers["Connection"] == "keep-alive"


@pytest.mark.parametrize(("rate", "status"), [("16000", 200), ("16000.0", 200), ("1.5", 400), ("1e300", 400)])
def test_whole_numbers_are_taken_where_the_model_takes_integers(voice, rate, status):
    call = {name: array.tolist() for name, array in voice_calls()[0].items()}
    body = json.dumps({"inputs": {**call, "rate": "RATE"}}).replace('"RATE"', rate)
    assert voice.ask("POST", "/predict", body, JSON)[0] == status


def with_size(shape):
    """A .npy file that says to be of this shape."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00\x76\x00" + head.encode() + bytes(16)


HOSTILE = {
    "objects": (npy(np.zeros(3)).replace(b"'<f8'", b"'|O' "), "holds Python objects"),
    "too large": (with_size("(1000000000000,)"), "has not the size that it says"),
    "negative": (with_size("(-2, -2)"), "has not the size that it says"),
    "long description": (
        b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b"(" * 90_000,
        "too long a description",
    ),
    "no array": (b"\x93NUMPY", "not a .npy or .npz file of plain arrays"),
    "unpacks to much": (
        npz(zipfile.ZIP_DEFLATED, image=bytes(200_000_000)),
        "unpacks to 1 arrays of 200000000 bytes; at most 1000000 are read",
    ),
    "says little": (
        npz(zipfile.ZIP_DEFLATED, image=bytes(5_000_000)).replace(
            (5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")
        ),
        "not a .npy or .npz file of plain arrays",
    ),
    "unbounded method": (npz(zipfile.ZIP_LZMA, image=bytes(500_000)), "a method that numpy does not use"),
    "many arrays": (npz(**{f"a{number}": b"" for number in range(100)}), "unpacks to 100 arrays"),
    "half a file": (npz(image=npy(np.zeros(30)))[:-30], "not a .npy or .npz file of plain arrays"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_file_is_refused_and_takes_no_memory(tiny, name):
    body, words = HOSTILE[name]
    before = figures(tiny)["process_resident_memory_bytes"]
    status, answer, _ = tiny.ask("POST", "/predict", body, {"Content-Type": "application/octet-stream"})
    assert status == 400
    assert words in answer["error"]
    assert figures(tiny)["process_resident_memory_bytes"] < before + 20e6


JSON_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["inputs", "image", "#1"]), inner)
    ),
    max_leaves=20,
)


def mutated(valid):
    """A file that is right but for some bytes."""
    change = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255))

    def apply(changes):
        content = bytearray(valid)
        for place, byte in changes:
            content[place] = byte
        return bytes(content)

    return st.lists(change, max_size=4).map(apply)


IMAGE = npy(np.zeros((1, 3, 16, 16), np.float32))
FILES = mutated(IMAGE[:200]).map(lambda head: head + IMAGE[200:]) | mutated(
    npz(zipfile.ZIP_DEFLATED, image=IMAGE)
)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.binary(max_size=300) | JSON_DATA.map(lambda data: json.dumps(data).encode()), st.just(JSON))
    | st.tuples(st.binary(max_size=300) | FILES, st.sampled_from([NPY, NPZ]))
)
def test_no_body_makes_it_fail(tiny, request_):
    body, headers = request_
    status, answer, _ = tiny.ask("POST", "/predict", body, headers)
    assert status in (200, 400)
    assert (status == 200) == ("outputs" in answer)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400)
    | st.builds(
        lambda method, path, lines: (
            b" ".join([method, path, b"HTTP/1.1\r\n"]) + b"\r\n".join([*lines, b"", b""])
        ),
        st.sampled_from([b"GET", b"POST", b"PUT", b"\x00"]),
        st.sampled_from([b"/", b"/predict", b"/health", b"*", b"http://x/", b"/%00?a=b"]),
        st.lists(
            st.sampled_from(
                [b"Content-Length: 3", b"Content-Type: application/json", b"Expect: 100-continue"]
            )
            | st.binary(max_size=40),
            max_size=4,
        ),
    )
)
def test_no_request_makes_it_fail_or_wait(tiny, sent):
    answer = tiny.raw(sent)
    assert not re.match(rb"HTTP/1.1 5", answer)


def test_where_many_are_connected_no_connection_is_kept(tiny):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(contextlib.closing(tiny.connection())).connect()
        until(lambda: tiny.ask("GET", "/health")[2]["Connection"] == "close")
    until(lambda: tiny.ask("GET", "/health")[2]["Connection"] == "keep-alive")


def test_after_all_that_it_is_well(tiny):
    assert tiny.ask("GET", "/health")[0] == 200
    assert tiny.process.poll() is None


def figures(serving):
    """What `/metrics` says: series -> value, after every line was found to be of the text format."""
    status, text, headers = serving.ask("GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found, kinds = {}, {}
    for line in text.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert kinds.setdefault(name, kind) == kind
        elif not line.startswith("# HELP "):
            label = r'[a-z]+="(?:[^"\\\n]|\\.)*"'
            series, value = re.fullmatch(rf"([a-z_]+(?:{{{label}(?:,{label})*}})?) (\S+)", line).groups()
            assert (
                re.sub("_(bucket|sum|count)$", "", series.split("{")[0]) in kinds
                or series.split("{")[0] in kinds
            )
            found[series] = float(value)
    return found


def test_the_metrics_count_requests_predictions_and_time(voice):
    call = {name: array.tolist() for name, array in voice_calls()[0].items()}
    before = figures(voice)
    for body in (json.dumps({"inputs": call}), "{}"):
        voice.ask("POST", "/predict", body, JSON)
    voice.ask("GET", "/etc/passwd")
    after = figures(voice)

    def grown(series):
        return after.get(series, 0) - before.get(series, 0)

    assert grown('edgekit_requests_total{path="/predict",status="200"}') == 1
    assert grown('edgekit_requests_total{path="/predict",status="400"}') == 1
    assert grown('edgekit_requests_total{path="other",status="404"}') == 1
    assert grown("edgekit_predict_seconds_count") == 1
    assert grown('edgekit_predict_seconds_bucket{le="+Inf"}') == 1
    assert grown("edgekit_predict_seconds_sum") > 0
    assert after["edgekit_ready"] == 1
    assert after["edgekit_uptime_seconds"] >= before["edgekit_uptime_seconds"]
    buckets = [value for series, value in after.items() if "_bucket" in series]
    assert buckets == sorted(buckets)


def test_until_the_model_is_loaded_it_says_so_and_then_tells_systemd(bundle, gate, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{tmp_path}/notify")
        systemd.settimeout(30)
        environment = {"PYTHONPATH": str(gate), "GATE": str(gate), "NOTIFY_SOCKET": f"{tmp_path}/notify"}
        with Serving(bundle, f"unix:{tmp_path}/s", **environment) as serving:
            serving.wait_until("loading")
            assert serving.ask("GET", "/health")[0] == 503
            status, answer, headers = serving.ask("POST", "/predict", IMAGE, NPY)
            assert (status, answer["error"], headers["Retry-After"]) == (503, "the model is loading", "1")
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
            systemd.settimeout(30)
            open_gate(gate / "load")
            assert systemd.recv(100) == b"READY=1"
            assert serving.ask("GET", "/health")[0] == 200
            assert serving.end()[0] == 0
            assert systemd.recv(100) == b"STOPPING=1"


def test_a_request_in_flight_is_answered_before_it_ends(gated, gate):
    open_gate(gate / "load")
    gated.wait_until("ok")
    answer = in_background(gated.ask, "POST", "/predict", marked(7), NPY)
    with (gate / "call").open("w"):  # the call waits for it to be closed
        gated.process.send_signal(signal.SIGTERM)
        until(lambda: not Path(gated.address[5:]).exists())
        assert gated.process.poll() is None
    assert answer()[0] == 200
    gated.process.communicate(timeout=30)
    assert gated.process.returncode == 0


def test_on_a_port_it_ends_as_well(bundle):
    with Serving(bundle, "127.0.0.1:0") as serving:
        assert serving.wait_until("ok").end() == (0, "")


def test_a_call_that_never_ends_does_not_keep_it(bundle, gate, tmp_path):
    program = "import run, sys; run.part('serve').GRACE_SECONDS = 1.0; sys.exit(run.main(sys.argv[1:]))"
    environment = {"PYTHONPATH": f"{gate}:{bundle}", "GATE": str(gate)}
    with Serving(bundle, f"unix:{tmp_path}/s", program=program, **environment) as serving:
        open_gate(gate / "load")
        serving.wait_until("ok")
        answer = in_background(serving.ask, "POST", "/predict", marked(7), NPY)
        with (gate / "call").open("w"):
            status, said = serving.end()
            assert status == 0
            assert said.splitlines()[-1] == "run.py: gave up 1 requests after 1 s"
        with pytest.raises((OSError, http.client.HTTPException)):
            answer()


def test_it_can_be_ended_while_it_loads(gated):
    gated.wait_until("loading")
    assert gated.end() == (0, "")
    assert not Path(gated.address[5:]).exists()


def test_who_comes_when_too_many_wait_is_asked_to_come_again(gated, gate):
    open_gate(gate / "load")
    gated.wait_until("ok")
    first = in_background(gated.ask, "POST", "/predict", marked(7), NPY)
    with (gate / "call").open("w"):
        waiting = [in_background(gated.ask, "POST", "/predict", marked(1), NPY) for _ in range(16)]
        until(lambda: figures(gated)["edgekit_requests_in_flight"] == 18)  # with the one that asks
        status, _, headers = gated.ask("POST", "/predict", marked(1), NPY)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert gated.ask("GET", "/health")[0] == 200
    assert [answer()[0] for answer in (first, *waiting)] == [200] * 17


def test_inputs_that_the_runtime_refuses_are_the_clients_fault_while_the_golden_sample_agrees(gated, gate):
    open_gate(gate / "load")
    gated.wait_until("ok")
    status, answer, _ = gated.ask("POST", "/predict", marked(8), NPY)
    assert (status, answer["error"]) == (
        422,
        "the runtime refuses the model or these inputs: no such index",
    )
    assert gated.ask("GET", "/health")[0] == 200
    (gate / "broken").touch()
    assert gated.ask("POST", "/predict", marked(1), NPY)[0] == 500
    assert gated.ask("GET", "/health")[:1] == (503,)
    (gate / "broken").unlink()
    assert gated.ask("POST", "/predict", marked(8), NPY)[0] == 422
    assert gated.ask("GET", "/health")[0] == 200
    assert figures(gated)["edgekit_predict_errors_total"] == 3


def test_a_socket_that_nobody_listens_on_any_more_is_replaced_and_is_the_users_alone(bundle, tmp_path):
    path = tmp_path / "s"
    with Serving(bundle, f"unix:{path}") as serving:
        serving.wait_until("ok")
        assert path.stat().st_mode & 0o777 == 0o600
        serving.process.kill()
        serving.process.wait()
    assert path.is_socket()
    with Serving(bundle, f"unix:{path}") as serving:
        assert serving.wait_until("ok").end()[0] == 0
    assert not path.exists()


def refusal(bundle, address, *, python=sys.executable):
    """The exit status and the only line of a service that does not begin."""
    command = [python, bundle / "run.py", "--serve", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


def test_a_socket_that_somebody_listens_on_is_left_to_him(tiny, bundle):
    status, line = refusal(bundle, tiny.address)
    assert status == 4
    assert "another process serves there" in line
    assert tiny.ask("GET", "/health")[0] == 200


def test_another_file_in_the_sockets_place_stays(bundle, tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert refusal(bundle, f"unix:{tmp_path}/notes")[0] == 2
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_port_that_is_taken_is_refused(voice, bundle):
    status, line = refusal(bundle, voice.address)
    assert status == 4
    assert "Address already in use" in line


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0.0.0.0:8080", "other machines could reach it; serve on 127.0.0.1 and put a proxy in front"),
        ("[::]:8080", "put a proxy in front"),
        ("192.0.2.1:8080", "put a proxy in front"),
        ("example.com:80", "not an address; write unix:/path/of.sock or 127.0.0.1:PORT"),
        ("8080", "not an address"),
        ("127.0.0.1:99999", "not a port"),
        ("127.0.0.1:-1", "not an address"),
        ("unix:/no/such/folder/s", "/no/such/folder: No such file or directory"),
    ],
)
def test_an_address_that_others_could_reach_or_that_is_none_is_refused(bundle, address, words):
    status, line = refusal(bundle, address)
    assert status == 2
    assert words in line


def test_a_path_that_is_too_long_for_a_socket_is_refused(bundle, tmp_path):
    status, line = refusal(bundle, f"unix:{tmp_path}/{'x' * 120}")
    assert status == 4
    assert "too long" in line


def test_a_damaged_bundle_and_a_missing_runtime_are_not_served(bundle, bare_python, tmp_path):
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    status, line = refusal(bundle, f"unix:{tmp_path}/s")
    assert status == 5
    assert "check failed: model.onnx has" in line
    with (bundle / "model.onnx").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    status, line = refusal(bundle, f"unix:{tmp_path}/s", python=bare_python)
    assert status == 4
    assert "No module named" in line
    assert not (tmp_path / "s").exists()


def test_a_model_that_does_not_answer_as_it_must_is_not_served(bundle, tmp_path):
    arrays = dict(np.load(bundle / "golden.npz"))
    np.savez(bundle / "golden.npz", **{**arrays, "s0_o0": -arrays["s0_o0"]})
    manifest = json.loads((bundle / "manifest.json").read_text())
    content = (bundle / "golden.npz").read_bytes()
    manifest["files"]["golden.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    status, line = refusal(bundle, f"unix:{tmp_path}/s")
    assert status == 5
    assert "golden sample 0: output `logits` has signal-to-noise" in line


def test_a_larger_body_is_read_where_the_user_allows_it(bundle, tmp_path):
    with Serving(bundle, f"unix:{tmp_path}/s", "--max-body", "0.001") as serving:
        serving.wait_until("ok")
        assert serving.ask("POST", "/predict", IMAGE, NPY)[0] == 413
    command = [sys.executable, bundle / "run.py", "--check", "--max-body", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--max-body is an option of --serve" in done.stderr


def test_the_usual_limit_follows_the_inputs():
    usual = run.part("serve").usual_body
    fixed, free = {"name": "x", "shape": [4, 1000, 1000]}, {"name": "x", "shape": ["n", 1000, 1000]}
    assert usual([fixed], {"x": np.zeros((4, 1000, 1000))}) == 32 * 4_000_000
    assert usual([free], {"x": np.zeros((1, 1000, 1000))}) == 32 * 16_000_000
    assert usual([fixed], {"x": np.zeros(3)}) == 1_000_000


@pytest.fixture
def hurried(made_bundles, tmp_path, monkeypatch):
    """A server in this process that has little patience."""
    parts = {name: run.part(name) for name in ("serve", "serve_address", "serve_http")}
    monkeypatch.setattr(parts["serve_http"], "REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(parts["serve_http"], "IDLE_SECONDS", 0.2)
    bundle = str(made_bundles / "tiny")
    options = Namespace(max_body=None, threads=1)
    service = parts["serve"].Service(run, bundle, run.read_manifest(bundle), options)
    ready = threading.Event()
    with parts["serve_address"].listening(run, f"unix:{tmp_path}/s") as (listener, _):
        parts["serve_http"].Server(listener, service)
        service.start(on_change=ready.set, on_ready=ready.set)
        assert ready.wait(30)
        yield f"{tmp_path}/s"
        service.stop()


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /health HTTP/1.1\r\nX: ",
        b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
    ],
    ids=["head", "body"],
)
def test_who_sends_a_byte_now_and_then_is_not_waited_for(hurried, begin):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(hurried)
        client.sendall(begin)
        client.settimeout(0.05)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(BrokenPipeError):
                client.sendall(b"1")
            with contextlib.suppress(socket.timeout):
                assert client.recv(100).startswith(b"HTTP/1.1 408 ")
                return
    pytest.fail("it is still waiting")


def test_who_says_nothing_is_not_waited_for(hurried):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(hurried)
        client.settimeout(10)
        assert client.recv(100) == b""


def test_more_connections_than_it_has_places_for_are_answered_in_the_end(hurried):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(80)]
        for client in clients:
            client.connect(hurried)  # and most of them say nothing
        clients[-1].sendall(b"GET /health HTTP/1.1\r\n\r\n")
        clients[-1].settimeout(20)
        assert clients[-1].recv(15) == b"HTTP/1.1 200 OK"
