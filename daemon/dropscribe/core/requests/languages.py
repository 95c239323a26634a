"""Languages as people and providers write them ("english", "EN", "eng", "en_GB"), as BCP 47 tags."""

from __future__ import annotations

import re

_LANGUAGES = """
af afr afrikaans | am amh amharic | ar ara arabic | as asm assamese | az aze azerbaijani | ba bak bashkir
be bel belarusian | bg bul bulgarian | bn ben bengali bangla | bo bod tib tibetan | br bre breton
bs bos bosnian | ca cat catalan valencian | cs ces cze czech | cy cym wel welsh | da dan danish
de deu ger german deutsch | el ell gre greek | en eng english | es spa spanish castilian | et est estonian
eu eus baq basque | fa fas per persian farsi | fi fin finnish | fo fao faroese | fr fra fre french
fy fry frisian | ga gle irish | gl glg galician | gu guj gujarati | ha hau hausa | haw hawaiian
he iw heb hebrew | hi hin hindi | hr hrv croatian | ht hat haitian-creole haitian | hu hun hungarian
hy hye arm armenian | id in ind indonesian | is isl ice icelandic | it ita italian | ja jpn japanese
jv jw jav javanese | ka kat geo georgian | kk kaz kazakh | km khm khmer | kn kan kannada | ko kor korean
la lat latin | lb ltz luxembourgish letzeburgesch | ln lin lingala | lo lao | lt lit lithuanian
lv lav latvian | mg mlg malagasy | mi mri mao maori | mk mkd mac macedonian | ml mal malayalam
mn mon mongolian | mr mar marathi | ms msa may malay | mt mlt maltese | my mya bur myanmar burmese
ne nep nepali | nl nld dut dutch flemish | nn nno nynorsk | no nor norwegian | nb nob bokmål
oc oci occitan | pa pan punjabi panjabi | pl pol polish | ps pus pashto pushto | pt por portuguese
ro ron rum romanian moldavian moldovan | ru rus russian | sa san sanskrit | sd snd sindhi
si sin sinhala sinhalese | sk slk slo slovak | sl slv slovenian | sn sna shona | so som somali
sq sqi alb albanian | sr srp serbian | su sun sundanese | sv swe swedish | sw swa swahili | ta tam tamil
te tel telugu | tg tgk tajik | th tha thai | tk tuk turkmen | tl tgl fil tagalog filipino | tr tur turkish
tt tat tatar | uk ukr ukrainian | ur urd urdu | uz uzb uzbek | vi vie vietnamese | yi ji yid yiddish
yo yor yoruba | yue cantonese | zh zho chi cmn chinese mandarin
"""
"""One language an entry: its ISO 639-1 code where it has one, other codes, English names. jw is Whisper's."""

_CODES = {
    name.replace("-", " "): words[0]
    for entry in _LANGUAGES.replace("\n", "|").split("|")
    if (words := entry.split())
    for name in words
}

_UNKNOWN = frozenset({"", "auto", "detect", "mul", "multi", "none", "null", "und", "unknown", "zxx"})
_TAG = re.compile(r"([a-z]{2,3})((?:-[a-z0-9]{2,8})*)")


def language_tag(text: str) -> str | None:
    """The BCP 47 tag for *text*: "pt-BR" for "pt_br"; None for "auto" and "unknown"; else *text* as it is."""
    asked = text.strip()
    if asked.lower() in _UNKNOWN:
        return None
    if code := _CODES.get(asked.lower()):
        return code
    found = _TAG.fullmatch(asked.lower().replace("_", "-"))
    if found is None or found[1] not in _CODES:
        return asked
    return _CODES[found[1]] + "".join(f"-{_subtag(part)}" for part in found[2].split("-") if part)


def is_language(text: str) -> bool:
    """Whether *text* is a language known here, or asks for detection."""
    tag = language_tag(text)
    return tag is None or tag.partition("-")[0] in _CODES.values()


def base_language(text: str) -> str | None:
    """The language without script and region: "pt" for "pt-BR"; None for "auto"; else *text* as it is."""
    tag = language_tag(text)
    return tag if tag is None or not is_language(tag) else tag.partition("-")[0]


def _subtag(part: str) -> str:
    if len(part) == 2:
        return part.upper()
    return part.title() if len(part) == 4 else part
