"""`make demo`: two photographs, clean and at QF 7, through the plain and the corrected file.

python -m afd_export.demo PLAIN_FOLDER CORRECTED_FOLDER PICTURE.png
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from afd_export.pictures import scikit_image_photo
from afd_mobile.common.artifacts import Precision, file_of, read_manifest
from afd_mobile.common.files import write_whole
from afd_mobile.common.resources import imagenet_classes
from afd_mobile.pictures.datasets import centre_crop
from afd_mobile.pictures.degrade import RGB, jpeg
from afd_mobile.tflite.litert import LiteRtModel

PHOTOS = ("coffee", "chelsea")
QUALITIES = (None, 7)
TOP = 3
SIZE = 224

Ranking = list[tuple[str, float]]  # (class name, probability), best first


def main(plain: Path, corrected: Path, picture: Path) -> None:
    models = {"plain": _float32_file(plain), "corrected": _float32_file(corrected)}
    names = [name for _, name in imagenet_classes()]
    cells: list[tuple[str, RGB, dict[str, Ranking]]] = []
    print(f"{'picture':<16} {'model':<10} top {TOP}")
    for photo in PHOTOS:
        for quality in QUALITIES:
            title = f"{photo}, {'clean' if quality is None else f'QF {quality}'}"
            image = jpeg(centre_crop(scikit_image_photo(photo), SIZE), quality)
            rankings = {which: _top(model, image, names) for which, model in models.items()}
            for which, ranking in rankings.items():
                print(f"{title:<16} {which:<10} {_in_words(ranking)}")
            cells.append((title, image, rankings))
    write_whole(picture, _draw(cells))
    print(f"picture: {picture}")


def _float32_file(folder: Path) -> LiteRtModel:
    name = read_manifest(folder)["name"]
    return LiteRtModel(file_of(folder, f"{name}_{Precision.FLOAT32.value}.tflite"))


def _top(model: LiteRtModel, image: RGB, names: list[str]) -> Ranking:
    logits = model.run(image[None].astype(np.float32))[0]
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    return [(names[i], float(probabilities[i])) for i in np.argsort(-probabilities)[:TOP]]


def _in_words(ranking: Ranking) -> str:
    return ", ".join(f"{name} {probability:.0%}" for name, probability in ranking)


def _draw(cells: list[tuple[str, RGB, dict[str, Ranking]]]) -> bytes:
    """A row of pictures, each over what the two models say; PNG."""
    line, margin, width = 20, 16, 250
    height = SIZE + 3 * margin + line * (1 + 2 * (TOP + 1)) + margin
    sheet = Image.new("RGB", (len(cells) * width + margin, height), "white")
    draw = ImageDraw.Draw(sheet)
    regular, heading = ImageFont.load_default(14), ImageFont.load_default(17)
    for column, (title, image, rankings) in enumerate(cells):
        x, y = column * width + margin, margin
        sheet.paste(Image.fromarray(image), (x, y))
        y += SIZE + margin // 2
        draw.text((x, y), title, fill="black", font=heading)
        y += line + margin // 2
        for which, ranking in rankings.items():
            draw.text(
                (x, y), which, fill="#0b6e4f" if which == "corrected" else "#8a1c1c", font=heading
            )
            y += line + 2
            for name, probability in ranking:
                draw.rectangle((x, y + 3, x + int(200 * probability), y + line - 3), fill="#dde6ee")
                draw.text((x + 3, y), f"{name} {probability:.0%}", fill="black", font=regular)
                y += line
            y += margin // 3
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
