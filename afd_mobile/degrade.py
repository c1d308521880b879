"""What compression does to a picture."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITIES = (25, 18, 15, 10, 7)  # the paper's quality factors (QF), as in ImageNet-C


def jpeg(image: NDArray[np.uint8], quality: int | None) -> NDArray[np.uint8]:
    """The picture (H, W, 3) after JPEG by Pillow at this quality factor; None leaves it clean."""
    if quality is None:
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
