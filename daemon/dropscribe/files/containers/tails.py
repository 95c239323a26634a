"""Tags before and after the audio: ID3, APE and Lyrics3.

Taggers append these to any kind of file, so that a whole FLAC or M4A seems not to end where it should.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.files.containers.reading import ReadAt

_MOST_TAILS = 8
_ID3V1_BYTES, _ID3V1_MORE_BYTES = 128, 227
_APE_BYTES, _APE_HAS_HEADER = 32, 1 << 31
_LYRICS_BYTES = 15


def start_of_audio(read_at: ReadAt) -> int:
    """Offset at which the audio's own container begins: after an ID3v2 tag, if there is one."""
    head = read_at(0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = head[6:10]
    count = size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]
    return 10 + count + (10 if head[5] & 0x10 else 0)


def end_of_audio(read_at: ReadAt, size_bytes: int) -> int:
    """Offset at which the audio's own container ends: before all known tags."""
    end = size_bytes
    for _ in range(_MOST_TAILS):
        count = _tail_bytes(read_at, end)
        if count <= 0 or count >= end:
            break
        end -= count
    return end


def _tail_bytes(read_at: ReadAt, end: int) -> int:
    if end >= _ID3V1_BYTES and read_at(end - _ID3V1_BYTES, 3) == b"TAG":
        has_more = (
            end >= _ID3V1_BYTES + _ID3V1_MORE_BYTES
            and read_at(end - _ID3V1_BYTES - _ID3V1_MORE_BYTES, 4) == b"TAG+"
        )
        return _ID3V1_BYTES + (_ID3V1_MORE_BYTES if has_more else 0)
    footer = read_at(max(0, end - _APE_BYTES), _APE_BYTES)
    if footer[:8] == b"APETAGEX" and len(footer) == _APE_BYTES:
        flags = int.from_bytes(footer[20:24], "little")
        return int.from_bytes(footer[12:16], "little") + (_APE_BYTES if flags & _APE_HAS_HEADER else 0)
    if footer[-9:] == b"LYRICS200" and footer[-_LYRICS_BYTES:-9].isdigit():
        return int(footer[-_LYRICS_BYTES:-9]) + _LYRICS_BYTES
    if footer[-10:-7] == b"3DI":
        size = footer[-4:]
        return 20 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    return 0
