#!/bin/bash
# A real `systemd --user` and a real journal for an ordinary user on a machine whose PID 1 need not be systemd. Needs
# root and dbus.
#
# usage: user_manager.sh WORK UID [HIDDEN:PATH]…
#   WORK    an existing folder that UID may enter; the manager gets WORK/home and WORK/run (a tmpfs, as a login's is)
#   UID     the user's number; it need not exist: a passwd entry is made in the namespace only
#   HIDDEN:PATH   as in exposed.sh
#
# Runs in the foreground; the process becomes the manager, so its pid leads into the namespaces:
#   nsenter -t PID -m -C setpriv --reuid UID --regid UID --clear-groups env -i HOME=… XDG_RUNTIME_DIR=… COMMAND
# All mounts are in a private namespace and vanish with it; journald dies with the manager.
set -eu
export HERE
HERE=$(dirname "$(readlink -f "$0")")

# shellcheck disable=SC2016  the inner shell expands them
exec unshare --mount --propagation private bash -c '
set -eu
work=$1 id=$2
shift 2
stage=/mnt
. "$HERE/exposed.sh"
expose "$stage" "$@"
{ cat /etc/passwd; echo "rlmdtest:x:$id:$id::$work/home:/bin/sh"; } >"$stage/passwd"
{ cat /etc/group; echo "rlmdtest:x:$id:"; } >"$stage/group"
mount --bind "$stage/passwd" /etc/passwd
mount --bind "$stage/group" /etc/group
mount -t tmpfs -o "mode=700,uid=$id,gid=$id" tmpfs "$work/run"
mkdir -p /run/systemd /run/log
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mount -t tmpfs -o mode=755 tmpfs /run/log
mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal  # without the first the manager refuses to start
setpriv --pdeathsig KILL /lib/systemd/systemd-journald &            # outside of the cgroup, which must have no process
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done

cg=/sys/fs/cgroup/unified
[ -d $cg ] || cg=/sys/fs/cgroup
cg=$cg/rlmd-test-$id
mkdir -p "$cg"
chown -R "$id:$id" "$cg"
echo $$ >"$cg/cgroup.procs"
exec unshare --cgroup bash -c '\''
set -eu
work=$1 id=$2
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec setpriv --reuid "$id" --regid "$id" --clear-groups env -i \
  HOME="$work/home" USER=rlmdtest PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 \
  XDG_RUNTIME_DIR="$work/run" DBUS_SESSION_BUS_ADDRESS="unix:path=$work/run/bus" \
  /lib/systemd/systemd --user --log-target=journal --log-level=info
'\'' user_manager "$work" "$id"
' user_manager "$@"
