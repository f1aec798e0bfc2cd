"""report.html in headless Chromium and Firefox: by mouse, by keys alone, and what a screen reader gets."""

import csv
import json
import shutil
import time
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from made_run import study, write_run

from vfscreen.adjudication.reading import read_verdicts
from vfscreen.adjudication.verdicts import COLUMNS
from vfscreen.errors import UnreadableFile
from vfscreen.report.page import write_page
from vfscreen.report.picture import LEFT, SHEET_WIDTH
from vfscreen.study import Doubt

pytest.importorskip("selenium", reason="selenium is not installed, so no browser is driven")
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service as ChromeDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.firefox.service import Service as GeckoDriver
from selenium.webdriver.support.ui import Select, WebDriverWait

FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "window-size=1400,900"),
)
EDGE = Doubt("spine_at_edge", "the image ends in the spine", partial=True)
STUDIES = (
    study("s1", 0.9, 0.70, patient="P3", date="2021-05-01"),
    study("s2", 0.55, 0.66, 0.9, patient="P1", date="2019-05-01"),
    study("s3", 0.72, 0.70, 0.65, patient="P2", date="2023-05-01", status="partial", doubts=(EDGE,)),
    study("=s4", 0.58, patient="P10", date=None),
    study("torn", error=UnreadableFile("IM7 is truncated")),
    study("short", 0.9, status="partial", doubts=(EDGE,)),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = write_run(tmp_path_factory.mktemp("run"), *STUDIES)
    write_page(out)
    return out


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request, downloads, tmp_path_factory):
    begin = {"chromium": chromium, "firefox": firefox}[request.param]
    browser = begin(downloads, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


def installed(*names):
    """The first of these programs that is there."""
    paths = [path for name in names if (path := shutil.which(name))]
    return paths[0] if paths else pytest.skip(f"{names[0]} is not installed")


def chromium(downloads, profile):
    options = webdriver.ChromeOptions()
    options.binary_location = installed("chromium")
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, ChromeDriver(installed("chromedriver")))


def firefox(downloads, profile):
    options = webdriver.FirefoxOptions()
    options.binary_location = installed("firefox", "firefox-esr")
    for flag in ("-headless", "-remote-allow-system-access", "-width", "1400", "-height", "900"):
        options.add_argument(flag)
    options.set_preference("browser.download.folderList", 2)  # where the next line says
    options.set_preference("browser.download.dir", str(downloads))
    return webdriver.Firefox(options, GeckoDriver(installed("geckodriver")))


def devtools(browser, command, arguments):
    """What Firefox has no match for is tested in Chromium alone."""
    if browser.name == "firefox":
        pytest.skip("needs DevTools of Chromium")
    return browser.execute_cdp_cmd(command, arguments)


@pytest.fixture
def page(browser, out, downloads):
    """The report with no verdict in it, in light colours."""
    for path in downloads.iterdir():
        path.unlink()
    colours(browser, "light")
    browser.get((out / "report.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return browser


def colours(browser, scheme):
    if browser.name == "firefox":
        name, value = "layout.css.prefers-color-scheme.content-override", ["dark", "light"].index(scheme)
        with browser.context(browser.CONTEXT_CHROME):
            browser.execute_script("Services.prefs.setIntPref(...arguments)", name, value)
    else:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def by_id(page, name):
    return page.find_element(By.ID, name)


def press(page, *keys):
    for key in keys:
        webdriver.ActionChains(page).send_keys(key).perform()


def patients(page):
    """Of the cards that are filled, in the order of the page."""
    script = "return [...document.querySelectorAll('.card h3')].map((h) => h.textContent)"
    return page.execute_script(script)


def wait(page, condition):
    WebDriverWait(page, 10).until(lambda _: condition())


def see(page, *expected):
    """Wait for the cards of these patients."""
    try:
        wait(page, lambda: patients(page) == list(expected))
    except TimeoutException:
        assert patients(page) == list(expected)


def choose(page, name, text):
    """By arrow keys, as a reader does: the driver's own way of choosing makes no event `input`."""
    select = Select(by_id(page, name))
    at = [option.text for option in select.options].index(text)
    by_id(page, name).send_keys(Keys.HOME, *[Keys.ARROW_DOWN] * at)


def pressed(page, within):
    buttons = page.find_elements(
        By.CSS_SELECTOR,
        f"{within} [aria-pressed=true][data-verdict], {within} [aria-pressed=true][data-grade]",
    )
    return [
        button.get_dom_attribute("data-verdict") or button.get_dom_attribute("data-grade")
        for button in buttons
    ]


def of_patient(page, patient):
    return next(
        card for card in page.find_elements(By.CSS_SELECTOR, ".card") if patient in card.text.split("\n")
    )


def saved(page, downloads):
    """The file of verdicts that the page saves, as bytes."""
    by_id(page, "save").click()
    path = downloads / "verdicts.csv"
    wait(page, lambda: path.exists() and path.stat().st_size)
    return path.read_bytes()


def rows(content):
    return list(csv.DictReader(content.decode("utf-8-sig").splitlines()))


# --- the contact sheet ---------------------------------------------------------------------------


def test_every_flagged_study_has_a_card_with_its_numbers_the_worst_first(page):
    see(page, "P1", "P10", "P2", "P3")
    text = of_patient(page, "P1").text
    for part in (
        "2019-05-01",
        "G 0.550",
        "severe",
        "90 %: 0.5",
        "vertebra 1 of 3, wedge",
        "2 vertebrae ≤ 0.74",
    ):
        assert part in text
    assert "Partial: spine at edge" in of_patient(page, "P2").text


def test_a_card_shows_the_spine_without_the_labels_beside_it(page):
    image = of_patient(page, "P1").find_element(By.TAG_NAME, "img")
    script = "return [arguments[0].style.getPropertyValue('--spine'), arguments[0].naturalHeight]"
    wait(page, lambda: page.execute_script(script, image)[0])
    shown, height = page.execute_script(script, image)
    assert float(shown) * height == pytest.approx(LEFT + SHEET_WIDTH)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("date, latest first", ["P2", "P3", "P1", "P10"]),
        ("patient", ["P1", "P2", "P3", "P10"]),
        ("G, lowest first", ["P1", "P10", "P2", "P3"]),
    ],
)
def test_the_sheet_is_sorted(page, order, expected):
    choose(page, "sort", order)
    see(page, *expected)


def test_the_sheet_is_filtered(page):
    by_id(page, "find").send_keys("p1")
    see(page, "P1", "P10")
    by_id(page, "find").send_keys("0")
    assert "1 shown" in by_id(page, "progress").text
    page.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    see(page, "P1", "P10", "P2", "P3")
    choose(page, "grade", "moderate")
    see(page, "P2", "P3")
    choose(page, "status", "partial")
    see(page, "P2")
    choose(page, "grade", "any"), choose(page, "status", "any")
    by_id(page, "deformed").send_keys(*[Keys.ARROW_UP] * 3)
    see(page, "P2")
    by_id(page, "find").send_keys("nobody")
    assert by_id(page, "none").is_displayed()


def test_the_sheet_is_filtered_by_verdict(page):
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    choose(page, "verdict", "not read")
    see(page, "P10", "P2", "P3")
    choose(page, "verdict", "unsure")
    see(page, "P1")


def test_a_study_stays_in_sight_when_its_verdict_no_longer_fits_the_filter(page):
    choose(page, "verdict", "not read")
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    assert "P1" in patients(page)


def test_a_study_without_a_picture_says_so(browser, tmp_path):
    out = write_run(tmp_path, study("a", 0.5))
    write_page(out)
    shutil.rmtree(out / "thumbnails")
    browser.get((out / "report.html").as_uri())
    wait(browser, lambda: "no picture" in of_patient(browser, "P-a").text)
    by_id(browser, "start").click()
    wait(browser, lambda: by_id(browser, "no-picture").is_displayed())


def test_studies_without_a_result_are_listed_and_found(page):
    assert not by_id(page, "unmeasured-rows").is_displayed()
    page.find_element(By.CSS_SELECTOR, "#unmeasured summary").click()
    wait(page, lambda: "2 of 2 studies" in by_id(page, "unmeasured-count").text)
    by_id(page, "unmeasured-find").send_keys("truncated")
    assert by_id(page, "unmeasured-rows").text.split()[:3] == ["P-torn", "torn", "failed"]
    assert by_id(page, "unmeasured-count").text == "1 of 1 study"


# --- verdicts ------------------------------------------------------------------------------------


def test_a_study_is_read_by_keys_alone(page):
    for _ in range(40):
        press(page, Keys.TAB)
        if page.switch_to.active_element.get_dom_attribute("id") == "start":
            break
    press(page, Keys.ENTER, "1", "s")
    assert by_id(page, "case-title").text == "P1"
    assert pressed(page, "#case") == ["fracture", "severe"]
    press(page, "v", "2", Keys.TAB, "L1, old", Keys.TAB)
    press(page, "j", "2", "j", "4", "k")
    assert by_id(page, "case-title").text == "P10"
    assert by_id(page, "case-said").text == "P10: G 0.580, severe; no fracture; 2 of 4"
    press(page, Keys.ESCAPE)
    assert by_id(page, "progress").text == "3 of 4 read"
    assert of_patient(page, "P10").find_element(By.CLASS_NAME, "open") == page.switch_to.active_element
    press(page, "n", "3")
    assert by_id(page, "said").text == "P3: unsure, kept; 4 of 4 read"


def test_arrows_go_on_and_back_and_the_ends_are_told(page):
    by_id(page, "start").click()
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert by_id(page, "case-place").text == "2 of 4"
    press(page, "j", "j", "j")
    assert by_id(page, "case-said").text == "This was the last one"
    assert not by_id(page, "next").is_enabled()


def test_cards_are_walked_and_read_by_keys(page):
    press(page, "j", "j", "2", "j", "m", "k", "k")
    assert page.switch_to.active_element.accessible_name == "Large view of P1: G 0.550, severe"
    assert [pressed(page, f".card:nth-child({i})") for i in (1, 2, 3)] == [[], ["no fracture"], ["fracture"]]
    press(page, Keys.ENTER)
    assert by_id(page, "case").is_displayed()


def test_keys_are_text_where_text_is_typed_and_can_be_switched_off(page):
    by_id(page, "start").click()
    press(page, "c", "1j?")
    assert by_id(page, "case-comment").get_property("value") == "1j?"
    press(page, Keys.TAB, "?")
    assert by_id(page, "help").is_displayed()
    by_id(page, "keys-on").click()
    press(page, Keys.ESCAPE, "1")
    assert pressed(page, "#case") == []


def test_a_verdict_is_undone_step_by_step(page):
    by_id(page, "start").click()
    press(page, "1", "s", "2")
    assert pressed(page, "#case") == ["no fracture"]
    press(page, "z")
    assert pressed(page, "#case") == ["fracture", "severe"]
    press(page, "z", "z")
    assert pressed(page, "#case") == []
    assert by_id(page, "case-said").text == "Undone, P1: no verdict; 0 of 4 read"
    press(page, "z")
    assert by_id(page, "case-said").text == "Nothing to undo"


def test_a_comment_that_is_undone_is_not_saved(page, downloads):
    by_id(page, "start").click()
    press(page, "1", "c", "old", Keys.ESCAPE)
    assert by_id(page, "said").text == "P1: comment kept; 1 of 4 read"
    by_id(page, "undo").click()
    assert [row["verdict_comment"] for row in rows(saved(page, downloads))] == [""]


def test_a_verdict_is_removed(page):
    by_id(page, "start").click()
    press(page, "o", "0")
    assert pressed(page, "#case") == []
    assert page.execute_script("return localStorage.length") == 0


def test_verdicts_are_there_after_a_reload(page):
    by_id(page, "reader").send_keys("Dr. K", Keys.TAB)
    by_id(page, "start").click()
    press(page, "o", "j", "4")
    page.refresh()
    assert by_id(page, "progress").text == "2 of 4 read"
    assert by_id(page, "reader").get_property("value") == "Dr. K"
    by_id(page, "start").click()
    assert by_id(page, "case-title").text == "P2"
    press(page, "k", "k")
    assert pressed(page, "#case") == ["fracture", "moderate"]


def test_another_run_has_no_verdicts_of_this_one(page, tmp_path):
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    other = write_run(tmp_path, *STUDIES, calls=[{"started": "2026-04-01T20:00:00+00:00"}])
    write_page(other)
    page.get((other / "report.html").as_uri())
    assert by_id(page, "progress").text == "0 of 4 read"


def test_two_windows_of_one_report_show_the_same_verdicts(page, out):
    first = page.current_window_handle
    page.switch_to.new_window("window")
    page.get((out / "report.html").as_uri())
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    page.close()
    page.switch_to.window(first)
    wait(page, lambda: by_id(page, "progress").text == "1 of 4 read")


def test_a_browser_that_keeps_nothing_is_told_of(page, downloads):
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })"
    script = devtools(page, "Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    page.refresh()
    assert "Verdicts are not kept" in by_id(page, "not-kept").text
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    assert by_id(page, "progress").text == "1 of 4 read"
    assert rows(saved(page, downloads))[0]["verdict"] == "unsure"
    devtools(page, "Page.removeScriptToEvaluateOnNewDocument", script)


# --- the file of verdicts ------------------------------------------------------------------------


def read_three(page):
    by_id(page, "reader").send_keys("Dr. K", Keys.TAB)
    by_id(page, "start").click()
    press(page, "s", "c", '=1+1, "old";\nÄ', Keys.TAB, "j", "2", "j", "3", Keys.ESCAPE)


def test_saved_verdicts_are_a_table_of_the_contract(page, downloads):
    read_three(page)
    content = saved(page, downloads)
    assert content.startswith(b"\xef\xbb\xbf")
    table = rows(content)
    assert list(table[0]) == ["study_id", *COLUMNS]
    assert [(row["study_id"], row["verdict"], row["verdict_grade"], row["reader"]) for row in table] == [
        ("s2", "fracture", "severe", "Dr. K"),
        ("'=s4", "no fracture", "", "Dr. K"),
        ("s3", "unsure", "", "Dr. K"),
    ]
    assert table[0]["verdict_comment"] == '\'=1+1, "old"; Ä'
    assert time.time() - read_at(table[0]["read_at"]) < 60


def test_saved_verdicts_are_what_adjudicate_reads(page, downloads):
    read_three(page)
    saved(page, downloads)
    readings = {reading.study_id: reading for reading in read_verdicts(downloads / "verdicts.csv")}
    assert {study: reading.verdict for study, reading in readings.items()} == {
        "s2": "fracture",
        "=s4": "no fracture",
        "s3": "unsure",
    }
    assert (readings["s2"].reader, readings["s2"].comment) == ("Dr. K", '=1+1, "old"; Ä')
    assert readings["s2"].moment.utcoffset() is not None


def read_at(text):
    at = datetime.fromisoformat(text)
    assert at.utcoffset() is not None
    return at.timestamp()


def test_saved_verdicts_are_loaded_elsewhere_and_the_loading_is_undone(page, downloads):
    read_three(page)
    first = saved(page, downloads)
    page.execute_script("localStorage.clear()")
    page.refresh()
    by_id(page, "file").send_keys(str(downloads / "verdicts.csv"))
    wait(page, lambda: by_id(page, "said").text == "3 rows loaded; 3 of 4 read")
    (downloads / "verdicts.csv").unlink()
    assert saved(page, downloads) == first
    by_id(page, "undo").click()
    assert by_id(page, "progress").text == "0 of 4 read"


def test_a_file_that_a_spreadsheet_saved_is_loaded_and_what_is_strange_is_told(page, tmp_path):
    lines = [
        ";".join(("study_id", "patient", *COLUMNS)),
        "s1;P3;Fracture;mild;2;;K;2026-01-01",
        "s9;P9;fracture;;;;K;",
        "s2;P1;perhaps;;;;K;",
        "s3;P2;;;;;;",
    ]
    (tmp_path / "edited.csv").write_text("\n".join(lines))
    by_id(page, "file").send_keys(str(tmp_path / "edited.csv"))
    wait(page, lambda: "loaded" in by_id(page, "said").text)
    assert by_id(page, "said").text == (
        "1 row loaded; 1 row of studies that are not in this report left out; "
        "1 row with an unknown verdict or grade left out; 1 of 4 read"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [("a,b\n1,2\n", "no column study_id"), ("", "no column"), ('study_id,"x', "quotation")],
)
def test_a_file_of_something_else_is_refused_with_the_reason(page, tmp_path, content, why):
    (tmp_path / "other.csv").write_text(content)
    by_id(page, "file").send_keys(str(tmp_path / "other.csv"))
    wait(page, lambda: "cannot be loaded" in by_id(page, "said").text)
    assert why in by_id(page, "said").text


# --- for everybody -------------------------------------------------------------------------------

CONTRASTS = """
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = (rgb) =>
  [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
const isClear = (color) => color.length === 4 && color[3] === 0;
const ground = (element) => {
  const color = channels(getComputedStyle(element).backgroundColor);
  return isClear(color) ? ground(element.parentElement) : color;
};
const contrast = (element) => {
  const colors = [channels(getComputedStyle(element).color), ground(element)];
  const [darker, lighter] = colors.map(luminance).sort((a, b) => a - b);
  return (lighter + 0.05) / (darker + 0.05);
};
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
return [...document.querySelectorAll("body *")]
  .filter((e) => hasText(e) && e.checkVisibility() && !e.disabled && !e.closest("svg, script, style"))
  .map((e) => [contrast(e), `${e.tagName} ${e.textContent.trim().slice(0, 40)}`]);
"""  # as WCAG 2.2 defines it


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_open", [False, True])
def test_all_text_stands_out_from_its_ground(page, scheme, is_open):
    colours(page, scheme)
    of_patient(page, "P1").find_element(By.CSS_SELECTOR, "[data-verdict=unsure]").click()
    page.find_element(By.CSS_SELECTOR, "#unmeasured summary").click()
    if is_open:
        by_id(page, "start").click()
        press(page, "s", "?")
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 100
    assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []


AXE = """
const [tags, done] = arguments;
axe.run(document, { runOnly: tags }).then(({ passes, violations }) =>
  done([passes.length, violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`))]));
"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def axe_core():
    package = find_spec("axe_playwright_python")
    if not package:
        pytest.skip("axe-playwright-python, which holds axe-core, is not installed")
    return (Path(package.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(page, scheme, axe_core):
    colours(page, scheme)
    page.find_element(By.CSS_SELECTOR, "#unmeasured summary").click()
    page.execute_script(axe_core)
    for view in ("page", "large view", "keys"):
        if view == "large view":
            by_id(page, "start").click()
        if view == "keys":
            press(page, "s", "?")
        passes, violations = page.execute_async_script(AXE, TAGS)
        assert passes > 20
        assert violations == []


CONTROLS = ("button", "input:not([hidden])", "select", "textarea", "summary", "[role=group]", "[role=region]")


@pytest.mark.parametrize("within", ["main", "#case"])
def test_every_control_and_picture_has_a_name(page, within):
    if within == "#case":
        by_id(page, "start").click()
    controls = page.find_elements(By.CSS_SELECTOR, ", ".join(f"{within} {control}" for control in CONTROLS))
    seen = [each for each in controls if each.is_displayed()]
    assert len(seen) > 15
    assert [each.get_attribute("outerHTML")[:80] for each in seen if not each.accessible_name] == []
    assert page.execute_script("return [...document.images].every((image) => image.hasAttribute('alt'))")


def test_headings_go_down_step_by_step_and_ids_stand_once(page):
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])"
    )
    assert levels.index(1) == 0
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert page.execute_script("return document.documentElement.lang") == "en"


def test_tab_reaches_every_control_and_shows_where_it_is(page):
    reached = set()
    for _ in range(60):
        press(page, Keys.TAB)
        active = page.switch_to.active_element
        if active.tag_name == "body":
            break
        assert active.value_of_css_property("outline-style") != "none", active.get_attribute("outerHTML")
        reached.add(active.id)
    controls = page.find_elements(
        By.CSS_SELECTOR, "main button, main select, main input:not([hidden]), summary, nav a"
    )
    missed = [
        each for each in controls if each.is_displayed() and each.is_enabled() and each.id not in reached
    ]
    assert [each.get_attribute("outerHTML") for each in missed] == []


def test_what_happens_is_told_to_a_screen_reader(page):
    by_id(page, "start").click()
    press(page, "1")
    said = by_id(page, "case-said")
    assert (said.aria_role, said.text) == ("status", "P1: fracture, kept; 1 of 4 read")
    assert by_id(page, "case").accessible_name == "P1"
    assert by_id(page, "next").accessible_name.strip() == "Next"
    assert by_id(page, "picture").accessible_name.startswith("Straightened and sagittal picture of P1")


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_no_wider_than_the_window(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    devtools(page, "Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    devtools(page, "Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_asked_of_a_network_and_nothing_fails(page, out):
    if page.name == "firefox":
        pytest.skip("needs the logs of Chromium")
    page.get_log("browser"), page.get_log("performance")
    page.refresh()
    by_id(page, "start").click()
    press(page, "1", "j", "f", Keys.ESCAPE)
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith("s2.png") for url in asked)
    assert [url for url in asked if not url.startswith(out.as_uri())] == []
    assert page.get_log("browser") == []


# --- many ----------------------------------------------------------------------------------------

MANY = 10_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    studies = (study(f"s{i:05}", 0.5 + i / 50_000, patient=f"P{i // 2}") for i in range(MANY))
    out = write_run(tmp_path_factory.mktemp("many"), *studies)
    write_page(out)
    return out


def loaded(browser):
    return browser.execute_script(
        "return [...document.images].filter((i) => i.complete && i.naturalWidth).length"
    )


def test_ten_thousand_studies_open_and_only_pictures_in_sight_are_loaded(browser, many):
    browser.get((many / "report.html").as_uri())
    assert by_id(browser, "progress").text == "0 of 10,000 read"
    browser.execute_script("document.getElementById('cards').scrollIntoView()")
    wait(browser, lambda: 4 <= loaded(browser) < 60)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    wait(browser, lambda: "P4999" in patients(browser))
    wait(browser, lambda: 4 <= loaded(browser) < 60)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#cards img")) < 100


def test_nothing_jumps_while_ten_thousand_studies_are_scrolled(browser, many):
    browser.get((many / "report.html").as_uri())
    height = browser.execute_script("return document.body.scrollHeight")
    for part in (0.3, 0.9, 0.1):
        browser.execute_script("window.scrollTo(0, arguments[0])", height * part)
        time.sleep(0.2)
        assert browser.execute_script("return document.body.scrollHeight") == height


def test_ten_thousand_studies_are_filtered_sorted_read_and_saved(browser, many, downloads):
    browser.get((many / "report.html").as_uri())
    by_id(browser, "find").send_keys("s09999")
    see(browser, "P4999")
    press(browser, Keys.TAB)
    browser.find_element(By.CSS_SELECTOR, ".card [data-verdict=unsure]").click()
    browser.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    choose(browser, "sort", "patient")
    wait(browser, lambda: patients(browser)[:2] == ["P0", "P0"])
    assert by_id(browser, "progress").text == "1 of 10,000 read"
    (downloads / "verdicts.csv").unlink(missing_ok=True)
    assert [row["study_id"] for row in rows(saved(browser, downloads))] == ["s09999"]
