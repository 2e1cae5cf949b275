"""Images laid out with words beside them, and animations of them."""

import math

import numpy as np

from toolkit.errors import UserError
from toolkit.pictures import images
from toolkit.pictures.charts import Canvas, width_of

TILE = 64  # pixels that an image has at least on a page with labels
FRAME = 2**20  # pixels of a frame
STEP, HOLD = 80, 600  # milliseconds that a frame is shown, and one at an end


def page(rows, left=(), top=(), tile=TILE, block=None, sharp=True, corner=""):
    """Rows of images, (R, C, H, W, C) of bytes, with words to the left of rows, above columns, and in the corner.

    Images are at least `tile` pixels high; with `block`, so many rows stand together.
    """
    rows = np.asarray(rows)
    height, width = rows.shape[2:4]
    scale = max(1, math.ceil(tile / height))
    step_x, step_y = width * scale + images.GAP, height * scale + images.GAP
    corner = shortened(corner)
    margin = 14 + max(map(width_of, [*left, corner]))
    head = 14 + (20 if top else 0)
    apart = 12 * ((len(rows) - 1) // block) if block else 0
    size = (math.ceil(margin + rows.shape[1] * step_x + 12), math.ceil(head + len(rows) * step_y + apart + 12))
    if size[0] * size[1] > (images.LARGEST // 4 if sharp else FRAME):
        raise UserError(f"a picture of {len(rows)}×{rows.shape[1]} images is too large — ask for fewer with --rows")
    canvas = Canvas(*size)
    if corner:
        canvas.text(margin - 8, head - 6, corner, 12, "rd")
    for i, word in enumerate(top):
        canvas.text(margin + i * step_x + width * scale / 2, head - 6, word, 12, "md")
    for r, row in enumerate(rows):
        y = head + r * step_y + (12 * (r // block) if block else 0)
        if r < len(left):
            canvas.text(margin - 8, y + height * scale / 2, left[r], 13, "rm")
        for c, image in enumerate(row):
            canvas.paste(image, margin + c * step_x, y, scale)
    return canvas.finished(sharp)


def shortened(words, most=24):
    """Words of which the middle is left out if they are long, as a file name may be."""
    return words if len(words) <= most else f"{words[: most // 2 - 1]}…{words[-most // 2 :]}"


def there_and_back(frames):
    """An animation that runs to its end, rests there, and runs back to its beginning."""
    frames = [*frames, *frames[-2:0:-1]]
    turning = (0, len(frames) // 2)
    return images.Animation(frames, [HOLD if i in turning else STEP for i in range(len(frames))])


def tiles(pictures, words, across):
    """Images in rows of `across`, a word above each."""
    height, width = pictures.shape[1:3]
    scale = max(1, math.ceil(TILE / height))
    step_x, step_y = width * scale + 8, height * scale + 22
    down = -(-len(pictures) // across)
    if across * step_x * down * step_y > FRAME:
        raise UserError(f"an animation of {len(pictures)} images is too large — ask for fewer with --rows")
    canvas = Canvas(across * step_x + 8, down * step_y + 8)
    for i, (picture, word) in enumerate(zip(pictures, words, strict=True)):
        x, y = 8 + i % across * step_x, 22 + i // across * step_y
        canvas.text(x + width * scale / 2, y - 4, word, 12, "md")
        canvas.paste(picture, x, y, scale)
    return canvas.finished()
