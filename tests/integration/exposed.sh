#!/bin/bash
# Sourced inside a mount namespace of its own: covers what is closed to others, and shows again what is wanted of it.
#
# expose STAGE HIDDEN:PATH…
#   STAGE         a folder that is mounted over and not needed, such as /mnt
#   HIDDEN:PATH   PATH must be readable although its ancestor HIDDEN is closed to others
expose() {
  local stage=$1 number=0 pair hidden
  shift
  mount -t tmpfs tmpfs "$stage"
  for pair; do                                     # first keep hold of what is wanted, then cover what hides it
    number=$((number + 1))
    mkdir "$stage/$number"
    mount --bind "${pair#*:}" "$stage/$number"
  done
  for hidden in $(for pair; do echo "${pair%%:*}"; done | sort -u); do
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
  done
  number=0
  for pair; do
    number=$((number + 1))
    mkdir -p "${pair#*:}"
    mount --bind "$stage/$number" "${pair#*:}"
  done
}
