"""Names that no rule takes: unfinished, temporary and system files, and the programs that make them.

Names are in lower case and compared without regard to ASCII case, except those of :data:`DOWNLOAD_FILES`,
which are looked up on disk. Sources: the programs' documentation
and source code (rclone --partial-suffix, yt-dlp ``get_temp_filename``, aria2 manual "Control File",
qBittorrent "Append .!qB extension", WinSCP "Transfer to temporary filename", Syncthing "Ignoring Files",
proftpd HiddenStores, Synology and QNAP knowledge bases, Windows and macOS volume layouts).
"""

from __future__ import annotations

_PREFIXES = {
    b"._": "macOS's AppleDouble files",
    b".syncthing.": "Syncthing's unfinished files",
    b"~syncthing~": "Syncthing's unfinished files",
    b".octransferid": "Nextcloud's unfinished uploads",
    b".in.": "unfinished uploads of ProFTPD and lftp",
    b".pureftpd-upload": "Pure-FTPd's unfinished uploads",
    b".goutputstream": "GLib's unfinished files",
    b".nfs": "deleted files that a program still has open on NFS",
    b".fuse_hidden": "deleted files that a program still has open on FUSE",
    b"~$": "Microsoft Office's lock files",
    b"#": "Emacs's autosave files",
    b".": "hidden and temporary files",
    b"~": "temporary files",
}
_SUFFIXES = {
    b".part": "unfinished downloads of Firefox, Transmission and yt-dlp",
    b".partial": "unfinished transfers of rclone",
    b".filepart": "WinSCP's unfinished uploads",
    b".crdownload": "unfinished downloads of Chrome and Edge",
    b".download": "Safari's unfinished downloads",
    b".opdownload": "Opera's unfinished downloads",
    b".fdmdownload": "unfinished downloads of Free Download Manager",
    b".dtapart": "unfinished downloads of DownThemAll",
    b".aria2": "aria2's control files",
    b".ytdl": "yt-dlp's control files",
    b".lftp-pget-status": "lftp's control files",
    b".!ut": "unfinished downloads of uTorrent",
    b".!qb": "unfinished downloads of qBittorrent",
    b".!bt": "unfinished downloads of BitTorrent",
    b".bc!": "unfinished downloads of BitComet",
    b".!sync": "unfinished files of Resilio Sync",
    b".tmp": "temporary files",
    b".temp": "temporary files",
    b".swp": "Vim's swap files",
    b".lock": "lock files",
    b".uploading": "unfinished uploads",
    b"~": "backup files of editors",
}
_BEFORE_SUFFIX = {
    b".part": "unfinished downloads",
    b".temp": "unfinished files of yt-dlp",
    b".tmp": "temporary files",
}
_FOLDERS = {
    folder: owner
    for owner, folders in (
        ("Synology", b"@eadir|@tmp|#recycle|#snapshot"),
        ("QNAP", b"@recycle|@recently-snapshot"),
        ("Windows", b"$recycle.bin|recycler|recycled|system volume information|found.000"),
        ("the file system", b"lost+found"),
        ("GoodSync", b"_gsdata_"),
        ("macOS", b"__macosx|network trash folder|temporary items"),
    )
    for folder in folders.split(b"|")
}

DOWNLOAD_FILES = {
    b".aria2": "aria2",
    b".st": "axel",
    b".lftp-pget-status": "lftp",
    b".ytdl": "yt-dlp",
    b".part": "a download program",
    b".partial": "a transfer program",
    b".filepart": "WinSCP",
    b".crdownload": "a browser",
    b".opdownload": "Opera",
    b".!qB": "qBittorrent",
    b".!ut": "uTorrent",
}
"""Suffixes of the files that download programs keep beside an unfinished file, and the program."""

FOLDER_DOWNLOAD_FILES = {b".aria2": "aria2"}  # the same beside a folder: for a torrent of several files
OWN_FOLDER = b".dropscribe"  # the daemon's own hidden folder in an inbox
_ANY_PREFIX, _ANY_SUFFIX, _ANY_BEFORE = tuple(_PREFIXES), tuple(_SUFFIXES), tuple(_BEFORE_SUFFIX)


def reason_temporary(name: bytes, *, is_folder: bool = False) -> str | None:
    """Reason why a file or folder with this name counts as unfinished or temporary; None if it does not."""
    lower = name.lower()
    if lower.startswith(_ANY_PREFIX):  # one call each for the many names that are none of these
        prefix, what = next(item for item in _PREFIXES.items() if lower.startswith(item[0]))
        return f'its name begins with "{prefix.decode()}", as {what} do'
    if lower.endswith(_ANY_SUFFIX):
        suffix, what = next(item for item in _SUFFIXES.items() if lower.endswith(item[0]))
        return f'its name ends in "{suffix.decode()}", as {what} do'
    stem, dot, last = lower.rpartition(b".")
    if is_folder or not stem.endswith(_ANY_BEFORE) or stem in _BEFORE_SUFFIX:
        return None
    part, what = next(item for item in _BEFORE_SUFFIX.items() if stem.endswith(item[0]))
    return f'its name ends in "{(part + dot + last).decode("utf-8", "replace")}", as {what} do'


def owner_of_folder(name: bytes) -> str | None:
    """The system or program to which a folder with this name belongs; None if there is none."""
    return _FOLDERS.get(name.lower())
