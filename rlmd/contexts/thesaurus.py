"""Everyday words for technical things: what a person asks with, and what the text says instead.

A small built-in table, so that a question in plain words still finds its passage without a language model. General to
computing, not to one project. Each line reads ``word, word: term, term``: a question with a word on the left is also
searched for the terms on the right, at less weight.
"""

from __future__ import annotations

from functools import cache

_TABLE = """
abort, cancel: cancel, abort, terminate
accelerate, faster, speed up: fast, performance, optimize, accelerate, speed
accept, accepted: merge, accept, apply, mainline
access right, right, rights: permission, access, capability, privilege
account, accounting: account, accounting, statistics, charge
add, append, insert: add, insert, append, register, attach
alert, notify, tell, inform: notify, notification, event, signal, report, warn
allow, permit, let: allow, permit, enable, permission
amount, how much, how many, number: size, number, count, amount, limit
arbitrary, any: arbitrary, any, fine grain
arrange, order: order, sort, sequence, priority
ask, request: request, query, ask, ioctl
attach, plug, plugged, plug in: attach, connect, hotplug, plug, insert, probe
author, writer, programmer, developer: author, developer, maintainer, contributor, submitter
backport, backported: stable, backport
backup: backup, snapshot, dump, copy
bad, broken, faulty, defective: error, fault, corrupt, bad, broken, invalid, failure
ban, forbid, prohibit, disallow: deny, forbid, disallow, block, refuse, prevent
battery: battery, power, charge
began, begin, start, started, launch: start, begin, init, create, initialize, boot
behaviour, behave: behavior, behaviour, semantics
big, large, huge: large, big, huge
bigger, grow, enlarge, expand, extend: grow, resize, extend, expand, increase
blame, culprit, responsible: cause, responsible, bisect
boost, raise, increase: increase, raise, boost
boot, startup, start up, power on: boot, startup, init, initramfs
bottleneck: contention, bottleneck, latency
bug, defect, mistake, problem: bug, error, issue, regression, problem, fault
build, compile: build, compile, make, kbuild
buffer: buffer, cache, queue
busy: busy, load, utilization
cable, wire, wired, wiring: cable, line, wire, pin
call, invoke: call, invoke, callback
camera, webcam: camera, video, sensor, capture
card, adapter, board: card, adapter, board, controller, device
catch, detect, discover, notice: detect, trap, catch, find, probe
change, edit, modify, alter: change, modify, patch, update, edit
cheap, cheaper: overhead, cheap, cost, low
check, verify, validate, make sure: check, verify, validate, ensure, test, sanity
child: child, fork, descendant
choose, pick, select: select, choose, selection, policy
chunk, piece, part: chunk, block, segment, fragment, part
clean, clean up, cleanup, tidy: cleanup, clean, free, reclaim, flush
clock, time: time, clock, timer, timestamp
clone, copy, duplicate: copy, clone, duplicate, replicate
close, shut: close, shutdown, release
code, program, software: code, program, software, driver
combine, join, merge, glue: merge, combine, join, aggregate, concatenate
communicate, talk, speak: communicate, message, protocol, send
compare, difference, differ: difference, compare, versus, unlike
complain, complaint: warn, warning, error, complain
computer, machine, box: system, machine, host, computer
connect, link: connect, link, attach, connection
contain, container: container, namespace, cgroup, contain
contribution, submission: patch, submission, contribution
control, govern, steer: control, manage, govern, policy
convert, translate: convert, translate, transform, mapping
cool, cooling, heat, hot, overheat, temperature: thermal, temperature, cooling, fan, heat
core, processor, processors: cpu, core, processor
corrupt, corruption, damage: corrupt, corruption, damage, integrity
count, counting: count, counter, statistics
crash, crashed, die, dies: crash, panic, oops, die, fault, dump
create, make, produce: create, make, allocate, generate
credentials, password, secret: key, secret, passphrase, password, credential, token
daemon, service, server: daemon, service, server, process
dangerous, risky, unsafe: unsafe, dangerous, risk, warning
data, content, contents: data, content
deadlock, stuck, hang, hangs, freeze, frozen, unresponsive: hang, lockup, deadlock, stall, hung, freeze
deadline, late, timeout, too long: timeout, deadline, expire, latency
debug, troubleshoot, diagnose, investigate: debug, trace, diagnose, debugging
decide, decision: decide, policy, choose, determine
decrease, reduce, lower, shrink: reduce, decrease, lower, shrink, minimize
default, out of the box: default
delay, lag, wait: delay, latency, wait, sleep
delete, erase, remove, get rid of, drop: remove, delete, erase, free, unregister, destroy, drop
deprecated, obsolete, old, outdated: deprecated, obsolete, legacy, old, removed
describe, explain, mean, meaning: describe, description, define, definition, mean
device, gadget, hardware: device, hardware, peripheral
directory, folder: directory, folder, path
disable, switch off, turn off, deactivate: disable, off, deactivate, mask
discard, throw away, lose, lost: discard, drop, lost, loss, trim
disconnect, unplug, unplugged, pulled out: disconnect, remove, detach, unplug, removal
disk, drive, hard drive, hard disk, storage: disk, storage, block device, drive, volume
display, screen, monitor: display, screen, framebuffer, monitor, console
distribute, spread, share: distribute, balance, spread, share, sharing
divide, split: split, divide, partition
documentation, manual, docs: documentation, document, doc
earlier, previous, before: previous, earlier, old
edge: edge, boundary, border
effect, influence, impact: effect, affect, impact, influence
empty, blank: empty, blank, zero
enable, activate, switch on, turn on: enable, activate, on
encrypt, encryption, scramble, encrypted: encrypt, crypt, cipher, encryption, crypto
endless, infinite, forever: infinite, forever, unlimited, loop
energy, electricity, watt: power, energy, consumption
enough, sufficient: enough, sufficient, minimum
equal, same, identical: same, equal, identical
error, failure, fail: error, failure, fail, fault
event, happening: event, notification
evict, push out: reclaim, evict, eviction, swap
exchange, swap: swap, exchange
exclusive, alone: exclusive, lock, alone
execute, run: run, execute, exec
exist, exists, available, present: exist, available, present, support
expensive, costly: expensive, cost, overhead
export, expose: export, expose, expose to userspace
external, outside, out of tree: external, out of tree, outside
fail, fallback: fallback, fail, failover
fair, fairness: fair, fairness, cfs, share, weight
fake, dummy, mock, pretend, simulate, simulated: fake, dummy, simulate, emulate, virtual, mock
fan, blades: fan, cooling, pwm
file: file, inode
file system, filesystem: filesystem, file system, fs, mount
filter, sift: filter, match, rule
find, locate, look up, lookup, search: find, lookup, search, locate, locate
finish, end, complete, done: complete, finish, end, completion
firmware, bios: firmware, bios, acpi, uefi, efi
fix, mend, repair, correct: fix, repair, correct, patch, recover
flush, write out, save to disk: flush, sync, writeback, fsync
follow: follow, track, comply
format, layout: format, layout, structure
freeze: freeze, suspend, hang
full, fills up, run out, runs out, exhausted: full, exhaust, shortage, pressure, oom, out of memory
function, routine, helper: function, helper, api, routine, call
give back, release, let go: release, free, put, unlock, reclaim
glow, blink, light, lamp: led, light, blink, brightness, lamp
gpu, graphics, graphics card, video card: gpu, graphics, drm, display
group, bunch: group, cgroup, set
guarantee, promise, ensure, promised: guarantee, ensure, commit, reserve, promise
guest, virtual machine, vm: guest, virtual machine, vm, kvm, hypervisor
hacker, attacker, attack, exploit, malicious: attack, attacker, exploit, vulnerability, malicious, security
handle, deal with, cope: handle, handler, process
harm, hurt, hurts: degrade, disrupt, performance, damage, impact
hibernate, suspend to disk: hibernation, suspend, swsusp
hide, hidden, conceal: hide, hidden, restrict, mask
hold, keep, retain: hold, keep, retain, pin, preserve
hyperthread, hyperthreading, hardware thread, thread of a: smt, sibling, hyperthread
idea, reason, why, motivation: reason, rationale, because, motivation, why
identify, recognise, recognize: identify, id, identifier, match
idle, do nothing, doing nothing: idle, sleep
ignore, skip: ignore, skip, bypass
image, picture, photo: image, frame, picture
important, critical, vital: important, critical, priority
indent, indentation, indenting: indentation, tab, tabs, indent
information, info, details: information, info, statistics, status
input, keyboard, key press, keypress: input, keyboard, key
inspect, look at, examine, see, view, observe, watch: monitor, inspect, show, display, trace, observe, view
install, setup, set up, configure, configuration: configure, install, setup, configuration, config, set
interface, api: interface, api
interrupt: interrupt, irq
isolate, isolation, separate, keep free: isolate, isolation, separate, exclude, nohz_full
keep from, prevent, avoid, stop: prevent, avoid, disable, stop, block
key combination, shortcut, hotkey: key, sysrq, combo
kill, shot, shoot, killed, terminate: kill, oom, terminate, signal
language: language, locale
laptop, notebook: laptop, notebook, battery
layer, level: layer, level
leak: leak, kmemleak
legal, law, license, licence, copyright: license, copyright, legal, gpl
limit, cap, restrict, at most, maximum, max: limit, maximum, max, restrict, threshold, cap
line: line
list, enumerate: list, enumerate
load, module, plugin: load, module, modprobe
lock, locked, mutual exclusion: lock, mutex, spinlock, locking
log, logging, log message, messages: log, message, printk, dmesg, syslog
long, length: length, long, lines, size
loud, volume, sound, audio, music, speaker: sound, audio, alsa, volume, mixer
maintain, maintainer, tree owner, owner: maintainer, owner, subsystem
manufacturer, vendor, maker: vendor, manufacturer
measure, gauge: measure, monitor, counter, sample, sensor
memory, ram: memory, ram, page, mm
message, mail, email: message, mail, email, mailing list
microphone, record, recording: capture, record, recording, input
minimum, at least: minimum, at least, min
missing, absent: missing, absent, lack, not present
mobile, phone, modem: modem, mobile, gsm, wwan
monitor, supervise, keep an eye: monitor, watchdog, track
mouse, touchpad, pointer: mouse, touchpad, pointer, input
move, relocate, transfer: move, migrate, migration, transfer, relocate
multiple, several, many: multiple, several, many
name, call: name, naming
network card, nic, network adapter: nic, ethernet, netdev, network interface, network device
newcomer, beginner, novice, new to: newcomer, beginner, introduction, howto
nested, within: nested, nesting, hierarchy
number of processors: nr_cpus, cpus
old hardware: legacy
open: open
operating system, os: kernel, linux, system
optimise, optimize, tune, tuning: tune, optimize, performance, tuning
option, setting, switch, knob: option, parameter, knob, setting, sysctl
original, first: original, first, initial
overload, overloaded, too much: overload, pressure, congestion, throttle
own, belong: own, owner, ownership
packet, packets: packet, skb, frame
page: page
parallel, concurrent, concurrently, at the same time, simultaneously: concurrent, parallel, simultaneously, smp
parent: parent, ancestor
partition, partitions: partition
pass, hand over: pass, transfer, hand
pause, halt: suspend, pause, stop, halt, freeze
percentage, percent, share: percent, ratio, percentage
performance, slow, slower, slowdown: performance, slow, latency, overhead, throttle
persist, survive, permanent, remember: persistent, preserve, survive, permanent, nonvolatile
physical: physical
pin, pins: pin, gpio, pinctrl
poll, polling: poll, polling, interrupt
portion: fraction, part, ratio
power cut, power failure, power loss, outage: power failure, power loss, crash
power saving, save power, save energy, sleep: suspend, power management, idle, sleep, runtime pm
predict, guess, estimate: estimate, predict, heuristic
priority, precedence, important: priority, nice, weight, precedence
private: private, confidential
process, program, application, app: process, task, application, program, thread
profile, profiling: profile, perf, sampling
proof, prove: verify, proof
protect, shield, guard, safe, safely: protect, protection, safe, guard, secure
query: query, get, read
queue, line up: queue, scheduler
quick, fast, quickly: fast, quick, quickly, speed
random, randomness, dice: random, entropy, rng, randomize
rate, how often, frequency: rate, frequency, interval, period
read: read
readonly, read only: read only, readonly, ro
real time, realtime: realtime, real time, rt, preempt
rebuild, rebuilt: rebuild, resync, recompile
receive, arrive, incoming: receive, rx, incoming
reclaim: reclaim, free
recover, restore, undo, revert, roll back: recover, restore, revert, rollback, recovery
redundant, mirror, mirrored: raid, mirror, redundancy, replica
register: register
reject, refuse, turn down: reject, refuse, deny, error
remote, far away: remote, network
remount: remount, mount
report, complain: report
reserve, set aside: reserve, reserved, allocate
reset, restart, reboot: reset, restart, reboot
resource, resources: resource
rest, remaining: remaining, rest
return, answer, reply, respond: return, reply, response, answer
reuse, recycle: reuse, recycle
review, reviewer, inspect: review, reviewer
revoke, take away: revoke, remove, invalidate
robust, reliable: reliable, robust, reliability
router, gateway: router, gateway, forwarding
rule, rules, guideline: rule, rules, guideline, policy, requirement
sandbox, jail, confine: sandbox, seccomp, landlock, confine, restrict
save, store, keep: store, save, write
scan: scan
schedule, scheduling: schedule, scheduler
secure, security: security, secure
send, transmit, outgoing: send, transmit, tx
sensor: sensor, hwmon, iio
serial, console: serial, uart, tty, console
shape, limit bandwidth, bandwidth: bandwidth, rate, qdisc, shaping, throughput
shutdown, shut down, power off, turn off the machine: shutdown, poweroff, power off, halt
sign, signature, signed: sign, signature, signed
signal: signal
silence, mute, quiet: quiet, mute, suppress, silence
size: size
slow down, hold back, brake: throttle, limit, slow
small, tiny, little: small, tiny, minimal
snapshot: snapshot, checkpoint
sort: sort, type, kind
source: source
space, room: space, free space, size
special: special
speed: speed, rate, frequency, throughput
spy, eavesdrop, snoop: snoop, sniff, side channel, leak
stack: stack
stale, out of date: stale, invalid, expired
standard: standard, specification
state, status: state, status
statistics, stats, numbers: statistics, stats, counter
stick, thumb drive, pen drive, usb stick, memory stick: usb, storage, flash
stop, halt, quit: stop, disable, terminate, end
straddle, straddles, cross, crosses, span, spans: cross, span, boundary
strict, stricter: strict
structure, struct: structure, struct
style: style, convention
submit, send in, contribute: submit, submitting, send, post, patch
suspicious, weird, strange, odd: unexpected, anomaly, suspicious, odd
synchronise, synchronize, sync: sync, synchronize, barrier
take over: takeover, failover
tape: tape
task, job, work: task, work, job, workqueue
terminal: tty, terminal, console
test, try, tests: test, kselftest, kunit, selftest
thread: thread, task, sibling
throughput: throughput, bandwidth, performance
tick, ticks: tick, timer, jiffies, nohz
tool, utility: tool, utility, script
touch: touch, touchscreen
trace, track, follow: trace, track, ftrace, tracing
trick, workaround, work around: workaround, quirk
trust, trusted: trust, trusted
tunnel, tunnelling, tunneling: tunnel, encapsulation
type, kind: type, kind
understand, learn: understand, learn, introduction
undo: undo, revert
uneven, imbalance: imbalance, balance, uneven
unit: unit
unused, not used, spare: unused, free, idle, spare
update, upgrade: update, upgrade
upstream, mainline: upstream, mainline, merge
use up, consume, usage: usage, consume, consumption, utilization
user, person, people: user
user program, user space, userspace, user mode: userspace, user space, application
value: value
version: version, release
very important: critical
wake, wake up, resume: wakeup, wake, resume
warn, warning: warn, warning
watch: watch, monitor, notify
wireless, wifi, wi-fi: wireless, wifi, wlan, 80211, cfg80211
withdraw: revoke, withdraw
word: word
wrong, incorrect: invalid, wrong, incorrect, error
zero: zero
"""


@cache
def _entries() -> dict[tuple[str, ...], tuple[str, ...]]:
    entries: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line in _TABLE.strip().splitlines():
        words, terms = line.split(":")
        listed = tuple(t.strip() for t in terms.split(","))
        for word in words.split(","):
            key = tuple(stem(w) for w in word.split())
            entries[key] = tuple(dict.fromkeys((*entries.get(key, ()), *listed)))
    return entries


def related(words: tuple[str, ...]) -> tuple[str, ...]:
    """Terms that a text may use for one word, or for some words in a row."""
    return _entries().get(tuple(map(stem, words)), ())


_ENDINGS = ("ations", "ation", "ingly", "ing", "edly", "ed", "ies", "es", "s", "ly", "er", "ers")


def stem(word: str) -> str:
    """A rough stem, the same for the forms of a word that questions use; only for the look-up in this table."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.rstrip("ey") if len(word) > 3 else word
