"""Text of others (names, labels, paths, messages) made safe to print: a terminal obeys control characters."""

import re

# C0 and C1 controls and DEL; what turns the direction of text or hides in it; other line breaks; halves of pairs, which
# cannot be encoded
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return the text with control characters escaped, as in Python's own spelling: \x1b, \u202e, \n.

    `lines` keeps line breaks, of a text that is several lines.

    >>> printable("a\x1b[2J\n.png")
    'a\\x1b[2J\\n.png'
    """
    return _UNSAFE.sub(lambda match: "\n" if lines and match[0] == "\n" else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
