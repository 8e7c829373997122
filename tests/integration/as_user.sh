#!/bin/bash
# A command as an ordinary user, with what it needs of closed folders shown to it. Needs root.
#
# usage: as_user.sh UID [HIDDEN:PATH]… -- COMMAND…
#   UID     the user's number; it need not exist
#   HIDDEN:PATH   as in exposed.sh
set -eu
export HERE
HERE=$(dirname "$(readlink -f "$0")")
# shellcheck disable=SC2016  the inner shell expands them
exec unshare --mount --propagation private bash -c '
set -eu
. "$HERE/exposed.sh"
id=$1
shift
pairs=()
while [ "$1" != -- ]; do
  pairs+=("$1")
  shift
done
shift
expose /mnt "${pairs[@]}"
exec setpriv --reuid "$id" --regid "$id" --clear-groups "$@"
' as_user "$@"
