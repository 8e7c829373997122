"""Seals the worker process before it runs its first cell (child side, standard library alone).

``seal`` is called once, while the process has a single thread: resource limits, no new privileges, no capabilities,
Landlock (read-only, few paths) and a seccomp *allowlist*. Each step that is asked for holds or raises ``CageError``;
nothing falls back in silence. What bubblewrap adds around this process is the parent's part (``process.py``); what the
worker does in its place comes before (``namespaces.py``).

The filter is an allowlist because denylists leak: a denylist of 50 calls let a cell kill its parent through
``fcntl(F_SETOWN)``, hold 800 MB in SysV shared memory and send datagrams out of a socketpair. What is not named
here fails with EPERM; calls newer than the table fail with ENOSYS, so that libc falls back to older ones.
"""

from __future__ import annotations

import _thread
import os
import resource
import struct

# Without the package around it, which adds 2 ms to a worker's start.
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno
from array import array

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any
else:
    Any = object

# One column for x86-64, one for aarch64; None where the architecture never had the call.
Numbers = tuple[int | None, int | None]

#: Allowed with any arguments: none of them names another process, a path to write, or a new kind of descriptor.
ALLOWED: dict[str, Numbers] = {
    # Descriptors: reading, and writing to what is already open (output pipe, channel, own pipes).
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "preadv": (295, 69), "preadv2": (327, 286), "close": (3, 57), "close_range": (436, 436), "lseek": (8, 62),
    "fadvise64": (221, 223), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441),
    # Looking at files; Landlock and bubblewrap decide which.
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "getdents": (78, None), "getdents64": (217, 61),
    # Memory of this process; RLIMIT_AS bounds it.
    "brk": (12, 214), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    # Threads and leaving.
    "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293), "sched_yield": (24, 124),
    "getcpu": (309, 168), "gettid": (186, 178), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # Own signals and timers.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103),
    # Facts about this process and the clock.
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "getpgrp": (111, None), "uname": (63, 160), "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153),
    "getrlimit": (97, 163), "getrandom": (318, 278), "nanosleep": (35, 101), "gettimeofday": (96, 169),
    "time": (201, None),
    # The channel and stream pairs; sending and receiving on them is below.
    "shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205),
}  # fmt: skip

# A condition on one argument: (index, mask, accepted values). ``WIDE`` compares all 64 bits with zero.
WIDE = -1
Condition = tuple[int, int, tuple[int, ...]]

_CLONE_THREAD_FLAGS = 0x00000100 | 0x00000400 | 0x00000800 | 0x00010000  # VM, FILES, SIGHAND, THREAD
_CLONE_FORBIDDEN = 0x00001000 | 0x00002000 | 0x00004000 | 0x00008000 | 0x7E020080  # PIDFD, PTRACE, VFORK, PARENT, NEW*
_OPEN_WRITES = 0o3 | 0o100 | 0o1000 | 0o2000  # accmode, creat, trunc, append
_FCNTL = (0, 1, 2, 3, 4, 1030, 1032)  # dupfd, get/setfd, get/setfl, dupfd_cloexec, getpipe_sz: no owner, no signal
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # tcgets, winsize, fionread, fionbio, fio(n)clex
_PRCTL = (15, 16, 0x53564D41)  # set/get name, names of mappings (libc's allocator)
_FUTEX = (0, 1, 3, 4, 5, 9, 10)  # wait, wake, (cmp_)requeue, wake_op, the bitset kinds: no priority inheritance
_FUTEX_FLAGS = 128 | 256  # private, realtime
# normal to dontneed, free, (no)hugepage, (do, dont)dump, populate: not mergeable, which compares pages with others'
_MADVISE = (0, 1, 2, 3, 4, 8, 14, 15, 16, 17, 22, 23)
_MAP_HUGETLB, _MAP_LOCKED = 0x40000, 0x2000
_PIPE_FLAGS = 0o2004000  # cloexec, nonblock: no notification pipes
_CLOCK_OF_ANOTHER = 0x80000000  # negative: the CPU clock of a process, or a device
_SEND_FLAGS = 0x40 | 0x4000 | 0x8000  # dontwait, nosignal, more: no out-of-band byte
_RECEIVE_FLAGS = 0x02 | 0x20 | 0x40 | 0x100 | 0x4000 | 0x40000000  # peek, trunc, dontwait, waitall, nosignal, cloexec
_SOL_SOCKET, _SO_READ = 1, (3, 4, 7, 8, 38, 39)  # type, error, buffers, protocol, domain: not the peer's identity
_AF_UNIX, _SOCK_STREAM, _SOCK_FLAGS = 1, 1, 0o2004000  # cloexec, nonblock

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CLONE3 = 435
#: Calls above this number are newer than the table: ENOSYS makes libc try the older way.
_NEWEST = 441


class CageError(Exception):
    """A layer that was asked for could not be put on."""


def rules(pid: int) -> dict[str, tuple[Numbers, tuple[Condition, ...]]]:
    """The calls that are allowed only with certain arguments; ``pid`` is this process in its own namespace."""
    read_only = _OPEN_WRITES | 0o20000000
    return {
        "open": ((2, None), ((1, read_only, (0,)),)),
        "openat": ((257, 56), ((2, read_only, (0,)),)),
        # A new thread of this process; never a process.
        "clone": ((56, 220), ((0, _CLONE_THREAD_FLAGS | _CLONE_FORBIDDEN, (_CLONE_THREAD_FLAGS,)),)),
        "futex": ((202, 98), ((1, _without(_FUTEX_FLAGS), _FUTEX),)),
        "mmap": ((9, 222), ((3, _MAP_HUGETLB | _MAP_LOCKED, (0,)),)),
        "madvise": ((28, 233), ((2, 0xFFFFFFFF, _MADVISE),)),
        "pipe2": ((293, 59), ((1, _without(_PIPE_FLAGS), (0,)),)),
        # Another process's CPU clock tells when its user types.
        "clock_gettime": ((228, 113), ((0, _CLOCK_OF_ANOTHER, (0,)),)),
        "clock_getres": ((229, 114), ((0, _CLOCK_OF_ANOTHER, (0,)),)),
        "clock_nanosleep": ((230, 115), ((0, _CLOCK_OF_ANOTHER, (0,)),)),
        "sched_getaffinity": ((204, 123), ((0, 0xFFFFFFFF, (0, pid)),)),
        "fcntl": ((72, 25), ((1, 0xFFFFFFFF, _FCNTL),)),
        "ioctl": ((16, 29), ((1, 0xFFFFFFFF, _IOCTL),)),
        "prctl": ((157, 167), ((0, 0xFFFFFFFF, _PRCTL),)),
        # Reading own limits, never setting any.
        "prlimit64": ((302, 261), ((0, 0xFFFFFFFF, (0, pid)), (2, WIDE, (0,)))),
        # asyncio wakes itself through one. A *datagram* pair could send to any socket that has a name.
        "socketpair": ((53, 199), ((0, 0xFFFFFFFF, (_AF_UNIX,)), (1, _without(_SOCK_FLAGS), (_SOCK_STREAM,)))),
        # No sendmsg: it would send descriptors. No address, no flag that has a use here.
        "sendto": ((44, 206), ((3, _without(_SEND_FLAGS), (0,)), (4, WIDE, (0,)))),
        "recvfrom": ((45, 207), ((3, _without(_RECEIVE_FLAGS), (0,)),)),
        "recvmsg": ((47, 212), ((2, _without(_RECEIVE_FLAGS), (0,)),)),
        # Not who the peer is, nor a descriptor of its process.
        "getsockopt": ((55, 209), ((1, 0xFFFFFFFF, (_SOL_SOCKET,)), (2, 0xFFFFFFFF, _SO_READ))),
        # raise() and abort(): signals to this process alone.
        "kill": ((62, 129), ((0, 0xFFFFFFFF, (pid,)),)),
        "tgkill": ((234, 131), ((0, 0xFFFFFFFF, (pid,)),)),
        "getpgid": ((121, 155), ((0, 0xFFFFFFFF, (0, pid)),)),
        "getsid": ((124, 156), ((0, 0xFFFFFFFF, (0, pid)),)),
    }


def _without(flags: int) -> int:
    """The mask of all bits but ``flags``."""
    return 0xFFFFFFFF & ~flags


# --- seccomp -----------------------------------------------------------------------------------------------------

_LD, _AND, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
Instruction = tuple[int, int, int, int]


def seccomp_filter(machine: str, pid: int) -> list[Instruction]:
    """The classic BPF program for ``machine`` (x86_64 or aarch64), as (code, jump true, jump false, k)."""
    column = _COLUMN[machine]
    program: list[Instruction] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RET, 0, 0, _KILL),
        (_LD, 0, 0, 0),
    ]
    if machine == "x86_64":  # the x32 ABI shares the architecture's mark and has numbers of its own
        program += [(_JGE, 0, 1, 0x40000000), (_RET, 0, 0, _KILL)]
    for number in (numbers[column] for numbers in ALLOWED.values()):
        if number is not None:
            program += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ALLOW)]
    for numbers, conditions in rules(pid).values():
        number = numbers[column]
        if number is not None:
            block = [i for condition in conditions for i in _check(condition)] + [(_RET, 0, 0, _ALLOW)]
            program += [(_JEQ, 0, len(block), number), *block]
    program += [(_JEQ, 0, 1, _CLONE3), (_RET, 0, 0, _ENOSYS), (_JGT, 0, 1, _NEWEST), (_RET, 0, 0, _ENOSYS)]
    return [*program, (_RET, 0, 0, _EPERM)]


def _check(condition: Condition) -> list[Instruction]:
    """Goes on after its last instruction when the argument is accepted, else returns EPERM."""
    index, mask, values = condition
    low = 16 + 8 * index
    if mask == WIDE:
        return [(_LD, 0, 0, low), (_JEQ, 1, 0, 0), (_RET, 0, 0, _EPERM),
                (_LD, 0, 0, low + 4), (_JEQ, 1, 0, 0), (_RET, 0, 0, _EPERM)]  # fmt: skip
    load = [(_LD, 0, 0, low)] if mask == 0xFFFFFFFF else [(_LD, 0, 0, low), (_AND, 0, 0, mask & 0xFFFFFFFF)]
    tests = [(_JEQ, len(values) - i, 0, value & 0xFFFFFFFF) for i, value in enumerate(values)]
    return [*load, *tests, (_RET, 0, 0, _EPERM)]


def _apply_seccomp(machine: str) -> None:
    instructions = seccomp_filter(machine, os.getpid())
    packed = array("B", b"".join(struct.pack("<HBBI", *i) for i in instructions))
    program = struct.pack("@HP", len(instructions), packed.buffer_info()[0])
    # SECCOMP_SET_MODE_FILTER with TSYNC: every thread, should there be one, or none.
    result = syscall(_SECCOMP[machine], 1, 1, program)
    if result != 0:
        raise CageError(f"seccomp refused the filter ({_reason(result)})")


# --- Landlock ----------------------------------------------------------------------------------------------------

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FS_RIGHTS_NEWEST = (1 << 16) - 1  # ABI 5 and later


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    return max(0, syscall(_LANDLOCK_CREATE, None, 0, 1))


def _apply_landlock(readable: Iterable[str], most: int) -> None:
    abi = min(landlock_abi(), most)
    if abi < 1:
        raise CageError("this kernel has no Landlock")
    # fs, net (bind and connect over TCP), scope (abstract sockets, signals): the struct grew with the ABI.
    fields = [_FS_RIGHTS.get(abi, _FS_RIGHTS_NEWEST)] + ([3] if abi >= 4 else []) + ([3] if abi >= 6 else [])
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    ruleset = syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        raise CageError(f"Landlock refused the rule set ({_reason(ruleset)})")
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        if (result := syscall(_LANDLOCK_RESTRICT, ruleset, 0)) != 0:
            raise CageError(f"Landlock refused to restrict ({_reason(result)})")
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be shown
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        rule = struct.pack("<Qi", rights, parent)
        if (result := syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)) != 0:
            raise CageError(f"Landlock refused a rule ({_reason(result)})")
    finally:
        os.close(parent)


# --- the rest ----------------------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 38, 47
_CAPABILITY_V3 = 0x20080522


def _drop_privileges(machine: str) -> None:
    prctl = c_function("prctl")
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise CageError("prctl refused to give up privileges")
    prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)  # clear all; kernels without ambient sets have nothing to clear
    header, nothing = struct.pack("<Ii", _CAPABILITY_V3, 0), bytes(24)
    if (result := syscall(_CAPSET[machine], header, nothing)) != 0:
        raise CageError(f"capset refused to drop capabilities ({_reason(result)})")


def _limit(limits: Sequence[tuple[int, int, int]]) -> None:
    for kind, soft, hard in limits:
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:  # only root may lift a hard limit that is there already
            hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def die_with(parent: int) -> None:
    """Ends this process when the thread that started it ends; at once if that has happened already."""
    c_function("prctl")(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(0)


def seal(
    *,
    readable: Sequence[str],
    landlock: int,
    seccomp: bool,
    limits: Sequence[tuple[int, int, int]],
    namespaces: bool = False,
) -> list[str]:
    """Puts the layers on, innermost last, and returns their names.

    Args:
        readable: Files and folders that cells may read (interpreter, system libraries).
        landlock: The newest version of Landlock that is used, 0 for none; where it is wanted it must hold.
        seccomp: Whether the filter is wanted; it must then hold.
        limits: (resource, soft, hard).
        namespaces: Whether it entered namespaces of its own, where it has capabilities to give up.

    Raises:
        CageError: A layer could not be put on. The process must not run cells.
    """
    machine = platform_machine()
    if machine not in _AUDIT_ARCH:
        raise CageError(f"no seccomp table for {machine}")
    _limit(limits)
    layers = ["rlimits"] if limits else []
    if landlock and _thread._count():
        raise CageError("the process has more than one thread")  # Landlock would seal this one alone
    if landlock or seccomp or namespaces:
        _drop_privileges(machine)
    if landlock:
        _apply_landlock(readable, landlock)
        layers.append("landlock")
    if seccomp:
        _apply_seccomp(machine)
        layers.append("seccomp")
    return layers


def platform_machine() -> str:
    """The kernel's name of the architecture, with its aliases folded."""
    machine = os.uname().machine
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _reason(result: int) -> str:
    return os.strerror(get_errno()) if result < 0 else f"result {result}"


# --- libc --------------------------------------------------------------------------------------------------------


class Pointer(_SimpleCData):  # type: ignore[type-arg]  # it takes none when it runs
    """``void *``."""

    _type_ = "P"


class _Long(_SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "l"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


def c_symbol(name: str) -> int:
    """The address of a function or variable of libc."""
    program: Any = None  # with the libraries that it was started with
    return dlsym(dlopen(program, os.RTLD_NOW), name)


def c_function(name: str) -> Any:
    """A function of libc that returns a number; it takes integers, bytes, None and ``Pointer``s."""
    return _Function(c_symbol(name))


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """The result of a call of the kernel, -1 for a failure."""
    result: int = c_function("syscall")(number, *arguments)
    return result
