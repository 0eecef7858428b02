"""Text in pictures, in Pillow's built-in font."""

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_line(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font: Font) -> None:
    """Write one black line whose left upper corner is `place`; what the font or UTF-8 lacks becomes a ?."""
    text = " ".join(text.encode(errors="replace").decode().split())
    try:
        draw.text(place, text, "black", font)
    except UnicodeEncodeError:
        # Pillow without FreeType has a font of Latin letters only
        draw.text(place, text.encode("latin-1", "replace").decode("latin-1"), "black", font)


def width_of(text: str, font: Font) -> int:
    """Return the width of one line in pixels, rounded up."""
    try:
        return -int(-font.getbbox(text)[2] // 1)
    except UnicodeEncodeError:
        return width_of(text.encode("latin-1", "replace").decode("latin-1"), font)
