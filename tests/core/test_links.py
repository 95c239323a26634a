"""What is in a link file, and which links a rule lets through."""

from __future__ import annotations

import contextlib
import plistlib
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dropscribe.core.hosts import parse_host_pattern
from dropscribe.core.links import (
    MAX_LINK_BYTES,
    LinkRefused,
    check_link,
    read_link,
    why_no_links,
    without_query,
)
from dropscribe.core.rules import DEFAULT_INCLUDE, FilePatterns

URL = "https://media.example.com/a%20b.mp3?sig=abc"
WINDOWS = f"[InternetShortcut]\r\nIDList=\r\nURL={URL}\r\nIconIndex=0\r\n"
DESKTOP = f"[Desktop Entry]\nVersion=1.0\nType=Link\nName=a = b\nURL={URL}\n"
HOSTS = ("media.example.com", "*.cdn.example.net", "192.0.2.7", "nas", "::1")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".url", WINDOWS.encode()),
        (".url", b"\xef\xbb\xbf" + WINDOWS.encode()),
        (".url", WINDOWS.encode("utf-16")),
        (".url", b"[Name\xe4]\nURL=https://other.example/\n" + WINDOWS.replace("URL", "url ").encode()),
        (".desktop", DESKTOP.encode()),
        (".desktop", DESKTOP.encode() + b"[Desktop Action x]\nURL=https://other.example/\n"),
        (".webloc", plistlib.dumps({"URL": URL})),
        (".webloc", plistlib.dumps({"URL": URL}, fmt=plistlib.FMT_BINARY)),
    ],
)
def test_the_url_is_found(suffix, content):
    """Windows', freedesktop.org's and Apple's link files, in the encodings that they come in."""
    assert read_link(suffix, content) == URL


def test_the_url_of_a_kde_link_is_found():
    """Plasma writes its links so."""
    content = "[Desktop Entry]\nIcon=text-html\nType=Link\nURL[$e]=https://media.example.com/$$5.mp3\n"
    assert read_link(".desktop", content.encode()) == "https://media.example.com/$5.mp3"


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".url", b"", "no url"),
        (".url", b"URL=https://media.example.com/", "no url"),
        (".url", b"\0" * 300, "no url"),
        (".url", WINDOWS.encode() + b" " * MAX_LINK_BYTES, "65536 bytes"),
        (".desktop", DESKTOP.replace("Link", "Application").encode(), "Type=Link"),
        (".desktop", DESKTOP.replace("Type=Link\n", "").encode(), "no type"),
        (".webloc", b"no plist", "property list"),
        (".webloc", b"bplist00" + b"\xff" * 40, "property list"),
        (".webloc", plistlib.dumps(["URL"]), "no url"),
        (".webloc", plistlib.dumps({"URL": 5}), "no url"),
        (".webloc", b"<plist><dict><key>URL</key><date>yesterday</date></dict></plist>", "property list"),
        (
            ".webloc",
            b'<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><plist><string>&b;</string></plist>',
            "property list",
        ),
    ],
)
def test_what_holds_no_url_is_refused(suffix, content, reason):
    """Empty, too large, of another kind, broken, or an XML bomb: a reason, no error of ours."""
    with pytest.raises(LinkRefused, match=reason):
        read_link(suffix, content)


@given(st.sampled_from([".url", ".desktop", ".webloc"]), st.binary(max_size=300))
@example(".webloc", b"bplist00" + bytes(40))
def test_no_content_makes_reading_fail_otherwise(suffix, content):
    """Whatever a file holds, it is a url or a refusal."""
    with contextlib.suppress(LinkRefused):
        assert isinstance(read_link(suffix, content), str)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        (URL, URL),
        ("HTTP://Media.Example.COM:8080/x", "http://Media.Example.COM:8080/x"),
        ("https://media.example.com./x#t=5", "https://media.example.com./x"),
        ("https://a.b.cdn.example.net/x", "https://a.b.cdn.example.net/x"),
        ("https://192.0.2.7/x", "https://192.0.2.7/x"),
        ("http://nas/x", "http://nas/x"),
        ("http://[::1]/x", "http://[::1]/x"),
    ],
)
def test_listed_hosts_are_let_through(url, sent):
    """By name in any case, below a wildcard, and addresses and local names where they are listed."""
    assert check_link(url, HOSTS) == sent


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/x", "does not list example.com"),
        ("https://cdn.example.net/x", "does not list"),
        ("https://evilcdn.example.net/x", "does not list"),
        ("https://media.example.com.evil.example/x", "does not list"),
        ("https://127.0.0.1/x", "does not list 127.0.0.1"),
        ("https://localhost/x", "does not list"),
        ("https://media.example.com/\u202e3pm.exe", "control character"),
        ("https://evil.example%2f.media.example.com/x", "not a host name"),
        ("https://evil.example%23.media.example.com/x", "not a host name"),
        ("https://a;b.media.example.com/x", "not a host name"),
        ("https://[fe80::1%25.media.example.com]/x", "does not list"),
        ("http://[::ffff:127.0.0.1]/", "does not list"),
        ("http://169.254.169.254/latest", "does not list"),
        ("http://3221225991/x", "does not list"),  # 192.0.2.7 as one number
        ("https://u:p@media.example.com/x", "user or a password"),
        ("https://u@media.example.com/x", "user or a password"),
        ("https://media.example.com\\@evil.example/x", "backslash"),
        ("https://media.exa\tmple.com/x", "control"),
        ("https://media.example.com/a b", "space"),
        ("https://media.example.com/" + "x" * 9000, "too long"),
        ("ftp://media.example.com/x", "neither http"),
        ("file:///etc/passwd", "neither http"),
        ("media.example.com/x", "neither http"),
        ("https:///x", "neither http"),
        ("https://media.example.com:0/x", "neither http"),
        ("https://media.example.com:port/x", "malformed"),
        ("https://[::1/x", "malformed"),
        ("https://a.cdn.example.net[::1]+:/x", "not a host name|malformed"),  # some ``urlsplit`` read ::1
        ("https://[::1]a.cdn.example.net:80/x", "not a host name|malformed"),
        ("https://mediа.example.com/x", "ASCII"),  # noqa: RUF001 - a Cyrillic letter, as a forger has it
    ],
)
def test_all_else_is_refused(url, reason):
    """Hosts that are not listed, however they are written, and whatever readers of urls disagree about."""
    with pytest.raises(LinkRefused, match=reason):
        check_link(url, HOSTS)


@given(st.text(st.sampled_from("htps:/@\\.#?[]%media.example.com évil0x7f \t"), max_size=60))
def test_what_is_let_through_goes_to_a_listed_host(rest):
    """No spelling leads anywhere else."""
    try:
        sent = check_link("https://" + rest, ("media.example.com",))
    except LinkRefused:
        return
    assert urlsplit(sent).hostname.removesuffix(".") == "media.example.com"
    assert "@" not in urlsplit(sent).netloc


@pytest.mark.parametrize(
    "text", ["*", "*.*", "a.*.b", "https://a.example", "a.example/x", "a b", "-a.example", "*.7", "1.2", ""]
)
def test_what_is_no_host_is_no_pattern(text):
    """A bare wildcard, urls, and numbers that are no whole address."""
    with pytest.raises(ValueError, match="is not a host"):
        parse_host_pattern(text)


def test_patterns_are_compared_in_lower_case():
    """And an address in brackets is the address."""
    assert [parse_host_pattern(text) for text in ("*.Example.COM", "[::1]", "nas.")] == [
        "*.example.com",
        "::1",
        "nas",
    ]


@pytest.mark.parametrize("written", ["2001:0DB8:0::1", "[2001:db8::1]"])
@pytest.mark.parametrize("host", ["2001:db8::1", "2001:db8:0:0::0001"])
def test_an_address_is_the_same_however_it_is_written(written, host):
    """In the config and in a link."""
    url = f"https://[{host}]/x"
    assert check_link(url, [parse_host_pattern(written)]) == url


def test_urls_are_told_of_without_their_query():
    """What may be a signature or a token is cut, wherever the url stands."""
    said = without_query(f"cannot fetch {URL}, nor https://b.example/x#frag: 404?")
    assert said == "cannot fetch https://media.example.com/a%20b.mp3 nor https://b.example/x 404?"


def test_link_files_are_taken_where_the_rule_says_so():
    """Beside its include, whatever that is; its exclude still counts."""
    for include in (DEFAULT_INCLUDE, ("*.wav",)):
        on = FilePatterns(include, ("no*",), recursive=True, links=True)
        off = FilePatterns(include, (), recursive=True)
        assert on.takes(b"a/talk.URL")
        assert on.takes(b"talk.wav")
        assert not on.takes(b"no.webloc")
        assert not off.takes(b"talk.url")


@pytest.mark.parametrize("kind", ["azure", "whisper-asr", "local", "http", "gladia"])
def test_a_vendor_without_links_says_so(kind):
    """Nothing is sent to it: it would read the link itself as a recording."""
    assert why_no_links(kind, None, None) == f"a provider of type {kind} takes no links"
