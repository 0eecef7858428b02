"""`pixels[:SIZE]`: the image itself as a feature vector, a baseline for encoders."""

from torch import Tensor

from galirep.errors import PluginError
from galirep.features.frozen import FrozenExtractor


class RawPixels(FrozenExtractor):
    """The RGB image, resized to (size, size), as 3·size² numbers in [-1, 1]; a bicubic resize can overshoot."""

    def __init__(self, size: int = 32) -> None:
        super().__init__(name=f"pixels-{size}", image_size=size)
        self.dim = 3 * size * size

    def features(self, images: Tensor) -> Tensor:
        """Flatten (B, 3, size, size) to (B, 3·size²), channel by channel, row by row."""
        return images.flatten(1)


def build(argument: str, *, download: bool = False) -> RawPixels:  # noqa: ARG001 (nothing to download)
    """Build `pixels[:SIZE]`: the image itself, resized to SIZE x SIZE (default 32 x 32).

    Raises:
        PluginError: SIZE is not a whole number from 1 to 512.
    """
    if argument and not (argument.isascii() and argument.isdigit() and 1 <= int(argument) <= 512):
        raise PluginError(f"pixels:{argument}: the size must be a whole number from 1 to 512, as in pixels:32")
    return RawPixels(int(argument or 32))
