"""Attacks as data: what a hostile cell tries, and which layers hold it, each by itself.

An attack prints ESCAPED when it got through; what it leaves outside is looked for as well (``tests/siege.py``). The
code finds these names: KEY and EMPTY (a key file and an empty folder of the user's), PARENT and VICTIM (the daemon's
process and another one of the user's), ADDRESS (sockets that listen), HOST (the machine's name), MEMORY (what the
session may take, in bytes), ``libc``, ``call`` (a bare system call by its numbers on x86-64 and aarch64), ``hold``
(lasts until the watch has looked, then says that nothing stopped it).
"""

from __future__ import annotations

from dataclasses import dataclass

#: The layers by name, as ``CagePlan`` has them. ``privileges`` comes with seccomp, Landlock and namespaces of
#: one's own: no capabilities, no new ones.
LAYERS = ("seccomp", "landlock", "bubblewrap", "namespaces", "limits", "watch", "privileges")


@dataclass(frozen=True)
class Attack:
    """One way to get out.

    Attributes:
        kind: Its class.
        code: Python, run as a cell.
        held_by: The layers that hold it, each alone.
        perhaps: Layers that hold it on some machines, or for some users.
        root: Whether it takes root to work anywhere.
        vacuous: Whether a machine may lack what it attacks, so that nothing need get through even where nothing holds.
    """

    kind: str
    code: str
    held_by: frozenset[str]
    perhaps: frozenset[str] = frozenset()
    root: bool = False
    vacuous: bool = False


PREAMBLE = """
import ctypes, fcntl, mmap, os, resource, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
ARM = os.uname().machine == 'aarch64'
def call(x86, arm, *arguments):
    result = libc.syscall(arm if ARM else x86, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def escaped(*_): print('ESCAPED')
def hold():
    llm_query('Has the watch looked?')
    escaped()
"""

_S, _L, _B, _R, _W, _P = ("seccomp",), ("landlock",), ("bubblewrap",), ("limits",), ("watch",), ("privileges",)
#: bubblewrap, and the namespaces that a worker makes itself; these leave it among the machine's processes.
_N = (*_B, "namespaces")


def _rows(
    kind: str,
    held: tuple[str, ...],
    rows: dict[str, str],
    *,
    perhaps: tuple[str, ...] = (),
    root: bool = False,
    vacuous: bool = False,
) -> dict[str, Attack]:
    return {name: Attack(kind, code, frozenset(held), frozenset(perhaps), root, vacuous) for name, code in rows.items()}


READING = "reading files"
CHANGING = "changing files"
LOOKING = "looking around"
NETWORK = "network"
OTHERS = "other processes"
STARTING = "starting processes and programs"
MEMORY = "memory that is not counted"
MUCH = "too much of everything"
KERNEL = "seldom used parts of the kernel"
SELF = "the worker's own limits and standing"

ATTACKS: dict[str, Attack] = {
    # Files and memory read. Landlock and a root folder of its own each show only the interpreter and libraries.
    **_rows(READING, _L + _N, {
        "key file": "print(open(KEY).read())",
        "home folder": "os.listdir(os.path.dirname(KEY)) and escaped()",
        "users of the machine": "open('/etc/passwd').read() and escaped()",
        "daemon's command line": "open(f'/proc/{PARENT}/cmdline').read() and escaped()",
        "processes of the machine": "str(VICTIM) in os.listdir('/proc') and escaped()",
        "devices and hardware": "os.listdir('/sys/class') and escaped()",
        "start of the machine": "open('/proc/cmdline').read() and escaped()",
    }),
    **_rows(READING, _L + _N, {  # of root's processes, which one without capabilities may not look into
        "key file by another way": "print(open(f'/proc/{PARENT}/root' + KEY).read())",
        "daemon's environment": "b'PATH=' in open(f'/proc/{PARENT}/environ', 'rb').read() and escaped()",
        "daemon's memory by /proc": "os.pread(os.open(f'/proc/{PARENT}/mem', 0), 1, int(open(f'/proc/{PARENT}/maps')"
                                    ".read().split('-')[0], 16)) and escaped()",
        "what another process has open": "print(open(f'/proc/{VICTIM}/fd/0').read())",
        "what program another process runs": "os.readlink(f'/proc/{VICTIM}/exe') and escaped()",
    }, perhaps=_P),
    **_rows(READING, _L + _N, {"kernel's memory": "os.pread(os.open('/proc/kcore', 0), 64, 0) and escaped()"},
            root=True, vacuous=True, perhaps=_P),
    # Names, sizes and times: Landlock does not cover them, and Python's import needs them.
    **_rows(LOOKING, _N, {
        "size of the key file": "os.stat(KEY).st_size and escaped()",
        "whether a file exists": "os.path.exists(KEY) and escaped()",
        "name of the machine": "os.uname().nodename == HOST and escaped()",
    }),
    **_rows(LOOKING, _S + _N, {
        "working folder in the home": "os.chdir(os.path.dirname(KEY)); escaped()",
        "room on the user's disk": "os.statvfs(EMPTY).f_blocks and escaped()",
        "watch on the home": "call(254, 27, call(294, 26, 0), os.path.dirname(KEY).encode(), 0x100) and escaped()",
    }),
    **_rows(LOOKING, _S + _B, {
        "when another process computes": "time.clock_gettime(~VICTIM << 3 | 2); escaped()",
        "whether a process exists": "os.sched_getaffinity(VICTIM) and escaped()",
    }),
    **_rows(LOOKING, _L, {"folders above the interpreter": "os.listdir('/') and escaped()"}),
    **_rows(LOOKING, _S, {
        "process behind the channel": (
            "p = socket.socket(fileno=os.dup(200)).getsockopt(1, 17, 12); struct.unpack('iii', p)[1] >= 0 and escaped()"
        ),
    }),
    # Files made or changed. The filter opens nothing for writing and has no call that changes a name or an attribute.
    **_rows(CHANGING, _S + _L + _N, {
        "new folder": "os.mkdir(EMPTY + '/x')",
        "new link": "os.symlink('/', EMPTY + '/x')",
        "hard link to the key": "os.link(KEY, EMPTY + '/x')",
        "new socket file": "socket.socket(socket.AF_UNIX).bind(EMPTY + '/x')",
        "new fifo": "os.mkfifo(EMPTY + '/x')",
        "new file": "os.close(os.open(EMPTY + '/x', os.O_WRONLY | os.O_CREAT, 0o600))",
        "new file by openat2": "call(437, 437, -100, EMPTY.encode() + b'/x', struct.pack('QQQ', 0o101, 0o600, 0), 24)",
        "new file by creat": "libc.creat(EMPTY.encode() + b'/x', 0o600)",
        "key file removed": "os.unlink(KEY)",
        "key file moved": "os.rename(KEY, EMPTY + '/key')",
        "key file exchanged": (
            "os.close(os.open(EMPTY + '/y', os.O_WRONLY | os.O_CREAT, 0o600))\n"
            "call(316, 276, -100, KEY.encode(), -100, EMPTY.encode() + b'/y', 2)"
        ),
        "folder removed": "os.rmdir(EMPTY)",
        "file without a name": "os.open(EMPTY, os.O_TMPFILE | os.O_RDWR); escaped()",
        "memory folder of the machine": (
            "f = '/dev/shm/' + NAME\nos.open(f, os.O_CREAT | os.O_RDWR); os.unlink(f); escaped()"
        ),
        "temporary folder": "f = '/tmp/' + NAME\nos.open(f, os.O_CREAT | os.O_RDWR); os.unlink(f); escaped()",
        "own memory by /proc": "os.open('/proc/self/mem', os.O_RDWR); escaped()",
        "another's readiness to be killed": "os.write(os.open(f'/proc/{VICTIM}/oom_score_adj', 1), b'900'); escaped()",
    }),
    **_rows(CHANGING, _S + _L + _N, {
        "root folder": "os.mkdir('/' + NAME); os.rmdir('/' + NAME); escaped()",
    }, root=True),
    **_rows(CHANGING, _S + _N, {  # past Landlock, which knows contents and names, not attributes, nor cuts before ABI 3
        "key file cut": "os.truncate(KEY, 0)",
        "key file opened to all": "os.chmod(KEY, 0o666)",
        "key file opened to all by fchmodat": "call(268, 53, -100, KEY.encode(), 0o666)",
        "key file touched": "os.utime(KEY); escaped()",
        "key file given away": "os.chown(KEY, os.getuid(), os.getgid()); escaped()",
    }),
    **_rows(CHANGING, _S + _L + _N + _R, {
        "key file written": "os.write(os.open(KEY, os.O_WRONLY), b'x')",
        "key file added to": "os.write(os.open(KEY, os.O_WRONLY | os.O_APPEND), b'x')",
    }),
    **_rows(CHANGING, _S + _N, {"key file's attributes": "os.setxattr(KEY, 'user.x', b'1'); escaped()"}, vacuous=True),
    **_rows(CHANGING, _S + _L + _N, {"terminal": "os.open('/dev/ptmx', os.O_RDWR); escaped()"}, vacuous=True),
    # Sockets. bubblewrap's network is empty, but a path leads to a socket wherever it can be seen.
    **_rows(NETWORK, _S + _N, {
        "tcp": "socket.create_connection(ADDRESS['tcp']).recv(1) and escaped()",
        "udp": (
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(ADDRESS['udp'])\n"
            "s.send(b'x'); s.recv(1) and escaped()"
        ),
        "tcp without connect": (
            "s = socket.socket()\ns.sendto(b'x', 0x20000000, ADDRESS['tcp']); s.recv(1) and escaped()"  # MSG_FASTOPEN
        ),
        "rlmd's own socket": "socket.socket(socket.AF_UNIX).connect(ADDRESS['rlmd'])",
        "abstract socket": "socket.socket(socket.AF_UNIX).connect(ADDRESS['abstract'])",
        "datagram to a service": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', ADDRESS['notify'])",
        "datagram out of a socketpair": (
            "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', ADDRESS['notify'])"
        ),
        "datagram by sendmsg": (
            "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendmsg([b'x'], [], 0, ADDRESS['notify'])"
        ),
        "by asyncio": (
            "import asyncio\nasync def call_out():\n    reader, _ = await asyncio.open_connection(*ADDRESS['tcp'])\n"
            "    await reader.read(1) and escaped()\nasyncio.run(call_out())"
        ),
    }),
    **_rows(NETWORK, _S, {
        "listening": "s = socket.socket(socket.AF_UNIX); s.bind('\\0' + NAME); s.listen(); escaped()",
        "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).bind((0, 0)); escaped()",
        "packet pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); escaped()",
        "descriptor over a socket": (
            "import array\na, b = socket.socketpair()\na.sendmsg([b'x'], [(1, 1, array.array('i', [0]))]); escaped()"
        ),
        "out-of-band byte": "a, b = socket.socketpair()\na.send(b'x', socket.MSG_OOB); escaped()",
    }, vacuous=False),
    # The daemon and other processes of the user.
    **_rows(OTHERS, _S + _B, {
        "signal to the daemon": "os.kill(PARENT, 0); escaped()",
        "signal that kills another": "os.kill(VICTIM, 9); escaped()",
        "signal to its group": "os.killpg(os.getpgid(VICTIM), 0); escaped()",
        "signal to its thread": "call(234, 131, VICTIM, VICTIM, 9); escaped()",
        "signal by pidfd": "signal.pidfd_send_signal(os.pidfd_open(VICTIM), 9); escaped()",
        "queued signal": "libc.sigqueue(VICTIM, 9, None) == 0 and escaped()",
        "signal by a pipe's owner": (
            "r, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, VICTIM)\nfcntl.fcntl(r, fcntl.F_SETSIG, 9)\n"
            "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\nos.write(w, b'x')"
        ),
        "signal by a pipe's owner, extended": (
            "r, w = os.pipe()\nfcntl.fcntl(r, 15, struct.pack('ii', 1, VICTIM))\nfcntl.fcntl(r, fcntl.F_SETSIG, 9)\n"
            "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\nos.write(w, b'x')"
        ),
        "signal by a socket's owner": (
            "a, b = socket.socketpair()\nfcntl.ioctl(a, 0x8901, struct.pack('i', VICTIM))\n"
            "fcntl.fcntl(a, fcntl.F_SETSIG, 9)\nfcntl.ioctl(a, 0x5452, struct.pack('i', 1))\nb.send(b'x')"
        ),
        "another's limits": "resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (3, 3)); escaped()",
        "another's end by its watcher": "os.pidfd_open(VICTIM) >= 0 and escaped()",
        "another's session": "os.getsid(VICTIM) and escaped()",
    }),
    **_rows(OTHERS, _S + _B, {
        "another's scheduling": "os.setpriority(os.PRIO_PROCESS, VICTIM, 19); escaped()",
        "another's processors": "os.sched_setaffinity(VICTIM, {0}); escaped()",
    }, perhaps=_P),
    **_rows(OTHERS, _S + _L + _N, {
        "another's memory read": (
            "a = (ctypes.c_uint64 * 2)(ctypes.addressof(b := ctypes.create_string_buffer(8)), 8)\n"
            "call(310, 270, VICTIM, a, 1, (ctypes.c_uint64 * 2)(SECRET_AT, 8), 1, 0) and escaped()"
        ),
        "another's memory written": (
            "a = (ctypes.c_uint64 * 2)(ctypes.addressof(b := ctypes.create_string_buffer(8)), 8)\n"
            "call(311, 271, VICTIM, a, 1, (ctypes.c_uint64 * 2)(SECRET_AT, 8), 1, 0) and escaped()"
        ),
        "another traced": "call(101, 117, 0x4206, VICTIM, 0, 0); escaped()",
        "another's descriptor taken": "call(438, 438, os.pidfd_open(VICTIM), 0, 0) >= 0 and escaped()",
    }),
    # Processes and programs.
    **_rows(STARTING, _S, {
        "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nescaped()",
        "fork by clone": "pid = call(56, 220, 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nescaped()",
        "fork by clone3": (
            "pid = call(435, 435, struct.pack('8Q', 0, 0, 0, 0, 17, 0, 0, 0), 64)\nif pid == 0: os._exit(0)\n"
            "os.waitpid(pid, 0)\nescaped()"
        ),
        "multiprocessing": "import multiprocessing as m\np = m.Process(target=int)\np.start(); p.join(); escaped()",
    }, perhaps=_W),  # which may happen to look just then
    **_rows(STARTING, _S, {"new user namespace": "call(272, 97, 0x10000000); escaped()"}),
    **_rows(STARTING, _S + _W, {
        "process left behind": "if os.fork() == 0:\n    os.setsid(); time.sleep(60)\n    os._exit(0)\nhold()",
        "fork bomb": (
            "for _ in range(40):\n    if os.fork() == 0:\n        time.sleep(60); os._exit(0)\nhold()"
        ),
        "memory over several processes": (
            "for _ in range(4):\n    if os.fork() == 0:\n        b = b'x' * (MEMORY // 4)\n"
            "        time.sleep(60); os._exit(0)\nhold()"
        ),
    }),
    **_rows(STARTING, _S + _L + _N, {
        "program": "import subprocess\nsubprocess.run(['/bin/true'], check=True); escaped()",
        "posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['x'], {}), 0)[1] == 0 and escaped()",
        "os.system": "os.system('exit 7') >> 8 == 7 and escaped()",
    }, perhaps=_W),
    **_rows(STARTING, _S + _L, {
        "the interpreter anew": (
            "import subprocess\nsubprocess.run([PYTHON, '-S', '-c', ''], check=True); escaped()"
        ),
    }, perhaps=_W),
    **_rows(STARTING, _S + _L, {
        "memory mounted over a folder": (
            "call(272, 97, 0x10020000)\ncall(165, 40, b'x', b'/usr/lib', b'tmpfs', 0, 0); escaped()"
        ),
    }),
    # Memory that an address space does not count, and that may stay behind.
    **_rows(MEMORY, _S, {
        "memfd": "os.close(os.memfd_create('x')); escaped()",
        "System V memory": "i = call(29, 194, 0, 4096, 0o1600)\ncall(31, 195, i, 0, 0)\nescaped()",
        "System V queue": "i = call(68, 186, 0, 0o1600)\ncall(71, 187, i, 0, 0)\nescaped()",
        "System V semaphores": "i = call(64, 190, 0, 9, 0o1600)\ncall(66, 191, i, 0, 0, 0)\nescaped()",
        "pipes of a megabyte": "r, w = os.pipe()\nfcntl.fcntl(w, 1031, 1 << 20); escaped()",
        "socket buffers": "socket.socketpair()[0].setsockopt(1, 7, 1 << 24); escaped()",
        "pages given to a pipe": (
            "r, w = os.pipe()\nb = ctypes.create_string_buffer(4096)\n"
            "call(278, 75, w, (ctypes.c_uint64 * 2)(ctypes.addressof(b), 4096), 1, 0) and escaped()"
        ),
    }),
    **_rows(MEMORY, _S, {
        "keys": "call(248, 217, b'user', NAME.encode(), b'x' * 99, 99, -3) and escaped()",
        "userfaultfd": "call(323, 282, 1) and escaped()",
        "io_uring": "call(425, 425, 4, ctypes.create_string_buffer(120)) >= 0 and escaped()",
        "memfd_secret": "call(447, 447, 0) and escaped()",
    }, vacuous=True),
    **_rows(MEMORY, _S + _N, {
        "System V memory left behind": "call(29, 194, NUMBER, MEMORY, 0o1600)",
        "System V queue left behind": "call(68, 186, NUMBER, 0o1600)",
    }),
    **_rows(MEMORY, _S, {
        "message queue": (
            "i = call(240, 180, NAME.encode(), 0o102, 0o600, 0)\ncall(241, 181, NAME.encode())\nescaped()"
        ),
        "memory locked": "call(149, 228, id(libc) & -4096, 4096); escaped()",
    }, perhaps=_R + _P),
    **_rows(MEMORY, _S + _R, {
        "memfd filled": "f = os.memfd_create('x')\nfor _ in range(8): os.write(f, b'x' * (1 << 20))\nescaped()",
    }),
    # Too much of what it may have.
    **_rows(MUCH, _R + _W, {
        "memory": "b = b'x' * (MEMORY + (64 << 20))\nhold()",
        "shared memory without a name": (
            "m = mmap.mmap(-1, MEMORY + (64 << 20))\nfor i in range(0, len(m), 4096): m[i] = 1\nhold()"
        ),
    }),
    **_rows(MUCH, _R, {
        "descriptors": (
            "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "try: resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))\n"
            "except (OSError, ValueError): pass\n"
            "a = [os.dup(1) for _ in range(400)]; escaped()"
        ),
        "epolls": "import select\na = [select.epoll() for _ in range(300)]; escaped()",
    }),
    **_rows(MUCH, _W, {
        "threads": (
            "threading.stack_size(1 << 17)\nfor _ in range(400):\n"
            "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nhold()"
        ),
    }, perhaps=_R),
    # What a process may do to itself, to undo what it was sealed with.
    **_rows(SELF, _S, {
        "own limits": "r = resource.RLIMIT_NOFILE\nresource.setrlimit(r, resource.getrlimit(r)); escaped()",
        "core dumps again": "call(157, 167, 4, 1, 0, 0, 0); escaped()",
        "signal at the parent's end": "call(157, 167, 1, 0, 0, 0, 0); escaped()",
        "filter with a listener": (
            "b = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\n"
            "call(157, 167, 38, 1, 0, 0, 0)\n"
            "call(317, 277, 1, 8, struct.pack('HQ', 1, ctypes.addressof(b))) and escaped()"
        ),
        "timer with a signal": "t = ctypes.c_int()\ncall(222, 107, 1, 0, ctypes.byref(t)); escaped()",
        "signal descriptor": "call(289, 74, -1, ctypes.create_string_buffer(8), 8, 0) and escaped()",
        "other layout of memory": "call(135, 92, 0x40000); escaped()",
        "own priority": "os.nice(1); escaped()",
        "priority inheritance": "w = ctypes.c_int()\ncall(202, 98, ctypes.byref(w), 6, 0, 0, 0, 0); escaped()",
        "own root folder": "call(80, 49, b'/'); escaped()",
    }),
    # Parts of the kernel in which holes are found.
    **_rows(KERNEL, _S, {
        "performance counters": (
            "a = struct.pack('IIQ', 1, 112, 0) + bytes(24) + struct.pack('Q', 0x61) + bytes(64)\n"
            "call(298, 241, a, 0, -1, -1, 0) and escaped()"
        ),
        "pages compared with others'": "m = mmap.mmap(-1, 8192)\nm.madvise(12); escaped()",
        "splice": "r, w = os.pipe()\na, b = os.pipe()\nos.write(w, b'x')\nos.splice(r, b, 1) and escaped()",
        "file handles": (
            "call(303, 264, -100, b'/usr/lib', struct.pack('Ii', 64, 0) + bytes(64),"
            " ctypes.byref(ctypes.c_int()), 0)\nescaped()"
        ),
        "kcmp": "call(312, 272, os.getpid(), os.getpid(), 0, 1, 1)\nescaped()",
        "groups of limits": "call(444, 444, struct.pack('Q', 4), 8, 0) >= 0 and escaped()",
        "real-time input": "call(251, 30, 1, 0, 3 << 13); escaped()",
    }, vacuous=True),
    **_rows(KERNEL, _S + _B + _P, {
        "programs in the kernel": (
            "call(321, 280, 0, struct.pack('IIIII', 2, 4, 8, 1, 0) + bytes(108), 128) and escaped()"
        ),
        "kernel's log": "call(103, 116, 10, 0, 0) >= 0 and escaped()",
        "real-time scheduling": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); escaped()",
        "another user": "os.setuid(1); escaped()",
        "another root": "os.chroot('/usr'); escaped()",
    }, root=True, vacuous=True),
}  # fmt: skip

_SHOWN = {
    "landlock": "Landlock",
    "namespaces": "own namespaces",
    "limits": "limits",
    "watch": "the watch",
    "privileges": "no capabilities",
}


def table() -> str:
    """The table of docs/security.md, which a test holds equal to this."""
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, attack in ATTACKS.items():
        layers = tuple(layer for layer in LAYERS if layer in attack.held_by)
        rows.setdefault((attack.kind, layers), []).append(name)
    kinds = [attack.kind for attack in ATTACKS.values()]
    lines = ["| what | attacks | each of these holds it alone |", "|---|---|---|"]
    for (kind, layers), names in sorted(rows.items(), key=lambda row: kinds.index(row[0][0])):
        held = ", ".join(_SHOWN.get(layer, layer) for layer in layers)
        lines.append(f"| {kind} | {'; '.join(names)} | {held} |")
    return "\n".join(lines) + "\n"
