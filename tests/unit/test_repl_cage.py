"""The seccomp filter, executed here instruction by instruction: what it answers to each call on both architectures."""

from __future__ import annotations

import errno
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rlmd.repl import cage, namespaces

PID = 4711
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILL, ALLOW = "kill", "allow"


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> str:
    """What the kernel would do with the call: allow, kill, or the name of an errno."""
    values = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack(
        "<IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, *(v & (1 << 64) - 1 for v in values)
    )
    program = cage.seccomp_filter(machine, PID)
    accumulator = counter = 0
    while True:
        code, yes, no, k = program[counter]
        counter += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            counter += yes if holds else no
        elif code == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(k) or errno.errorcode[k & 0xFFFF]
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@pytest.fixture(params=sorted(ARCH))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def number_of(name: str, machine: str) -> int | None:
    numbers = cage.ALLOWED.get(name) or cage.rules(PID)[name][0]
    return numbers[0 if machine == "x86_64" else 1]


#: Names of a call that headers spell otherwise.
_SPELLED = {"newfstatat": ("newfstatat", "fstatat"), "fadvise64": ("fadvise64",)}
_HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    # What the kernel builds aarch64's table from.
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}


def numbers_of_the_kernel(machine: str) -> dict[str, int]:
    """The kernel's own numbers, from its headers."""
    text = next(Path(path).read_text() for path in _HEADERS[machine] if Path(path).exists())
    found = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n", text)}
    assert len(found) > 300
    return found


def test_the_numbers_are_the_kernels(machine: str) -> None:
    """Of each call that is allowed or spoken of here; one that a machine never had is not in its headers."""
    known = numbers_of_the_kernel(machine)
    column = 0 if machine == "x86_64" else 1
    named = cage.ALLOWED | {name: numbers for name, (numbers, _) in cage.rules(PID).items()} | FORBIDDEN
    for name, numbers in named.items():
        spelled = next((s for s in _SPELLED.get(name, (name,)) if s in known), None)
        assert numbers[column] == (known[spelled] if spelled else None), name


def test_what_is_allowed_is_allowed(machine: str) -> None:
    for name in cage.ALLOWED:
        number = number_of(name, machine)
        assert number is None or verdict(machine, number) == ALLOW, name


#: name → (x86-64, aarch64): what a cell must never have.
FORBIDDEN = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "accept": (43, 202), "execve": (59, 221),
    "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "process_vm_readv": (310, 270), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "chmod": (90, None), "fchmodat": (268, 53),
    "fchownat": (260, 54), "utimensat": (280, 88), "setxattr": (188, 5), "unlinkat": (263, 35), "renameat2": (316, 276),
    "sendmsg": (46, 211), "chdir": (80, 49), "statfs": (137, 43), "membarrier": (324, 283), "splice": (275, 76),
    "vmsplice": (278, 75), "add_key": (248, 217), "fanotify_init": (300, 262), "modify_ldt": (154, None),
    "arch_prctl": (158, None), "iopl": (172, None), "vhangup": (153, 58), "kcmp": (312, 272), "quotactl": (179, 60),
    "name_to_handle_at": (303, 264), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "mlock": (149, 228),
    "sched_setscheduler": (144, 119), "timerfd_create": (283, 85), "pkey_alloc": (330, 289), "uselib": (134, None),
    "landlock_create_ruleset": (444, 444), "process_madvise": (440, 440),
    "pivot_root": (155, 41), "mount_setattr": (442, 442),
    "mkdirat": (258, 34), "symlinkat": (266, 36), "linkat": (265, 37), "truncate": (76, 45),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "keyctl": (250, 219),
    "seccomp": (317, 277), "setrlimit": (160, 164), "setsockopt": (54, 208), "openat2": (437, 437), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "setpriority": (141, 140), "sched_setaffinity": (203, 122), "kexec_load": (246, 104),
    "personality": (135, 92), "signalfd4": (289, 74), "timer_create": (222, 107), "inotify_init1": (294, 26),
}  # fmt: skip


def test_the_numbers_of_the_namespaces_are_those_too(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    assert namespaces._PIVOT_ROOT[machine] == FORBIDDEN["pivot_root"][column]
    assert FORBIDDEN["mount_setattr"][column] == namespaces._MOUNT_SETATTR


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_not_named_is_refused(name: str, machine: str) -> None:
    number = FORBIDDEN[name][0 if machine == "x86_64" else 1]
    assert number is None or verdict(machine, number) in ("EPERM", "ENOSYS")


def test_other_architectures_and_abis_are_killed() -> None:
    assert verdict("x86_64", 0, arch=0x40000003) == KILL  # i386
    assert verdict("x86_64", 0x40000000 | 39) == KILL  # x32
    assert verdict("aarch64", 63, arch=0x40000028) == KILL  # arm


def test_newer_calls_are_unknown_so_that_libc_falls_back(machine: str) -> None:
    assert verdict(machine, 435) == "ENOSYS"  # clone3: its arguments cannot be read here
    assert verdict(machine, 460) == "ENOSYS"


THREAD = 0x3D0F00
RULES = {
    "thread": ("clone", (THREAD,), ALLOW),
    "musl's thread": ("clone", (0x7D0F00,), ALLOW),
    "fork": ("clone", (0x1200011,), "EPERM"),
    "vfork": ("clone", (0x4111,), "EPERM"),
    "thread in a new namespace": ("clone", (THREAD | 0x10000000,), "EPERM"),
    "thread with a pidfd": ("clone", (THREAD | 0x1000,), "EPERM"),
    "reading": ("openat", (0, 0, 0o2000000), ALLOW),
    "a folder": ("openat", (0, 0, 0o2200000), ALLOW),
    "writing": ("openat", (0, 0, 0o1), "EPERM"),
    "reading and writing": ("openat", (0, 0, 0o2), "EPERM"),
    "making": ("openat", (0, 0, 0o100), "EPERM"),
    "cutting": ("openat", (0, 0, 0o1000), "EPERM"),
    "a nameless file": ("openat", (0, 0, 0o20200000), "EPERM"),
    "waiting": ("futex", (0, 0 | 128), ALLOW),
    "waiting till a time of day": ("futex", (0, 9 | 256), ALLOW),
    "lock that lends priority": ("futex", (0, 6), "EPERM"),
    "waiting that moves to such a lock": ("futex", (0, 11 | 128), "EPERM"),
    "memory": ("mmap", (0, 4096, 3, 0x22), ALLOW),
    "huge pages": ("mmap", (0, 4096, 3, 0x40022), "EPERM"),
    "locked pages": ("mmap", (0, 4096, 3, 0x2022), "EPERM"),
    "giving pages back": ("madvise", (0, 4096, 4), ALLOW),
    "pages that may be merged": ("madvise", (0, 4096, 12), "EPERM"),
    "broken pages": ("madvise", (0, 4096, 100), "EPERM"),
    "a pipe": ("pipe2", (0, 0o2004000), ALLOW),
    "a pipe of notes": ("pipe2", (0, 0o200), "EPERM"),
    "time": ("clock_gettime", (1, 0), ALLOW),
    "CPU time of another": ("clock_gettime", (~4712 << 3 | 2, 0), "EPERM"),
    "sleep by another's CPU time": ("clock_nanosleep", (~4712 << 3 | 2, 0), "EPERM"),
    "own processors": ("sched_getaffinity", (0, 8), ALLOW),
    "another's processors": ("sched_getaffinity", (1, 8), "EPERM"),
    "receive": ("recvfrom", (3, 0, 0, 0x40), ALLOW),
    "receive with descriptors": ("recvmsg", (3, 0, 0x40000000), ALLOW),
    "receive out of band": ("recvfrom", (3, 0, 0, 1), "EPERM"),
    "receive errors": ("recvmsg", (3, 0, 0x2000), "EPERM"),
    "send out of band": ("sendto", (3, 0, 0, 1, 0, 0), "EPERM"),
    "send and connect": ("sendto", (3, 0, 0, 0x20000000, 0, 0), "EPERM"),
    "type of a socket": ("getsockopt", (3, 1, 3), ALLOW),
    "peer of a socket": ("getsockopt", (3, 1, 17), "EPERM"),
    "process behind a socket": ("getsockopt", (3, 1, 77), "EPERM"),
    "option of another layer": ("getsockopt", (3, 6, 3), "EPERM"),
    "dup": ("fcntl", (3, 1030, 0), ALLOW),
    "owner": ("fcntl", (3, 8, 1), "EPERM"),
    "owner, extended": ("fcntl", (3, 15, 1), "EPERM"),
    "signal": ("fcntl", (3, 10, 9), "EPERM"),
    "pipe size": ("fcntl", (3, 1031, 1 << 20), "EPERM"),
    "lease": ("fcntl", (3, 1024, 0), "EPERM"),
    "upper half": ("fcntl", (3, 8 | 1 << 32, 0), "EPERM"),
    "nonblocking": ("ioctl", (3, 0x5421), ALLOW),
    "owner by ioctl": ("ioctl", (3, 0x8901), "EPERM"),
    "typing for the terminal": ("ioctl", (3, 0x5412), "EPERM"),
    "own name": ("prctl", (15,), ALLOW),
    "dumpable again": ("prctl", (4, 1), "EPERM"),
    "reading own limits": ("prlimit64", (0, 9, 0, 1), ALLOW),
    "setting own limits": ("prlimit64", (0, 9, 0x7000), "EPERM"),
    "setting them, high pointer": ("prlimit64", (0, 9, 0x7 << 32), "EPERM"),
    "another's limits": ("prlimit64", (1, 9, 0), "EPERM"),
    "stream pair": ("socketpair", (1, 0o2004001, 0), ALLOW),
    "datagram pair": ("socketpair", (1, 2, 0), "EPERM"),
    "packet pair": ("socketpair", (1, 5, 0), "EPERM"),
    "pair of another family": ("socketpair", (2, 1, 0), "EPERM"),
    "send": ("sendto", (3, 0, 0, 0, 0, 0), ALLOW),
    "send to an address": ("sendto", (3, 0, 0, 0, 0x7F00 << 32, 16), "EPERM"),
    "signal to itself": ("kill", (PID, 6), ALLOW),
    "signal to its group": ("kill", (0, 9), "EPERM"),
    "signal to all": ("kill", (-1, 9), "EPERM"),
    "signal to another": ("kill", (1, 9), "EPERM"),
    "signal to another's thread": ("tgkill", (1, 1, 9), "EPERM"),
}


@pytest.mark.parametrize("name", RULES)
def test_some_calls_depend_on_their_arguments(name: str, machine: str) -> None:
    call, arguments, expected = RULES[name]
    number = number_of(call, machine)
    assert number is not None
    assert verdict(machine, number, *arguments) == expected


def test_jumps_stay_inside_the_program(machine: str) -> None:
    program = cage.seccomp_filter(machine, PID)
    assert len(program) < 4096
    for position, (code, yes, no, _) in enumerate(program):
        if code in (0x15, 0x25, 0x35):
            assert position + 1 + max(yes, no) < len(program)
            assert max(yes, no) < 256


_BEFORE_THE_SEAL = """
import errno, sys, threading, _socket
from rlmd.repl import cage
told, may = [], threading.Event()
def born_before():
    may.wait()
    try:
        _socket.socket(1, 1)
        told.append("through")
    except OSError as error:
        told.append(errno.errorcode[error.errno])
thread = threading.Thread(target=born_before)
thread.start()
try:
    cage.seal(readable=[], landlock=int(sys.argv[1]), seccomp=True, limits=[])
except cage.CageError as error:
    told.append(str(error))
may.set()
thread.join()
print(*told)
"""


def test_a_thread_born_before_the_seal_is_sealed_too() -> None:
    """Landlock seals the calling thread alone, so that a second one is refused; the filter takes all threads in."""
    for landlock, expected in ((0, "EPERM"), (1, "the process has more than one thread through")):
        told = subprocess.run(
            [sys.executable, "-c", _BEFORE_THE_SEAL, str(landlock)], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == expected


def test_a_sealed_process_is_unreadable_to_others_and_leaves_no_core() -> None:
    """PR_GET_DUMPABLE, prctl(2), which the filter would not let through."""
    code = (
        "from rlmd.repl import cage\n"
        "ask = lambda: cage.c_function('prctl')(3, 0, 0, 0, 0)\n"
        "before = ask()\n"
        "cage.seal(readable=[], landlock=0, seccomp=False, limits=[], namespaces=True)\n"
        "print(before, ask(), cage.c_function('prctl')(39, 0, 0, 0, 0))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stdout == "1 0 1\n", told.stderr
