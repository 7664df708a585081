"""The images of an evaluation's page: ground truth, and what became of it, enlarged by a click."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor
from torchvision.transforms.functional import to_pil_image

JPEG_QUALITY = 85
OUTCOMES = (("right", "right"), ("false", "false"), ("missed", "missed object (dashed)"))  # CSS class, name


@dataclass(frozen=True)
class ExamplePictures:
    """One image of the report.

    Attributes:
        caption: text.
        truth, detections: (3, H, W) uint8 pictures of ground truth and detections.
    """

    caption: str
    truth: Tensor
    detections: Tensor


def examples_section(examples: dict[str, list[ExamplePictures]]) -> str:
    """HTML of the images under their headings; an empty text where there are none."""
    groups = "".join(_examples(heading, group) for heading, group in examples.items())
    if not groups:
        return ""
    key = "".join(f'<li><i class="{css}"></i>{name}</li>' for css, name in OUTCOMES)
    return f"""<p>At each class's LRP-optimal threshold; a click enlarges a picture.</p><ul class="key">{key}</ul>
{groups}<dialog><img alt=""></dialog>"""


def _examples(heading: str, group: Sequence[ExamplePictures]) -> str:
    if not group:
        return ""
    figures = "".join(
        f"""<figure><figcaption>{escape(example.caption)}</figcaption><div class="pair">
<div><span>ground truth</span>{_image(example.truth, f"ground truth of {example.caption}")}</div>
<div><span>detections</span>{_image(example.detections, f"detections of {example.caption}")}</div></div></figure>"""
        for example in group
    )
    return f'<h3>{escape(heading)}</h3><div class="examples">{figures}</div>'


def _image(picture: Tensor, description: str) -> str:
    buffer = io.BytesIO()
    to_pil_image(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    height, width = picture.shape[1:]
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<button class="enlarge" aria-label="enlarge"><img src="data:image/jpeg;base64,{data}" width="{width}" '
        f'height="{height}" loading="lazy" alt="{escape(description)}"></button>'
    )
