"""Sandbox of a worker process, entered before it reads the first byte of a recording.

Decoders are large C programs that parse files from strangers. A worker that a crafted file takes over must
not be able to reach the network, other files, or the daemon. Each measure is applied if the kernel has it:
resource limits and no_new_privs everywhere, the system call filter on x86-64 and arm64, Landlock from Linux
5.13 on.

Guarantees: must be called before any thread starts, because filter and Landlock bind only the calling thread
and its later children; a kernel that refuses a measure is no error.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import select
import signal
import struct
import sys
from collections.abc import Iterable

MIB = 2**20

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF

# Numbers of the system calls that are refused: network, other processes, programs, changes of any file.
# linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_REFUSED = {
    "x86_64": (
        0xC000003E,
        (41, 42, 43, 49, 50, 53, 57, 58, 59, 62, 76, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 101, 129,
         133, 165, 166, 188, 189, 190, 200, 240, 258, 259, 260, 263, 264, 265, 266, 268, 288, 297, 298, 304,
         310, 311, 316, 321, 322, 323, 424, 425, 434, 438),
    ),
    "aarch64": (
        0xC00000B7,
        (5, 6, 7, 33, 34, 35, 36, 37, 38, 39, 40, 45, 52, 53, 54, 55, 117, 129, 130, 138, 180, 198, 199, 200,
         201, 202, 203, 221, 240, 241, 242, 265, 270, 271, 276, 280, 281, 282, 424, 425, 434, 438),
    ),
}  # fmt: skip
# Numbers of tgkill, prlimit64, fcntl and ioctl, by which a process can end another one.
_BY_ARGUMENT = {"x86_64": (234, 302, 72, 16), "aarch64": (131, 261, 25, 29)}
_SET_OWNER, _SET_OWNER_OF_SOCKET = (8, 15), (0x8901, 0x8902)
"""They choose who gets a signal when a file is ready: F_SETOWN, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP."""

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_ALL_OF_VERSION_1 = (1 << 13) - 1
_READABLE = (  # Paths that the interpreter, the libraries and their thread pools read
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system", "/sys/fs/cgroup"),
)


def enter(folders: Iterable[str], *, has_gpu: bool) -> None:
    """Give up network, writing, new programs, and other files than Python's own and those in *folders*.

    With *has_gpu* only limits apply: a graphics driver needs its devices and sockets.
    """
    for nothing in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        with contextlib.suppress(OSError):
            resource.setrlimit(nothing, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not has_gpu:
        _restrict_files(libc, folders)
        _filter_system_calls(libc)


def end_with(life: int) -> None:
    """Have the kernel end this process as soon as the other end of the pipe *life* is closed.

    SIGIO's default action is to end the process, even within native code. Unlike
    PR_SET_PDEATHSIG this does not depend on which thread of the daemon started the worker.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(life, select.POLLHUP)
    if poll.poll(0):
        os._exit(0)


def limit_memory(spare_bytes: int | None) -> None:
    """Limit the address space to its current use plus *spare_bytes*; None raises it to the system's limit."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY if spare_bytes is None else used + spare_bytes)


def limit_cpu(seconds: float) -> None:
    """End the process (SIGXCPU) after *seconds* more of CPU time, all threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, to the hard one at most."""
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(kind)[1]
        bounded = [limit for limit in (value, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min(bounded, default=resource.RLIM_INFINITY), hard))


def _restrict_files(libc: ctypes.CDLL, folders: Iterable[str]) -> None:
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = _ALL_OF_VERSION_1 | (_TRUNCATE if version >= 3 else 0)
    attributes = ctypes.create_string_buffer(struct.pack("<Q", handled), 8)
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(8), 0)
    if rules < 0:
        return
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for path in {*_READABLE, *sys.path, *libraries, sys.prefix, sys.base_prefix, *folders} - {""}:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = _READ_FILE | _EXECUTE | (_READ_FOLDER if os.path.isdir(path) else 0)
            rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, descriptor), 12)
            libc.syscall(_LANDLOCK_ADD, rules, 1, rule, 0)
            os.close(descriptor)
    libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    if platform.machine() not in _REFUSED:
        return
    architecture, numbers = _REFUSED[platform.machine()]
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0)]
    tgkill, prlimit64, fcntl_, ioctl = _BY_ARGUMENT[platform.machine()]
    this_process = (0, os.getpid())
    program += _by_argument(tgkill, 0, this_process, _ALLOW, _REFUSE)
    program += _by_argument(prlimit64, 0, this_process, _ALLOW, _REFUSE)
    program += _by_argument(fcntl_, 1, _SET_OWNER, _REFUSE, _ALLOW)
    program += _by_argument(ioctl, 1, _SET_OWNER_OF_SOCKET, _REFUSE, _ALLOW)
    # Each jump skips the comparisons that are left and the instruction that allows.
    program += [(_AT_LEAST, len(numbers) + 1, 0, 0x40000000)]  # x86-64's second numbering (x32)
    program += [(_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = b"".join(struct.pack("<HBBI", *step) for step in program)
    steps = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(program), ctypes.addressof(steps)), 16)
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)


def _by_argument(
    number: int, place: int, values: tuple[int, ...], known: int, unknown: int
) -> list[tuple[int, int, int, int]]:
    """Steps that answer call *number*: *known* if *values* have its argument at *place*, else *unknown*."""
    # Each jump skips the comparisons that are left and the first of the two answers.
    compare = [(_EQUAL, len(values) - count, 0, value) for count, value in enumerate(values)]
    steps = [(_LOAD, 0, 0, 16 + 8 * place), *compare, (_RETURN, 0, 0, unknown), (_RETURN, 0, 0, known)]
    return [(_EQUAL, 0, len(steps), number), *steps]
