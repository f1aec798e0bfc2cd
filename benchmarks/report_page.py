"""What does a page of 10,000 flagged studies cost to build, and to open and use in a browser?

    python benchmarks/report_page.py --flagged 10000 --out report_page.json

The run is made up: of its studies one in four is flagged, one in twenty has no result. Every flagged study
has one and the same picture, --picture or a grey one, under a name of its own. The page is built in a fresh
process, whose peak memory is given, and opened in headless Chromium, which needs selenium, chromium and
chromedriver. Memory is what the page's own process holds after a collection of its garbage. Times are medians
of three; beside those in the browser stand seconds of the CPU, which other load on the machine leaves alone.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
from made_run import study, write_run

from vfscreen.errors import InconsistentGeometry
from vfscreen.report.page import write_page
from vfscreen.results import StudyRecord
from vfscreen.study import Doubt

VERTEBRAE = 13
STUDIES_A_FLAG = 4
WITHOUT_RESULT = 0.05
REPEATS = 3
PATIENCE_S = 60
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "window-size=1400,900"),
)
EDGE = Doubt(
    "spine_at_edge", "the image ends in or beside the spine: it shows 41 % of the column", partial=True
)
FIRST_PICTURE = """
return new Promise((done) => {
  const look = () => {
    const isThere = [...document.images].some((image) => image.complete && image.naturalWidth);
    if (isThere) requestAnimationFrame(() => done(performance.now() / 1000));
    else setTimeout(look, 5);
  };
  look();
});
"""
REACTION = """
const [act, done] = [new Function(arguments[0]), arguments[1]];
const start = performance.now();
act();
requestAnimationFrame(() => setTimeout(() => done((performance.now() - start) / 1000)));
"""  # until the browser has drawn what changed
ACTIONS = {  # each changes what the one before left
    "filter to a tenth": "set('find', 'patient-1')",
    "filter to one": "set('find', 'study-0000123')",
    "no filter": "set('find', '')",
    "sort by patient": "set('sort', 'patient')",
    "sort by G": "set('sort', 'ratio')",
    "verdict": "document.querySelector('.card [data-verdict]').click()",
    "scroll to the end": "scrollTo(0, document.body.scrollHeight)",
    "scroll to the top": "scrollTo(0, 0)",
}
SET = """
const set = (id, value) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
"""


def main(
    flagged: Annotated[int, typer.Option(min=1)] = 10_000,
    picture: Annotated[Path | None, typer.Option(help="PNG of a study.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the run, to look at.")] = None,
) -> None:
    with tempfile.TemporaryDirectory(prefix="vfscreen-page-") as folder:
        results = keep or Path(folder) / "results"
        results.mkdir(parents=True, exist_ok=True)
        if picture:
            shutil.copy(picture, results / "picture.png")
        in_fresh_process(write_studies, results, flagged)
        figures = {**built(results), **opened(results)}
    for name, value in figures.items():
        print(f"{name:28} {value:10.2f}")
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")


def in_fresh_process(step: Callable[..., Any], *args: object) -> Any:
    """What it gives; its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, args)


# --- a run that is made up -----------------------------------------------------------------------


def write_studies(results: Path, flagged: int) -> None:
    write_run(results, *studies(flagged))


def studies(flagged: int) -> Iterator[StudyRecord]:
    """Flagged ones first; numbers of patients and studies as an archive has them."""
    rng = np.random.default_rng(7)
    for number in range(flagged * STUDIES_A_FLAG):
        name, patient = f"study-{number:07}", f"patient-{number // 2}"
        ratios = rng.uniform(0.76, 0.96, VERTEBRAE)
        if number < flagged:
            ratios[rng.integers(VERTEBRAE, size=2)] = rng.uniform(0.4, 0.74, 2)
        if number >= flagged and rng.random() < WITHOUT_RESULT:
            yield without_result(name, patient, partial=rng.random() < 0.5)
        else:
            yield study(name, *ratios.tolist(), patient=patient)


def without_result(name: str, patient: str, partial: bool) -> StudyRecord:
    if partial:
        return study(name, 0.85, patient=patient, status="partial", doubts=(EDGE,))
    return study(name, patient=patient, error=InconsistentGeometry("a gap of 6.00 mm between two slices"))


# --- built ---------------------------------------------------------------------------------------


def built(results: Path) -> dict[str, float]:
    """Seconds and peak memory of `write_page`, and the size of the page."""
    imports = in_fresh_process(_peak_mib)
    costs = [in_fresh_process(_build, results) for _ in range(REPEATS)]
    seconds, peaks = zip(*costs, strict=True)
    size = (results / "report.html").stat().st_size / 2**20
    return {
        "build s": median(seconds),
        "build peak MiB": max(peaks),
        "imports alone MiB": imports,
        "page MiB": size,
    }


def _build(results: Path) -> tuple[float, float]:
    start = time.perf_counter()
    write_page(results)
    return time.perf_counter() - start, _peak_mib()


def _peak_mib() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# --- opened --------------------------------------------------------------------------------------


def opened(results: Path) -> dict[str, float]:
    """From the start of the navigation to the first picture, and from an input to what it changes."""
    times = [_in_fresh_browser(results, _first_pictures) for _ in range(REPEATS)]
    first = {name: median(each[name] for each in times) for name in times[0]}
    return {**first, **_in_fresh_browser(results, _reactions)}


def _in_fresh_browser(results: Path, look: Callable[[Any], dict[str, float]]) -> dict[str, float]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="vfscreen-profile-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            browser.set_script_timeout(PATIENCE_S)
            browser.get(f"{(results / 'report.html').as_uri()}#cases")
            return look(browser)
        finally:
            browser.quit()


def _first_pictures(browser: Any) -> dict[str, float]:
    first = browser.execute_script(FIRST_PICTURE)
    script = "const [n] = performance.getEntriesByType('navigation'); return n.domComplete / 1000"
    return {"ready s": browser.execute_script(script), "first picture s": first}


def _reactions(browser: Any) -> dict[str, float]:
    browser.execute_script(FIRST_PICTURE)
    found = {"page's process MiB": _memory_mib(browser)}
    rounds = [{name: _reaction(browser, action) for name, action in ACTIONS.items()} for _ in range(REPEATS)]
    for name in ACTIONS:
        seconds, cpu = zip(*(each[name] for each in rounds), strict=True)
        found |= {f"{name} s": median(seconds), f"{name} CPU s": median(cpu)}
    return {**found, "after scrolling MiB": _scrolled_mib(browser)}


def _reaction(browser: Any, action: str) -> tuple[float, float]:
    before = _cpu_s(browser)
    return browser.execute_async_script(REACTION, SET + action), _cpu_s(browser) - before


def _scrolled_mib(browser: Any) -> float:
    """Once each tenth of the page has been in sight."""
    for part in range(11):
        browser.execute_script("scrollTo(0, document.body.scrollHeight * arguments[0])", part / 10)
        time.sleep(0.5)
    return _memory_mib(browser)


def _memory_mib(browser: Any) -> float:
    browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    return _process_of_page(browser).memory_info().rss / 2**20


def _cpu_s(browser: Any) -> float:
    times = _process_of_page(browser).cpu_times()
    return times.user + times.system


def _process_of_page(browser: Any) -> psutil.Process:
    """The largest of those that draw a page."""
    children = psutil.Process(browser.service.process.pid).children(recursive=True)
    drawing = [child for child in children if "--type=renderer" in child.cmdline()]
    return max(drawing, key=lambda child: child.memory_info().rss)


if __name__ == "__main__":
    typer.run(main)
