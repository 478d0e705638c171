"""The explorer in a real browser (make test-web): a headless Chromium drives the page as a user
does.
"""

import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, write
from made import save_checkpoint, scenes_task

pytestmark = pytest.mark.web


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    save_checkpoint(scenes_task(), folder / "cyclenet.ckpt")
    save_checkpoint(scenes_task(context="denseaspp", decoder="none"), folder / "denseaspp.ckpt")
    write(
        folder / "street.png",
        np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8),
    )
    write(folder / "large.png", np.zeros((1000, 1001, 3), np.uint8))
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    words = ["ckpt_path=cyclenet.ckpt", "compare=denseaspp.ckpt", "port=0", "max_pixels=1000000"]
    command = [sys.executable, str(ROOT / "src/explore.py"), *words]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    line = server.stdout.readline()
    assert "http://127.0.0.1:" in line, line + server.stdout.read()
    yield re.search(r"http://\S+", line)[0]
    server.send_signal(signal.SIGINT)  # As Ctrl-C.
    rest = server.communicate(timeout=20)[0]
    assert "Traceback" not in rest and "Error" not in rest, rest


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    program = next(
        (
            path
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (path := shutil.which(name))
        ),
        None,
    )
    assert program, "No Chromium is installed; make test-web does it where apt-get can be used."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.problems = problems
    page.goto(address)
    status(page, "val_00000, 128 x 64 pixels.")
    yield page
    page.close()
    assert [
        text for text in problems if "status of 4" not in text
    ] == []  # A refusal is told on the page.


def status(page, text):
    from playwright.sync_api import expect

    expect(page.get_by_role("status")).to_contain_text(text, timeout=30_000)


def alert(page, text):
    from playwright.sync_api import expect

    expect(page.get_by_role("alert")).to_contain_text(text, timeout=30_000)


def canvas(page):
    """The pixels that the stage shows."""
    values = page.locator("#stage").evaluate(
        "c => ({size: [c.height, c.width], data: "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]})"
    )
    return np.array(values["data"]).reshape(*values["size"], 4)[..., :3]


def click(page, x, y):
    box, (height, width) = page.locator("#stage").bounding_box(), canvas(page).shape[:2]
    page.mouse.click(
        box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height
    )


def test_the_page_shows_image_and_segmentation(page):
    assert canvas(page).shape == (64, 128, 3)
    shown = canvas(page)
    page.get_by_label("Opacity of all").fill("0")
    plain = canvas(page)
    assert (shown != plain).any()
    page.get_by_label("Opacity of all").fill("100")
    colors = {
        tuple(color) for color in canvas(page)[:, :60].reshape(-1, 3)
    }  # Left of the line between both models.
    names = page.locator("#legend .name").all_inner_texts()
    assert len(colors) <= len(names) <= 19 and len(set(names)) == len(names)


def test_a_click_explains_the_pixel_in_both_models(page):
    click(page, 40, 30)
    status(page, "Took")
    result = page.locator("#result")
    assert result.get_attribute("data-done") in ("40,30", "39,30", "40,29", "39,29")
    assert result.locator("h3").count() == 2
    # Similarity and Grad-CAM of PartI and PartII, ADC; similarity and Grad-CAM of DenseASPP's
    # PartI.
    assert result.locator("img").count() == 5 + 2
    widths = result.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert all(width > 1 for width in widths)
    assert all(image.get_attribute("alt") for image in result.locator("img").all())
    assert (
        "PartI" in result.inner_text()
        and "PartII" in result.inner_text()
        and "%" in result.inner_text()
    )
    before = result.locator("img").first.get_attribute("src")
    page.get_by_label("Layer of the similarity").select_option("rate 1")
    page.wait_for_timeout(100)
    status(page, "Took")
    assert result.locator("img").first.get_attribute("src") != before


def test_the_keyboard_does_what_the_mouse_does(page):
    page.locator("#stage").focus()
    for key in ("Shift+ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        page.keyboard.press(key)
    status(page, "Cross at 53, 41:")
    page.keyboard.press("Enter")
    status(page, "Pixel 53, 41:")
    status(page, "Took")
    assert page.locator("#result").get_attribute("data-done") == "53,41"


def test_the_slider_moves_between_two_checkpoints(page):
    page.get_by_label("Opacity of all").fill("100")
    slider = page.get_by_role("slider", name="Boundary between the left and the right segmentation")
    slider.fill("100")
    left = canvas(page)
    slider.fill("0")
    right = canvas(page)
    assert (left != right).any()
    slider.fill("50")
    both = canvas(page)
    assert np.array_equal(both[:, :62], left[:, :62]) and np.array_equal(
        both[:, 66:], right[:, 66:]
    )
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"


def test_a_class_can_be_made_transparent(page):
    page.get_by_label("Opacity of all").fill("100")
    page.get_by_role("slider", name="Boundary").fill("100")
    before, colors = canvas(page), set()
    for name in page.locator("#legend .name").all_inner_texts():
        slider = page.get_by_role("slider", name=f"Opacity of {name}, percent")
        slider.fill("0")
        changed = (canvas(page) != before).any(-1)
        slider.fill("100")
        found = {tuple(color) for color in before[changed]}
        assert len(found) <= 1  # That class alone, which may be in the right picture only.
        colors |= found
    assert colors == {tuple(color) for color in before.reshape(-1, before.shape[-1])}


def test_upload_and_bad_files(page, folder):
    page.get_by_label("or a file").set_input_files(folder / "street.png")
    status(page, "street.png, 120 x 90 pixels.")
    page.get_by_label("Opacity of all").fill("0")
    page.get_by_role("slider", name="Boundary").fill("100")
    assert np.array_equal(canvas(page), np.asarray(Image.open(folder / "street.png")))
    page.get_by_label("or a file").set_input_files(folder / "bad.png")
    alert(page, "bad.png is not a readable image")
    page.get_by_label("or a file").set_input_files(folder / "large.png")
    alert(page, "large.png has 1001 x 1000 pixels; the limit is 1000000 (max_pixels).")
    click(page, 100, 80)  # The image before is still there.
    status(page, "Took")
    assert page.locator("#error").inner_text() == ""


def test_drop_a_file(page, folder):
    data = (folder / "street.png").read_bytes()
    script = "bytes => new File([new Uint8Array(bytes)], 'dropped.png')"
    transfer = page.evaluate_handle(
        "bytes => { const made = new DataTransfer(); "
        f"made.items.add(({script})(bytes)); return made; }}",
        list(data),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    status(page, "dropped.png, 120 x 90 pixels.")


def test_a_figure_is_downloaded(page, tmp_path):
    page.get_by_role("button", name="Download the figure as PNG").click()
    alert(page, "Choose a pixel first")
    click(page, 40, 30)
    status(page, "Took")
    for kind, ending in (("figure4", "PNG"), ("offsets", "PDF")):
        page.get_by_label("Figure").first.select_option(kind)
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download the figure as {ending}").click()
        name = waiting.value.suggested_filename
        assert re.fullmatch(rf"val_00000-{kind}-\d+-\d+\.{ending.lower()}", name), name
        waiting.value.save_as(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 10_000


def test_every_control_has_a_name(page):
    click(page, 40, 30)
    status(page, "Took")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, canvas, img')].filter(each =>
        {
             const label = each.labels && [...each.labels].some(l => l.textContent.trim());
             return !(label || each.getAttribute('aria-label') || each.alt ||
             each.textContent.trim());
           }).map(each => each.outerHTML)"""
    )
    assert unnamed == []


def test_a_server_that_is_gone_is_said_on_the_page(page):
    page.route("**/api/**", lambda route: route.abort())
    click(page, 40, 30)
    alert(page, "The server does not answer")
    page.problems.clear()  # The browser's own lines about it.
