"""The app in a real browser: characters are drawn, files dropped, and messages read.

INKRUN_SCREENSHOTS=docs writes the images of docs/app.md.
"""

import base64
import os
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from app_started import free_port, missing_for_browser, served, train, write_characters
from raw_data import chunk

LACKS = missing_for_browser()
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(LACKS), reason=f"needs {LACKS}")]

Point = tuple[float, float]  # fractions of the sheet's side

SEVEN: Sequence[Sequence[Point]] = [[(0.32, 0.22), (0.66, 0.2), (0.44, 0.8)]]
LETTER_A: Sequence[Sequence[Point]] = [
    [(0.3, 0.8), (0.5, 0.2), (0.7, 0.8)],
    [(0.37, 0.58), (0.63, 0.58)],
]
HUGE = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)  # a PNG's header
WAIT = 60_000  # ms, on a busy machine


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, the dataset of the second of which is gone."""
    folder = tmp_path_factory.mktemp("project")
    run = train(folder, write_characters(folder / "characters.beton"), epochs=10)
    other = shutil.copytree(run, folder / "runs" / "gone" / "1")
    config = (other / "config.json").read_text().replace("characters.beton", "gone.beton")
    (other / "config.json").write_text(config)
    (other / "SHA256SUMS").unlink()
    return folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    # A proxy that does not answer: the app needs none to reach itself.
    proxy = f"http://127.0.0.1:{free_port()}"
    with served(project, ["runs/characters/latest"], HTTP_PROXY=proxy, http_proxy=proxy) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """The page in a browser window, the URLs that it requests, and its errors."""

    def __init__(self, window: Any, address: str) -> None:
        self.page = window.new_page()
        self.urls: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.sheet = self.page.locator("#sheet canvas")
        self.sheet.wait_for(timeout=WAIT)

    def draw(self, strokes: Sequence[Sequence[Point]]) -> None:
        """Draw with the mouse."""
        box, mouse = self.sheet.bounding_box(), self.page.mouse
        for (x, y), *others in strokes:
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["width"])
            mouse.down()
            for x, y in others:
                mouse.move(box["x"] + x * box["width"], box["y"] + y * box["width"], steps=8)
            mouse.up()

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Give files to the field, as a drop does."""
        given = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
        self.page.set_input_files("#files input[type=file]", given)

    def wait(self, text: str) -> str:
        """Wait for a text in the results; return all of them."""
        results = self.page.locator("#results")
        results.get_by_text(text).first.wait_for(timeout=WAIT)
        return str(results.inner_text())

    def read(self, label: str, kinds: int = 6) -> None:
        """Wait for a prediction with its neighbours."""
        verdict = self.page.locator(".verdict strong", has_text=re.compile(f"^{label}$"))
        verdict.wait_for(timeout=WAIT)
        self.page.locator(".neighbours figure").nth(kinds - 1).wait_for(timeout=WAIT)

    def clear(self) -> None:
        """Press the button, and wait for the results to go."""
        self.page.get_by_role("button", name="Clear", exact=True).first.click()
        self.wait("Draw a character or drop image files")


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    window = chromium.new_context(viewport={"width": 1100, "height": 900})
    one = Visit(window, address)
    yield one
    window.close()
    assert one.errors == []
    assert {url.split("/")[2] for url in one.urls if url.startswith("http")} == {
        address.split("/")[2]
    }
    assert all(url.startswith(("http:", "data:", "blob:")) for url in one.urls)


def photograph(visit: Visit, name: str, folder: Path) -> None:
    """Save the page as an image, of less than 200 KB."""
    path = Path(os.environ.get("INKRUN_SCREENSHOTS", folder)).absolute() / name
    visit.page.mouse.move(0, 0)
    visit.page.screenshot(path=path, full_page=True)
    assert path.stat().st_size < 200_000


def test_drawn_characters_are_read(visit: Visit, tmp_path: Path) -> None:
    visit.draw(SEVEN)
    visit.read("7")
    photograph(visit, "app.png", tmp_path)
    visit.clear()
    visit.draw(LETTER_A)
    visit.read("A")
    visit.page.get_by_role("button", name="Undo", exact=True).click()
    visit.page.get_by_role("button", name="Undo", exact=True).click()
    visit.wait("Draw a character or drop image files")


def test_files_are_read_and_what_is_no_image_gets_a_message(visit: Visit) -> None:
    visit.draw(SEVEN)
    visit.read("7")
    drawing = visit.sheet.evaluate("sheet => sheet.toDataURL()").split(",")[1]
    visit.clear()
    broken = ("broken.png", b"\x89PNG\r\n\x1a\n and no more")
    huge = ("huge.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HUGE) + chunk(b"IDAT", b""))
    visit.drop(("seven.png", base64.b64decode(drawing)), broken, ("notes.txt", b"text"), huge)
    text = visit.wait("seven.png")
    for name in ("broken.png: ", "notes.txt: not recognised", "huge.png: "):
        assert name in text
    visit.read("7")


def test_a_file_over_the_limit_is_refused(visit: Visit, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate((20 << 20) + 1)
    visit.page.set_input_files("#files input[type=file]", file.name)
    visit.page.get_by_text("exceed the maximum allowed size").wait_for(timeout=WAIT)


def test_a_run_without_its_dataset_shows_no_neighbours(visit: Visit) -> None:
    visit.draw(SEVEN)
    visit.read("7")
    visit.page.get_by_label("Network").click()
    visit.page.get_by_role("option").filter(has_text="gone").click()
    visit.wait("gone.beton is gone")
    assert visit.page.locator(".bars li").count() == 5
    assert visit.page.locator(".neighbours").count() == 0


def test_a_phone_shows_all_without_scrolling_sideways(
    chromium: Any, address: str, tmp_path: Path
) -> None:
    window = chromium.new_context(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    )
    visit = Visit(window, address)
    box = visit.sheet.bounding_box()

    def touch(kind: str, *points: Point) -> None:
        places = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["width"]} for x, y in points
        ]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    devtools = window.new_cdp_session(visit.page)
    for start, *others in LETTER_A:
        touch("touchStart", start)
        x, y = start
        for end in others:
            for step in range(1, 9):
                touch("touchMove", (x + (end[0] - x) * step / 8, y + (end[1] - y) * step / 8))
            x, y = end
        touch("touchEnd")
    visit.read("A")
    assert visit.page.evaluate("window.scrollY") == 0  # a finger draws and does not scroll
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    photograph(visit, "app-phone.png", tmp_path)
    window.close()
