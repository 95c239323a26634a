"""The names that Whisper gives its languages, as ISO 639 codes."""

from __future__ import annotations

_CODES = """
af afrikaans | am amharic | ar arabic | as assamese | az azerbaijani | ba bashkir | be belarusian
bg bulgarian | bn bengali | bo tibetan | br breton | bs bosnian | ca catalan | cs czech | cy welsh
da danish | de german | el greek | en english | es spanish | et estonian | eu basque | fa persian
fi finnish | fo faroese | fr french | gl galician | gu gujarati | ha hausa | haw hawaiian | he hebrew
hi hindi | hr croatian | ht haitian creole | hu hungarian | hy armenian | id indonesian | is icelandic
it italian | ja japanese | jw javanese | ka georgian | kk kazakh | km khmer | kn kannada | ko korean
la latin | lb luxembourgish | ln lingala | lo lao | lt lithuanian | lv latvian | mg malagasy | mi maori
mk macedonian | ml malayalam | mn mongolian | mr marathi | ms malay | mt maltese | my myanmar | ne nepali
nl dutch | nn nynorsk | no norwegian | oc occitan | pa punjabi | pl polish | ps pashto | pt portuguese
ro romanian | ru russian | sa sanskrit | sd sindhi | si sinhala | sk slovak | sl slovenian | sn shona
so somali | sq albanian | sr serbian | su sundanese | sv swedish | sw swahili | ta tamil | te telugu
tg tajik | th thai | tk turkmen | tl tagalog | tr turkish | tt tatar | uk ukrainian | ur urdu | uz uzbek
vi vietnamese | yi yiddish | yo yoruba | yue cantonese | zh chinese
"""

_BY_NAME = {
    name: ("jv" if code == "jw" else code)  # Whisper's own code for Javanese is not ISO's
    for code, _, name in (
        entry.strip().partition(" ") for line in _CODES.strip().splitlines() for entry in line.split("|")
    )
}


def language_code(name: str) -> str:
    """The code for a language's English name, in any case; anything else as it is."""
    return _BY_NAME.get(name.strip().lower(), name)
