"""Remakes docs/pictures/example.png, the picture at the head of the README: the flagged of sample_data/."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import vfscreen

HERE = Path(__file__).parent
STUDIES = ("moderate_wedge", "severe_biconcave")


def main() -> None:
    """Screen the samples and put the two pictures side by side."""
    with TemporaryDirectory() as out:
        vfscreen.run(HERE.parent / "sample_data", out, workers=1)
        paths = sorted((Path(out) / "thumbnails").glob("*.png"))
        if len(paths) != len(STUDIES):
            raise SystemExit(f"{len(paths)} studies were flagged and not {len(STUDIES)}: {STUDIES}")
        pictures = [Image.open(path).convert("RGB") for path in paths]
    beside = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)))
    x = 0
    for picture in pictures:
        beside.paste(picture, (x, 0))
        x += picture.width
    beside.quantize(256).save(HERE / "pictures" / "example.png", optimize=True)


if __name__ == "__main__":
    main()
