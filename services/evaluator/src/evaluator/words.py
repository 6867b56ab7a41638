"""Text as answers are compared, and the words of it, in every script."""

from __future__ import annotations

import re
import unicodedata

# One token for each character of scripts written without spaces (kana, Han, Thai, Lao, Khmer, Myanmar), and one for
# each run of other letters and digits.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
TOKEN = re.compile(rf"[{UNSPACED}\U00020000-\U0003ffff]|[^\W_{UNSPACED}\U00020000-\U0003ffff]+")


def normalise(text: str) -> str:
    """Text as answers are compared: Unicode NFKC (full-width letters become ASCII), case-folded, trimmed."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def words(text: str) -> list[str]:
    """The words of a text, each character one where a script puts no spaces between them."""
    return TOKEN.findall(normalise(text))
