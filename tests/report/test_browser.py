"""The report in a real browser: Chromium as the system has it, without a network."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")

ROWS = "[data-examples] tbody tr:visible"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(page, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture
def opened(browser, file, request):
    """The page in a window, and everything that it complained about."""
    options = {"viewport": {"width": 1200, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(**options)
    window, complaints = context.new_page(), []
    window.on("console", lambda message: complaints.append(message.text))
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
    window.goto(file.as_uri())
    yield window
    assert complaints == []
    context.close()


def column(window, name):
    """Text of the cells of a column, in the rows that are seen."""
    names = [text.strip() for text in window.locator("[data-examples] thead th").all_inner_texts()]
    return [row.locator("th, td").nth(names.index(name)).inner_text() for row in window.locator(ROWS).all()]


def test_it_renders_and_every_image_loads(opened):
    assert opened.title().startswith("Report of")
    assert opened.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert opened.locator("svg").count() >= 4


def test_sorting(opened):
    heading = opened.locator("[data-examples]").get_by_role("columnheader", name="probability")
    heading.get_by_role("button").click()
    values = [float(text) for text in column(opened, "probability")]
    assert values == sorted(values)
    assert heading.get_attribute("aria-sort") == "ascending"
    # By the keyboard as well, and what is not known stays at the end.
    opened.get_by_role("button", name="follows noisy").press("Enter")
    opened.get_by_role("button", name="follows noisy").press("Enter")
    texts = column(opened, "follows noisy")
    known = [float(text.split()[0]) for text in texts if text != "–"]
    assert known == sorted(known, reverse=True)
    assert texts[len(known) :] == ["–"] * (len(texts) - len(known))


def test_filtering(opened):
    total = opened.locator(ROWS).count()
    opened.get_by_label("outcome").select_option("wrong")
    assert set(column(opened, "outcome")) == {"wrong"}
    wrong = opened.locator(ROWS).count()
    assert 0 < wrong < total
    assert f"{wrong} of {total}" in opened.get_by_role("status").inner_text()
    opened.get_by_label("outcome").select_option("any")
    opened.get_by_label("find").fill('ROW-7"')
    assert opened.locator(ROWS).count() == 1
    opened.get_by_label("find").fill("")
    assert opened.locator(ROWS).count() == total


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_phone_does_not_scroll_the_page_sideways(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("opened", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_table_is_whole(opened):
    assert opened.locator(ROWS).count() == 240
    assert not opened.get_by_label("find").count()


@pytest.mark.parametrize(("scheme", "behind"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")])
def test_it_follows_the_reader_to_light_and_dark(opened, scheme, behind):
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == behind
    ink = opened.evaluate("getComputedStyle(document.body).color")
    assert opened.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == ink
