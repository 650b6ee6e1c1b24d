"""Letters of other scripts that look like Latin ones, read as the Latin letters that a reader takes them for.

The table is of Unicode's confusables.txt (UTS 39, 4), the letters of Latin, Greek, Cyrillic, Armenian and Cherokee whose
prototype is one ASCII letter; behind it stand small letters that only differ in size from the capital they are taken for.
"""

from __future__ import annotations

import re

_PAIRS = """
ɑa Ƅb ᴄc ɡg ᶃg ıi ɪi ɩi Ɩl ǀl ᴏo ᴑo Ʀr ꜱs ƽs ᴜu ʋu ᴠv ɯw ᴡw ɣy ᶌy ʏy ỿy ᴢz
αa Αa Βb Εe Ϝf Ηh ιi ϳj Ϳj Κk Ιi Μm Ϻm Νn οo σo Οo ρp Ρp ᴦr Τt υu νv Χx γy Υy Ζz
аa Аa Ьb Вb сc Сc ԁd еe ҽe Еe Ԍg һh Нh іi ꙇi ӏi јj Јj Кk Іi Ӏi Мm оo Оo рp Рp ԛq гr ѕs Ѕs Тt ѵv Ѵv ѡw ԝw Ԝw хx Хx уy үy Уy Үy
Ꭺa Ꮟb Ᏼb Ꮯc Ꮷd Ꭰd Ꭼe Ꮐg Ᏻg Ꮒh Ꮋh Ꭵi Ꭻj Ꮶk Ꮮl Ꮇm Ꮲp Ꭱr Ꮢr Ꮥs Ꮪs Ꭲt Ꮩv Ꮃw Ꮤw Ꭹy Ꮍy Ꮓz
քf ցg հh ոn ռn օo Օo գq զq Տs սu Սu աw
кk тt мm вb нh ьb κk τt εe ηn
""".split()
_LATIN = {pair[0]: pair[1] for pair in _PAIRS}
_TABLE = str.maketrans({letter: latin.upper() if letter.isupper() else latin for letter, latin in _LATIN.items()})
_LOOKALIKE = re.compile(f"[{''.join(_LATIN)}]")
_WORD = re.compile(r"[^\W\d_]+")
_ASCII_LETTER = re.compile("[A-Za-z]")
_TELLING = re.compile(f"(?![{''.join(_LATIN)}])[\u0370-\u052f\u0531-\u0587\u13a0-\u13ff]")
"""A Greek, Cyrillic, Armenian or Cherokee letter that nobody takes for a Latin one."""


def latin_lookalikes(text: str) -> str:
    """``text`` with words that mix scripts, or only look Latin in a text of no such script, in Latin letters."""
    if text.isascii() or not _LOOKALIKE.search(text):
        return text
    scripts = bool(_TELLING.search(text))

    def read(word: re.Match[str]) -> str:
        letters = word[0]
        if letters.isascii() or not _LOOKALIKE.search(letters) or _TELLING.search(letters):
            return letters
        mixed = _ASCII_LETTER.search(letters) or (all(letter in _LATIN for letter in letters) and not scripts)
        return letters.translate(_TABLE) if mixed else letters

    return _WORD.sub(read, text)
