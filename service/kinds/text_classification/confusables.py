"""Replaces letters of other scripts that look like Latin ones (homoglyphs) by the Latin letters.

The table is from Unicode's confusables.txt (UTS 39, 4): the letters of Latin, Greek, Cyrillic, Armenian and Cherokee whose
prototype is one ASCII letter. Its last line adds small letters that differ only in size from a confusable capital.
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
_LATIN_OF = {pair[0]: pair[1] for pair in _PAIRS}
_TABLE = str.maketrans({letter: latin.upper() if letter.isupper() else latin for letter, latin in _LATIN_OF.items()})
_LOOKALIKE = re.compile(f"[{''.join(_LATIN_OF)}]")
_WORD = re.compile(r"[^\W\d_]+")
_ASCII_LETTER = re.compile("[A-Za-z]")
_OTHER_SCRIPT_LETTER = re.compile(f"(?![{''.join(_LATIN_OF)}])[\u0370-\u052f\u0531-\u0587\u13a0-\u13ff]")
"""A Greek, Cyrillic, Armenian or Cherokee letter that does not look like a Latin one."""


def latin_lookalikes(text: str) -> str:
    """Replace lookalikes in words that mix scripts and, if the text has no other such letters, in words of lookalikes only."""
    if text.isascii() or not _LOOKALIKE.search(text):
        return text
    has_other_script = bool(_OTHER_SCRIPT_LETTER.search(text))

    def replace(word: re.Match[str]) -> str:
        letters = word[0]
        if letters.isascii() or not _LOOKALIKE.search(letters) or _OTHER_SCRIPT_LETTER.search(letters):
            return letters
        is_lookalike = _ASCII_LETTER.search(letters) or (
            all(letter in _LATIN_OF for letter in letters) and not has_other_script
        )
        return letters.translate(_TABLE) if is_lookalike else letters

    return _WORD.sub(replace, text)
