"""The explorer's server: its answers, and what it refuses."""

import base64
import http.client
import io
import json
import os
import socket
import threading
import time
import urllib.parse
import zlib

import numpy as np
import pytest
import uvicorn
from PIL import Image

from conftest import run
from cyclenet.data.images import DataError
from cyclenet.lab.explain import explorer_app, serve
from cyclenet.lab.explain.canvas import HEAT
from cyclenet.lab.explain.explorer import HELD, Explorer
from cyclenet.lab.explain.explorer_app import application
from cyclenet.lab.explain.features import Explained
from cyclenet.lab.explain.inputs import Input
from made import save_checkpoint, scenes_task, task_of

BYTES = {"Content-Type": "application/octet-stream"}


def picture(seed=0, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def explorer():
    models = [
        ("CycleASPP + ADC", task_of()),
        ("DenseASPP", task_of(context="denseaspp", decoder="none")),
    ]
    truth = np.zeros((64, 96), np.uint8)
    return Explorer(
        models,
        [Input("first", lambda: picture(1), lambda: truth)],
        max_megabytes=0.1,
        max_pixels=10_000,
    )


@pytest.fixture(scope="module")
def port(explorer):
    server = uvicorn.Server(
        uvicorn.Config(application(explorer, ["127.0.0.1"]), port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def example(port, number="0", headers=BYTES):
    return ask(port, f"/api/example?number={number}", "POST", b"", headers)


def ask(port, path, method="GET", body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    return answer.status, data, dict(answer.getheaders())


def upload(port, data, name="a.png"):
    status, answer, _ = ask(port, f"/api/upload?name={name}", "POST", data, BYTES)
    return status, json.loads(answer)


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def test_an_uploaded_image_comes_back_with_its_segmentations(port, explorer):
    image = picture()
    status, answer = upload(port, png(image), "my%20street.png")
    assert (
        status == 200
        and answer["name"] == "my street.png"
        and (answer["width"], answer["height"]) == (96, 64)
    )
    assert np.array_equal(pixels(answer["image"]), image)
    for layer, (name, task) in zip(answer["layers"], explorer.models, strict=True):
        assert layer["name"] == name and np.array_equal(
            pixels(layer["labels"]), Explained(task, image).labels[-1]
        )


def test_an_example_has_its_truth(port):
    status, answer, _ = example(port)
    answer = json.loads(answer)
    assert status == 200 and [layer["name"] for layer in answer["layers"]] == [
        "CycleASPP + ADC",
        "DenseASPP",
        "truth",
    ]
    assert not pixels(answer["layers"][2]["labels"]).any()


def test_a_point_is_what_explain_says(port, explorer):
    from matplotlib import colormaps

    image = picture()
    key = upload(port, png(image))[1]["id"]
    _, answer, _ = ask(port, f"/api/{key}/point?model=0&x=50&y=20&layer=rate%202&target=2")
    answer, seen = json.loads(answer), Explained(explorer.models[0][1], image)
    assert answer["parts"] == ["PartI", "PartII"] and answer["layer"] == "rate 2"
    np.testing.assert_allclose(answer["probabilities"], seen.probabilities(50, 20), atol=1e-5)
    for part in range(2):
        shown = seen.over_pixels(seen.similarity(50, 20)[part, 1])
        heat = (colormaps[HEAT](shown)[..., :3] * 255).round()
        assert np.abs(pixels(answer["similarity"][part]) - heat).max() <= 1
    activation = seen.grad_cam(50, 20, 2)[1]
    shown = seen.over_pixels(activation / activation.max())
    heat = (colormaps[HEAT](shown)[..., :3] * 255).round()
    assert np.abs(pixels(answer["gradcam"][1]) - heat).max() <= 1
    row, column = seen.cell(50, 20, (16, 24))
    np.testing.assert_allclose(
        answer["offsets"]["samples"], seen.offsets.positions[row, column, 0], atol=0.01
    )
    _, other, _ = ask(port, f"/api/{key}/point?model=1&x=50&y=20")
    other = json.loads(other)
    assert (
        other["parts"] == ["PartI"] and "offsets" not in other and other["layer"] == "concatenation"
    )


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_figure_is_downloaded(port, ending):
    key = upload(port, png(picture()), "..%2F..%2Fetc%2Fstreet%22.png")[1]["id"]
    status, data, headers = ask(
        port, f"/api/{key}/figure?model=0&x=5&y=6&kind=gradcam&format={ending}"
    )
    assert status == 200 and data[:5] in (b"\x89PNG\r", b"%PDF-", b"<?xml")
    assert headers["content-disposition"] == f'attachment; filename="street_-gradcam-5-6.{ending}"'


def bomb():
    """A PNG of a few bytes that says it has 20000 x 20000 pixels."""

    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    head = (20000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"no picture", 400, "a.png is not a readable image"),
        (png(picture())[:200], 400, "a.png is not a readable image"),
        (bomb(), 400, "20000 x 20000 pixels; the limit is 10000 (max_pixels)"),
        (png(picture(size=(16, 96))), 400, "the network needs 32 on each side"),
        (bytes(100_001), 413, "a.png is larger than 0.1 MB (max_megabytes)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "a.png is not a readable image"),
    ],
)
def test_bad_uploads_get_one_sentence(port, data, status, sentence):
    found, answer = upload(port, data)
    assert found == status and sentence in answer["error"]


def test_an_upload_of_unsaid_length_is_cut_off(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = (b"\0" * 10_000 for _ in range(100))
    connection.request("POST", "/api/upload", body, BYTES, encode_chunked=True)
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/api/0123456789abcdef/point?model=0&x=1&y=1", 404, "no longer held"),
        ("/api/{key}/point?model=2&x=1&y=1", 400, "model must be"),
        ("/api/{key}/point?model=0&x=96&y=1", 400, "lies outside the image"),
        ("/api/{key}/point?model=0&x=1", 400, "y must be"),
        ("/api/{key}/point?model=0&x=1&y=1&target=4", 400, "target must be"),
        ("/api/{key}/figure?model=0&x=1&y=1&format=exe", 400, "format must be one of"),
        ("/api/{key}/figure?model=0&x=1&y=1&kind=all", 400, "There is no figure all"),
        ("/api/{key}/figure?model=1&x=1&y=1&kind=offsets", 400, "DenseASPP has no ADC"),
        ("/../../etc/passwd", 404, "Not Found"),
        ("/static/explorer.py", 404, "Not Found"),
    ],
)
def test_bad_requests_get_one_sentence(port, path, status, sentence):
    key = upload(port, png(picture()))[1]["id"]
    found, answer, headers = ask(port, path.format(key=key))
    assert found == status and sentence in json.loads(answer)["error"]
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and headers["x-content-type-options"] == "nosniff"
    )


@pytest.mark.parametrize("number", ["1", "-1", "../../etc/passwd", "", "1e0", "٠"])
def test_an_example_is_chosen_by_its_number_alone(port, number):
    status, answer, _ = example(port, urllib.parse.quote(number))
    assert status == 400 and "number must be a whole number below 1" in json.loads(answer)["error"]


def test_other_sites_are_refused(port):
    """A page of another site can neither send an image unasked, nor call the server by its own
    name.
    """
    assert (
        ask(port, "/api/upload", "POST", png(picture()), {"Content-Type": "text/plain"})[0] == 415
    )
    assert example(port, headers={})[0] == 415 and ask(port, "/api/example?number=0")[0] == 405
    assert ask(port, "/api", headers={"Host": "elsewhere.example"})[0] == 400
    status, _, headers = ask(
        port, "/api/upload", "OPTIONS", headers={"Origin": "http://elsewhere.example"}
    )
    assert status == 405 and not any(name.startswith("access-control") for name in headers)


def test_only_the_last_images_are_held(port, explorer, monkeypatch):
    monkeypatch.setattr(explorer, "max_pixels", 100_000)
    first = upload(port, png(picture()))[1]["id"]
    for seed in range(HELD):
        upload(port, png(picture(seed)))
    assert len(explorer.pictures) == HELD
    assert ask(port, f"/api/{first}/point?model=0&x=1&y=1")[0] == 404


def test_a_truth_that_cannot_be_used_is_left_out(explorer, capfd):
    def unreadable():
        raise DataError("mask.png is damaged.")

    explorer.examples += [Input("a", lambda: picture(1), unreadable)]
    explorer.examples += [Input("b", lambda: picture(1), lambda: np.zeros((10, 10), np.uint8))]
    for number in (1, 2):
        answer = explorer.open_example(number)
        assert [layer["name"] for layer in answer["layers"]] == ["CycleASPP + ADC", "DenseASPP"]
        for kind in ("feedback", "receptive_field"):
            assert explorer.figure(answer["id"], 0, kind, 5, 6, None, "svg")[0]
    assert "mask.png is damaged" in capfd.readouterr().out
    del explorer.examples[1:]


def test_large_images_are_held_one_at_a_time(explorer, monkeypatch):
    monkeypatch.setattr(explorer, "max_pixels", 64 * 96)
    keys = [explorer.open("a", picture(seed), None)["id"] for seed in range(3)]
    assert list(explorer.pictures) == keys[1:]


def test_the_downloaded_figure_explains_the_chosen_class(explorer):
    key = explorer.open("a", picture(), None)["id"]
    own = explorer.point(key, 0, 50, 20, "", None)["label"]
    chosen = [
        explorer.figure(key, 0, "gradcam", 50, 20, target, "svg")[0]
        for target in (None, own, (own + 1) % 4)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_photographs_stand_upright():
    """As the camera's tag says (6: turned by 90 degrees)."""
    explorer, buffer = Explorer([], [], 1, 10_000), io.BytesIO()
    image = Image.fromarray(picture(size=(40, 60)))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, "PNG", exif=exif)
    assert np.array_equal(
        explorer.decode("a", buffer.getvalue()), np.rot90(picture(size=(40, 60)), -1)
    )


def test_a_failure_of_ours_is_a_sentence_too(port, explorer, monkeypatch, capfd):
    def broken(*args):
        raise RuntimeError("secret path")

    key = upload(port, png(picture()))[1]["id"]
    monkeypatch.setattr(explorer, "point", broken)
    status, answer, _ = ask(port, f"/api/{key}/point?model=0&x=1&y=1")
    assert (
        status == 500
        and "RuntimeError" in json.loads(answer)["error"]
        and "secret" not in answer.decode()
    )


def test_mistakes_on_the_command_line(tmp_path):
    save_checkpoint(scenes_task(), tmp_path / "a.ckpt")
    save_checkpoint(task_of(), tmp_path / "b.ckpt")
    for words, sentence in [
        (["compare=b.ckpt"], "b.ckpt was trained on other classes than a.ckpt."),
        (["images=nothing"], "images: nothing is not a folder with images"),
        (["host=192.0.2.1"], "192.0.2.1:7860 cannot be listened on"),
        (["port=70000"], "port must be in [0, 65535]"),
    ]:
        output = run("explore", "ckpt_path=a.ckpt", *words, cwd=tmp_path, ok=False)
        assert sentence in output and "Traceback" not in output


def test_uploads_are_few_and_end(port, monkeypatch):
    monkeypatch.setattr(explorer_app, "MOST_UPLOADS", 0)
    status, answer = upload(port, png(picture()))
    assert status == 503 and "uploads are in progress" in answer["error"]
    monkeypatch.undo()
    monkeypatch.setattr(explorer_app, "UPLOAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), 10) as silent:
        head = "POST /api/upload?name=a.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n"
        silent.sendall(f"{head}Content-Type: application/octet-stream\r\n\r\nx".encode())
        assert silent.recv(100).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_closed(explorer, monkeypatch):
    monkeypatch.setattr(serve, "HEADER_SECONDS", 0.2)
    options = {"port": 0, "log_level": "warning", "http": serve.ImpatientProtocol}
    server = uvicorn.Server(uvicorn.Config(application(explorer, ["127.0.0.1"]), **options))
    threading.Thread(target=server.run, daemon=True).start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    number = server.servers[0].sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", number), 10) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert silent.recv(100) == b""  # It was closed.
    assert ask(number, "/")[0] == 200
    server.should_exit = True


def test_names_that_are_no_utf8_are_shown(explorer):
    example = Input(os.fsdecode(b"stra\xdfe.png"), lambda: picture(1), lambda: None)
    other = Explorer(explorer.models, [example], 1, 10_000)
    assert json.dumps(other.describe(), ensure_ascii=False).encode()
    assert other.open_example(0)["name"] == "stra\\udcdfe.png"
