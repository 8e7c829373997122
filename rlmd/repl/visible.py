"""What a worker may see of the machine: the interpreter, its libraries and the system's, read-only (parent side)."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache

from rlmd.repl.packages import refuse_home, shared_libraries

_SYSTEM = (
    "/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf.d",
    "/usr/share/zoneinfo", "/dev/null", "/dev/urandom",
)  # fmt: skip


@cache
def interpreter() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


@cache
def readable_paths() -> tuple[str, ...]:
    """What a worker may read: the standard library, the interpreter's shared libraries, those of the system."""
    # Of the interpreter itself: by default a virtual environment's own folders would be among them.
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix,
            "installed_platbase": sys.base_exec_prefix}  # fmt: skip
    libraries = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    paths = [interpreter(), *map(os.path.realpath, libraries), *libraries]
    prefix = os.path.realpath(sys.base_prefix)
    refuse_home(prefix, "The interpreter's prefix")
    # In these stores libraries are packages of their own.
    paths += [store for store in ("/nix/store", "/gnu/store") if prefix.startswith(store)]
    paths += [] if prefix == "/usr" else shared_libraries(prefix)
    return tuple(dict.fromkeys(path for path in (*paths, *_SYSTEM) if os.path.exists(path)))


def bubblewrap_options(paths: Sequence[str]) -> list[str]:
    """What bubblewrap is told, so that its child sees these paths, in namespaces of its own, and nothing else."""
    # --unshare-user always: as root bubblewrap would do without. --as-pid-1: the worker's end is everybody's end.
    options = [
        "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "repl",
        "--size", str(1 << 20), "--tmpfs", "/",
    ]  # fmt: skip
    for path in paths:
        if os.path.islink(path) and os.path.dirname(path) == "/":  # /lib -> usr/lib
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--dev-bind" if path.startswith("/dev/") else "--ro-bind", path, path]
    # No --proc, no --dev, no /tmp: they are writable memory or windows, and nothing here needs them.
    return [*options, "--remount-ro", "/", "--chdir", "/"]
