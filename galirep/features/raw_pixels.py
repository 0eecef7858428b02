"""`pixels[:SIZE]`: the image itself as a feature vector, the baseline that every encoder has to beat."""

from torch import Tensor

from galirep.errors import PluginError
from galirep.features.frozen import FrozenExtractor


class RawPixels(FrozenExtractor):
    """The RGB image, resized to (size, size), as 3·size² numbers in [-1, 1] (which a bicubic resize may overshoot a little)."""

    def __init__(self, size: int = 32) -> None:
        super().__init__(name=f"pixels-{size}", image_size=size)
        self.dim = 3 * size * size

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, 3·size²), channel by channel, row by row."""
        return images.flatten(1)


def build(argument: str, *, download: bool = False) -> RawPixels:  # noqa: ARG001 (nothing to download)
    """`pixels[:SIZE]`: the image itself, resized to 32x32 or SIZExSIZE; the baseline that every encoder has to beat.

    Raises:
        PluginError: SIZE is no whole number from 1 to 512.
    """
    if argument and not (argument.isascii() and argument.isdigit() and 1 <= int(argument) <= 512):
        raise PluginError(f"pixels:{argument}: the size must be a whole number from 1 to 512, as in pixels:32")
    return RawPixels(int(argument or 32))
