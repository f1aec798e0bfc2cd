"""Remakes the screenshots of docs/pictures/: terminal.svg, report*.png and workbook.png.

Simulated patients only. Needs chromium, chromedriver, LibreOffice's soffice, pdftoppm and the `dev` extra;
takes one to three minutes.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageChops
from rich.console import Console
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

PICTURES = Path(__file__).parent / "pictures"
SAMPLES = Path(__file__).parents[1] / "sample_data"
VFSCREEN = Path(sys.executable).with_name("vfscreen")
STUDIES, SEED = "18", "4"
COLUMNS = 92
WINDOW = (1200, 900)
SCALE = 1.5
SHEET_DPI, ROWS_PX = 220, 640
MAX_BYTES = 400_000
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "hide-scrollbars"),
)


def main() -> None:
    """Screen samples and a small cohort, and take the pictures."""
    with TemporaryDirectory() as made:
        archive = Path(made) / "archive"
        shutil.copytree(SAMPLES, archive / "sample_data")
        write_terminal(
            PICTURES / "terminal.svg", vfscreen(archive, "run", "sample_data", "--out", "../results")
        )
        vfscreen(archive, "simulate", "--out", "cohort", "--studies", STUDIES, "--seed", SEED)
        vfscreen(archive.parent, "run", "archive", "--out", "night")
        take_workbook(Path(made) / "night" / "flagged.xlsx", Path(made) / "office")
        browser = opened(Path(made) / "profile")
        try:
            browser.get((Path(made) / "night" / "report.html").as_uri())
            take(browser, "report.png", 0, place(browser, "#quality"))
            read_two(browser)
            cases, second_row = place(browser, "#cases") - 12, place(browser, ".card:nth-child(4)") - 12
            browser.execute_script("window.scrollTo({top: arguments[0], behavior: 'instant'})", cases)
            take(browser, "report_cases.png", 0, second_row - cases)
            browser.find_element(By.CSS_SELECTOR, ".card .open").click()
            take(browser, "report_case.png", 12, WINDOW[1] - 12)
        finally:
            browser.quit()


def vfscreen(folder: Path, *arguments: str) -> str:
    """What the installed command prints on standard output when it is called in a folder."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"}
    command = [str(VFSCREEN), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def write_terminal(path: Path, output: str) -> None:
    """A run of the samples as an SVG whose text can be searched, in a font of the reader's machine."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print("$ vfscreen run sample_data --out results", style="bold", highlight=False)
    console.print(Text.from_ansi(output.replace("../results", "results")))
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="vfscreen"), flags=re.DOTALL)
    path.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")


def opened(profile: Path) -> webdriver.Chrome:
    """Chromium without a window, in light colours."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    size = {"width": WINDOW[0], "height": WINDOW[1], "deviceScaleFactor": SCALE, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    return browser


def read_two(browser: webdriver.Chrome) -> None:
    """Verdicts on the first and the third card, so that the page shows what reading looks like."""
    browser.find_element(By.ID, "reader").send_keys("Dr. K")
    cards = browser.find_elements(By.CSS_SELECTOR, ".card")
    for card, verdict in ((cards[0], "fracture"), (cards[2], "no fracture")):
        card.find_element(By.CSS_SELECTOR, f'[data-verdict="{verdict}"]').click()


def place(browser: webdriver.Chrome, selector: str) -> float:
    """How far below the top of the page an element begins, px."""
    script = "return document.querySelector(arguments[0]).getBoundingClientRect().top + window.scrollY"
    return float(browser.execute_script(script, selector))


def take(browser: webdriver.Chrome, name: str, top: float, bottom: float) -> None:
    """Write what the window shows between two heights, px."""
    time.sleep(1)  # the page loads its pictures as they come into sight
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    save(name, shot.crop((0, round(top * SCALE), shot.width, min(shot.height, round(bottom * SCALE)))))


def take_workbook(workbook: Path, office: Path) -> None:
    """Write the first rows of the flagged studies as LibreOffice prints them."""
    convert = ["--headless", f"-env:UserInstallation={office.as_uri()}", "--convert-to", "pdf", "--outdir"]
    subprocess.run(["soffice", *convert, office, workbook], check=True, capture_output=True)
    draw = ["pdftoppm", "-png", "-singlefile", "-r", str(SHEET_DPI)]
    subprocess.run([*draw, office / "flagged.pdf", office / "sheet"], check=True)
    page = Image.open(office / "sheet.png").convert("RGB")
    left, top, right, bottom = ImageChops.invert(page).getbbox() or (0, 0, *page.size)
    save("workbook.png", page.crop((left, top, right, min(bottom, top + ROWS_PX))))


def save(name: str, shot: Image.Image) -> None:
    """Write a picture of few colours, chosen so that the grades keep theirs."""
    path = PICTURES / name
    shot.quantize(method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")


if __name__ == "__main__":
    main()
