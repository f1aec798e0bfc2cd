"""Remakes pictures/example.png, at the head of the README, and pictures/stages.png: one of sample_data/."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import vfscreen
from vfscreen.report.stages import draw_stages
from vfscreen.settings import Settings
from vfscreen.stages import stages

PICTURES = Path(__file__).parent / "pictures"
STUDY = Path(__file__).parent.parent / "sample_data" / "severe_biconcave"


def main() -> None:
    """Screen the sample as a run does, and stage by stage."""
    with TemporaryDirectory() as out:
        vfscreen.run(STUDY, out, workers=1)
        (path,) = (Path(out) / "thumbnails").glob("*.png")
        Image.open(path).save(PICTURES / "example.png", optimize=True)
    draw_stages(stages(STUDY, vfscreen.load_models(), Settings()), Settings(), PICTURES / "stages.png")
    Image.open(PICTURES / "stages.png").convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        PICTURES / "stages.png", optimize=True
    )


if __name__ == "__main__":
    main()
