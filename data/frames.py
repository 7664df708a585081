"""Frames of videos and of animated pictures, in order; videos need PyAV, which brings its own decoders."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.errors import ImageError
from data.exif import Exif
from data.image_files import is_video
from data.images import image_errors, rgb_pixels

# Formats whose further images follow each other in time. Those of TIFF are pages, those of MPO other views.
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
DEFAULT_DURATION = 0.1  # seconds, of frames whose file says none; browsers take as long
INSTALL = "pip install -r requirements-video.txt"


class Frame(NamedTuple):
    """Pixels (3, H, W) uint8, RGB, and when they are shown, in seconds from the start."""

    pixels: Tensor
    seconds: float


def can_read_videos() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def is_animated(path: Path) -> bool:
    """Whether a file is a picture of several frames; False where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.format in ANIMATED and getattr(image, "n_frames", 1) > 1
    except Exception:  # whoever reads it will say what is wrong
        return False


def read_frames(path: Path, exif: Exif = "turn") -> Iterator[Frame]:
    """All frames of a video or an animated picture.

    Args:
        exif: "ignore" leaves the frames as stored; else they are turned as a viewer shows them.
    Raises:
        ImageError: not such a file, without PyAV, or damaged: the frames before that were given.
    """
    return _video_frames(path, exif) if is_video(path) else _picture_frames(path, exif)


def _picture_frames(path: Path, exif: Exif) -> Iterator[Frame]:
    seconds = 0.0
    with image_errors(path), Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels = rgb_pixels(image, exif)
            yield Frame(pixels, seconds)
            seconds += image.info.get("duration", 0) / 1000 or DEFAULT_DURATION


def _video_frames(path: Path, exif: Exif) -> Iterator[Frame]:
    if not can_read_videos():
        raise ImageError(f"{path}: videos need PyAV: {INSTALL}")
    import av

    with _video_errors(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise ImageError(f"{path}: unreadable video (it has no pictures)")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start, count = None, 0
        for frame in container.decode(stream):
            seconds = frame.time if frame.time is not None else count / float(stream.average_rate or 25)
            start, count = seconds if start is None else start, count + 1
            yield Frame(_upright(frame, exif), seconds - start)
        if not count:
            raise ImageError(f"{path}: unreadable video (no frame in it)")


def _upright(frame: Any, exif: Exif) -> Tensor:
    pixels = frame.to_ndarray(format="rgb24")
    if exif != "ignore" and frame.rotation % 90 == 0:
        pixels = np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))  # both counter-clockwise
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _video_errors(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise ImageError(f"{path}: unreadable video ({error.strerror})") from error


class VideoWriter:
    """Writes frames of one size to an MP4 file that players and browsers show.

    Args:
        file: open for writing, seekable.
    """

    TIME_BASE = Fraction(1, 90_000)  # seconds, as usual of video

    def __init__(self, file: Any) -> None:
        import av

        self._container = av.open(file, "w", format="mp4")
        self._stream: Any = None
        self._last = -1

    def add(self, frame: Frame) -> None:
        """Appends a frame, which is shown until the next one."""
        import av

        # the encoder stores colours of 2×2 pixels together
        pixels = frame.pixels.permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=25)
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self.TIME_BASE
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._last = max(self._last + 1, round(frame.seconds / self.TIME_BASE))  # which must ascend
        image.pts, image.time_base = self._last, self.TIME_BASE
        self._container.mux(self._stream.encode(image))

    def close(self) -> None:
        """Ends the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
