"""The words of the thesaurus: data alone, general to computing and everyday English, in the order of the alphabet."""

#: ``word, words in a row: term, term``: a question with what stands left is also searched for what stands right.
WAYS = """
32-bit programs, thirty-two bit: compat, 32-bit, ia32
abort, cancel: cancel, abort, terminate
accelerate, faster, speed up: fast, performance, optimize, accelerate, speed
accept, accepted: merge, accept, apply, mainline
access right, right, rights: permission, access, capability, privilege
account, accounting: account, accounting, statistics, charge
add, append, insert: add, insert, append, register, attach
admin rights, root rights, all powerful: root, capability, cap_sys_admin, privilege
agree, agreement, consensus: agree, consistent, negotiate
aircraft mode, flight mode, airplane mode: rfkill, radio
airport, country rules, allowed channels: regulatory, channel, wireless
alarm, alarm clock: alarm, timer, wakeup, rtc
alert, notify, tell, inform: notify, notification, event, signal, report, warn
allow, permit, let: allow, permit, enable, permission
allowed to, entitled: right, permission, license, may
amount, how much, how many, number: size, number, count, amount, limit
approve, approved, blessed: signed, trusted, authorized, verify, enforce
arbitrary, any: arbitrary, any, fine grain
archive: file, copy, tar, archive
arrange, order: order, sort, sequence, priority
ask, request: request, query, ask, ioctl
at least, no less than: minimum, guarantee, min, reserve
at most, no more than, not more than: limit, maximum, quota, cap, max
attach a debugger: ptrace, yama, gdb
attach, plug, plugged, plug in: attach, connect, hotplug, plug, insert, probe
author, writer, programmer, developer: author, developer, maintainer, contributor, submitter
average: average, mean, load
awake, stays on: resume, wakeup, on, active
backport, backported: stable, backport
backup: backup, snapshot, dump, copy
backwards compatible, old programs, old binaries: compatibility, compat, legacy, abi
bad blocks, bad sector, bad memory, rotten: bad block, badblocks, hwpoison, memory failure, offline
bad, broken, faulty, defective: error, fault, corrupt, bad, broken, invalid, failure
ban, forbid, prohibit, disallow: deny, forbid, disallow, block, refuse, prevent
bare metal: hardware, host, physical
battery: battery, power, charge
began, begin, start, started, launch: start, begin, init, create, initialize, boot
behaviour, behave: behavior, behaviour, semantics
big, large, huge: large, big, huge
bigger, grow, enlarge, expand, extend: grow, resize, extend, expand, increase
bits, flags: bit, flag, bitmap, mask
blame, culprit, responsible: cause, responsible, bisect
blank the screen, screen goes dark, goes black: blank, dpms, backlight, console
blind, visually impaired, deaf, disabled people, handicapped: accessibility, speech, braille, speakup
bookkeeping, administrative: metadata, journal, accounting, inode
boost, raise, increase: increase, raise, boost
boot, startup, start up, power on: boot, startup, init, initramfs
boss, chief, in charge: maintainer, manager, owner
both at once, same time, simultaneous: concurrent, race, parallel, simultaneous, lock
bottleneck: contention, bottleneck, latency
bottom, underneath, beneath: lower, underlying
boundaries, beyond the end, overrun, past the end: out of bounds, overflow, bounds, overrun
break on purpose, provoke, make fail: fault injection, inject, fail, trigger
bring online, put into service: online, enable, add
broadcast, everyone, everybody: broadcast, multicast, all
browser, web browser: sandbox, untrusted, process
budget: budget, limit, power, allocate, allowance
buffer: buffer, cache, queue
bug, defect, mistake, problem: bug, error, issue, regression, problem, fault
build, compile: build, compile, make, kbuild
burst, bursts, spike, spikes: burst, peak, transient
busy: busy, load, utilization
by itself, on its own, in isolation: isolated, isolation, unit, standalone
bypass, go around, skip the kernel: bypass, direct, offload, af_xdp
byte order, big end: endian, endianness, byteswap
cable, cables, wire: link, slave, port, interface, connection
cable, wire, wired, wiring: cable, line, wire, pin
calendar, year 2038, leap second, summer time: time, time64, y2038, leap second, timekeeping
call, invoke: call, invoke, callback
camera, webcam: camera, video, sensor, capture
car, vehicle, automobile, truck: can, can bus, automotive, j1939
card, adapter, board: card, adapter, board, controller, device
case, chassis, enclosure: enclosure, chassis, led, case
catch, detect, discover, notice: detect, trap, catch, find, probe
ceiling, upper bound, quota: limit, quota, max, maximum
certify, vouch, swear: certify, certificate, signed-off-by, sign
change, edit, modify, alter: change, modify, patch, update, edit
charger, charging, recharge, plugged into the wall, mains: charge, charger, battery, ac, power supply
chatty, verbose, talkative: debug, verbose, message, log
cheap lock: spinlock, rcu, seqlock, fast path
cheap, cheaper: overhead, cheap, cost, low
check, verify, validate, make sure: check, verify, validate, ensure, test, sanity
checker, detector: sanitizer, detector, checker, detect
child: child, fork, descendant
choose, pick, select: select, choose, selection, policy
chunk, piece, part: chunk, block, segment, fragment, part
clean, clean up, cleanup, tidy: cleanup, clean, free, reclaim, flush
clock speed, clock rate: frequency, cpufreq
clock, time: time, clock, timer, timestamp
clone, copy, duplicate: copy, clone, duplicate, replicate
close, shut: close, shutdown, release
closed source, closed-source, not free, non-free: proprietary, gpl
coarse, fine, granularity: granularity, resolution, precision
code, program, software: code, program, software, driver
combine, join, merge, glue: merge, combine, join, aggregate, concatenate
communicate, talk, speak: communicate, message, protocol, send
compare, difference, differ: difference, compare, versus, unlike
complain, complains, grumble: warn, warning, report, message
complain, complaint: warn, warning, error, complain
computer, machine, box: system, machine, host, computer
congested, jam, traffic jam: congestion, queue, backlog, bufferbloat
connect, link: connect, link, attach, connection
contain, container: container, namespace, cgroup, contain
contents, content: data
contribution, submission: patch, submission, contribution
control, govern, steer: control, manage, govern, policy
convert, translate: convert, translate, transform, mapping
cool, cooling, heat, hot, overheat, temperature: thermal, temperature, cooling, fan, heat
core, processor, processors: cpu, core, processor
corrupt, corruption, damage: corrupt, corruption, damage, integrity
count how often, how many times, how often: counter, count, statistics, histogram, frequency
count, counting: count, counter, statistics
counter wraps, wraps around, wraparound: overflow, wrap, saturate, refcount
crackle, crackling, dropouts, clicks: underrun, xrun, buffer, latency
crash on purpose, force a crash: panic, crash, sysrq, trigger
crash, crashed, die, dies: crash, panic, oops, die, fault, dump
create, make, produce: create, make, allocate, generate
credentials, password, secret: key, secret, passphrase, password, credential, token
culprit, guilty, to blame: bisect, cause, commit, regression
cut down, strip down, narrow: restrict, reduce, limit, filter
cut off, truncated, chopped: truncate, truncated
daemon, service, server: daemon, service, server, process
dangerous, risky, unsafe: unsafe, dangerous, risk, warning
data, content, contents: data, content
database, service, web server: workload, server, application, process
deadline, late, timeout, too long: timeout, deadline, expire, latency
deadlock, stuck, hang, hangs, freeze, frozen, unresponsive: hang, lockup, deadlock, stall, hung, freeze
debug, troubleshoot, diagnose, investigate: debug, trace, diagnose, debugging
decide, decision: decide, policy, choose, determine
decrease, reduce, lower, shrink: reduce, decrease, lower, shrink, minimize
deep sleep, deeper sleep: c-state, idle state, cpuidle, suspend
default, out of the box: default
defend, defense, defence, withstand, guard: protect, prevent, mitigate, mitigation, harden
delay, lag, wait: delay, latency, wait, sleep
delete, erase, remove, get rid of, drop: remove, delete, erase, free, unregister, destroy, drop
deliberately, on purpose, intentionally, artificial: inject, injection, force, fault injection
deprecated, obsolete, old, outdated: deprecated, obsolete, legacy, old, removed
describe, explain, mean, meaning: describe, description, define, definition, mean
device, gadget, hardware: device, hardware, peripheral
dictionary, mapping, lookup table: map, hash, table, xarray, idr
dim, dimmer, brighter, glare: brightness, backlight
directory, folder: directory, folder, path
disable, switch off, turn off, deactivate: disable, off, deactivate, mask
disagree, disagreement, conflict, clash, collide: conflict, inconsistent, mismatch, collision, race
discard, throw away, lose, lost: discard, drop, lost, loss, trim
disconnect, unplug, unplugged, pulled out: disconnect, remove, detach, unplug, removal
disk, drive, hard drive, hard disk, storage: disk, storage, block device, drive, volume
display, screen, monitor: display, screen, framebuffer, monitor, console
distribute, spread, share: distribute, balance, spread, share, sharing
distribution, spread of values: histogram, distribution
divide, split: split, divide, partition
documentation, manual, docs: documentation, document, doc
done by the card, let the card, done in hardware: offload, hardware, tso, checksum offload
drift, drifts, clock runs fast, clock runs slow: drift, clocksource, adjtime, ntp, frequency
each waits for the other, circular: deadlock, circular, dependency, lockdep
earlier, previous, before: previous, earlier, old
eavesdrop, listen in, overhear, sniff, wiretap: monitor, capture, sniff, snoop, trace, record
edge: edge, boundary, border
effect, influence, impact: effect, affect, impact, influence
empty, blank: empty, blank, zero
enable, activate, switch on, turn on: enable, activate, on
encrypt, encryption, scramble, encrypted: encrypt, crypt, cipher, encryption, crypto
endless, infinite, forever: infinite, forever, unlimited, loop
energy, electricity, watt: power, energy, consumption
enough, sufficient: enough, sufficient, minimum
entry point, entry points, kernel call, kernel calls: system call, syscall, syscalls
equal, same, identical: same, equal, identical
erase, erased, deleted: remove, delete, unlink, whiteout
error, failure, fail: error, failure, fail, fault
etiquette, manners, rude, polite, bully, harassment: code of conduct, conduct, behavior, respectful
event, happening: event, notification
evict, push out: reclaim, evict, eviction, swap
exact, accurate, precise: precision, accuracy, exact, resolution
exchange, swap: swap, exchange
exclusive, alone: exclusive, lock, alone
execute, run: run, execute, exec
execution path, execution paths, branches: speculation, branch, speculative, prediction
exist, exists, available, present: exist, available, present, support
expensive, costly: expensive, cost, overhead
export, expose: export, expose, expose to userspace
external, outside, out of tree: external, out of tree, outside
fail, fallback: fallback, fail, failover
fair, fairness: fair, fairness, cfs, share, weight
fake, dummy, mock, pretend, simulate, simulated: fake, dummy, simulate, emulate, virtual, mock
falls asleep, asleep, nap, doze, slumber: suspend, autosuspend, idle, sleep, hibernate
fan, blades: fan, cooling, pwm
fastest, quickest, top speed: performance, maximum, highest, turbo
fewer copies, without copying, no copy: zero copy, zerocopy, msg_zerocopy, splice, mmap
fifth, quarter, half, third, portion: percent, quota, fraction, share, limit
file system, filesystem: filesystem, file system, fs, mount
file: file, inode
film, movie, clip, watch a video: video, playback, multimedia, streaming
filter, sift: filter, match, rule
find, locate, look up, lookup, search: find, lookup, search, locate, locate
fingerprint of a file, digest: hash, digest, fsverity, ima
finish, end, complete, done: complete, finish, end, completion
firmware, bios: firmware, bios, acpi, uefi, efi
first-level, first level: l1, l1d
fix, mend, repair, correct: fix, repair, correct, patch, recover
floating point, decimals, fractions: fpu, floating point, simd
flood, flooding, swamped, bombarded: flood, syn, attack, denial of service, backlog, overflow
floor, lower bound: minimum, min, low
flush, write out, save to disk: flush, sync, writeback, fsync
follow: follow, track, comply
foreign language, accents, umlauts: unicode, utf-8, charset, locale, nls
format, layout: format, layout, structure
freeze: freeze, suspend, hang
full, fills up, run out, runs out, exhausted: full, exhaust, shortage, pressure, oom, out of memory
function, routine, helper: function, helper, api, routine, call
gadget, gizmo, appliance: device, peripheral
garbage, rubbish, junk: corrupt, garbage, stale, invalid
give back, release, let go: release, free, put, unlock, reclaim
given back, handed back, returned: free, freed, release, released
glow, blink, light, lamp: led, light, blink, brightness, lamp
glued, tied, bound, nailed: affinity, pinned, bind, bound
gpu, graphics, graphics card, video card: gpu, graphics, drm, display
group, bunch: group, cgroup, set
grow on demand, grows: grow, dynamic, expand, resize
guarantee, promise, ensure, promised: guarantee, ensure, commit, reserve, promise
guaranteed, assured: guarantee, reserve, reservation, bandwidth, deadline
guessed, guess, guessing: speculative, speculation, predict, estimate, heuristic
guest, virtual machine, vm: guest, virtual machine, vm, kvm, hypervisor
hacker, attacker, attack, exploit, malicious: attack, attacker, exploit, vulnerability, malicious, security
hand a device, give a device, pass through, passthrough: vfio, passthrough, assign, assignment, iommu
hand over, pass on, submit: submit, pass, transfer, contribute
handle, deal with, cope: handle, handler, process
harm, hurt, hurts: degrade, disrupt, performance, damage, impact
headphones, loudspeaker, headset, earphone: headphone, speaker, jack, output, audio
heat, throttles, slows itself: thermal, throttling, cooling, trip point
helper, volunteer, tester: tester, contributor, reviewer
hibernate, suspend to disk: hibernation, suspend, swsusp
hide, hidden, conceal: hide, hidden, restrict, mask
hold, keep, retain: hold, keep, retain, pin, preserve
holding too long: contention, hold time, latency
hole in a file, sparse, gaps: sparse, hole, fallocate, extent
hole, holes, loophole: vulnerability, bug, hole, gap
hook, intercept, tap: probe, hook, kprobe, uprobe, trace, intercept, callback
housekeeping, chores, background work: housekeeping, kthread, workqueue, background, daemon
how far, progress: progress, completed, percentage, status
how long each, took, takes how long, elapsed, duration: duration, latency, time, elapsed
how many users, still in use, in use: reference count, refcount, kref, busy, in use
hyperthread, hyperthreading, hardware thread, thread of a: smt, sibling, hyperthread
idea, reason, why, motivation: reason, rationale, because, motivation, why
identify, recognise, recognize: identify, id, identifier, match
idle, do nothing, doing nothing: idle, sleep
ignore, skip: ignore, skip, bypass
image, picture, photo: image, frame, picture
immediately, at once, right away, instantly: immediate, synchronous, now
important, critical, vital: important, critical, priority
in private, confidentially, quietly, kept quiet: embargo, private, confidential, disclosure, security
in the background, behind the scenes: asynchronous, background, workqueue, thread
indent, indentation, indenting: indentation, tab, tabs, indent
information, info, details: information, info, statistics, status
input, keyboard, key press, keypress: input, keyboard, key
inside a box, jailed, walled off, fenced off: container, namespace, sandbox, isolation, cgroup
inside another packet, wrapped: encapsulation, tunnel, vxlan, gre
inspect, look at, examine, see, view, observe, watch: monitor, inspect, show, display, trace, observe, view
install, setup, set up, configure, configuration: configure, install, setup, configuration, config, set
interface, api: interface, api
interrupt: interrupt, irq
intruder, intruders, burglar, bad guys, villain, adversary: attacker, malicious, adversary, attack
isolate, isolation, separate, keep free: isolate, isolation, separate, exclude, nohz_full
joystick, game pad, gamepad, controller pad: joystick, gamepad, input, force feedback
keep from, prevent, avoid, stop: prevent, avoid, disable, stop, block
key combination, shortcut, hotkey: key, sysrq, combo
key ring, key store, wallet: keyring, key, trusted key, encrypted key
kill, shot, shoot, killed, terminate: kill, oom, terminate, signal
kiosk, visitor, visitors, stranger, strangers: untrusted, authorize, authorized, lockdown
knob, dial, lever: tunable, sysctl, parameter, knob
lamp, lights, bulb, blinking: led, leds, light, trigger, brightness, indicator
language: language, locale
laptop, notebook: laptop, notebook, battery
last lines, last words, dying words, final messages, last messages: oops, panic, dump, log, crash, pstore, console
last month, used to work, worked before, no longer works, stopped working: regression, bisect
layer, level: layer, level
leak addresses, pointers printed: kptr_restrict, hashed, pointer, %p
leak: leak, kmemleak
leaks secrets, leak secrets, secrets leak: vulnerability, side channel, vulnerable, leak, disclosure
learn, find out: information, determine, reveal, leak
least privilege, minimal rights: capability, privilege, no_new_privs, drop
legal, law, license, licence, copyright: license, copyright, legal, gpl
letter, character: flag, character
letters, typeface, glyph, font size: font, console, character
lid: lid, laptop, acpi, suspend
limit, cap, restrict, at most, maximum, max: limit, maximum, max, restrict, threshold, cap
line: line
list, enumerate: list, enumerate
lives only in, lives in memory, in-memory: tmpfs, ramfs, memory, volatile
load, module, plugin: load, module, modprobe
lock, locked, mutual exclusion: lock, mutex, spinlock, locking
log, logging, log message, messages: log, message, printk, dmesg, syslog
long lived, long-lived, long term: stable, longterm, lts
long, length: length, long, lines, size
lossy, loses packets, dropped, loss: drop, loss, retransmit, discard
lost, orphaned: leak, orphan, unreferenced, lost
loud, volume, sound, audio, music, speaker: sound, audio, alsa, volume, mixer
loudness, louder, quieter: volume, gain, mixer, control
magic number, magic: magic, signature
mail program, mailer, email program: email client, mailer, mail client, email
maintain, maintainer, tree owner, owner: maintainer, owner, subsystem
makes, build, compile: build, make, compile
mangled, mangle, garbled: mangle, corrupt, wrap, damaged, whitespace
manufacturer, vendor, maker: vendor, manufacturer
many cards as one, several links: bonding, team, aggregation, multipath
many paths, several paths, alternative routes: multipath, mptcp, path selector, ecmp
measure, gauge: measure, monitor, counter, sample, sensor
memory, ram: memory, ram, page, mm
message, mail, email: message, mail, email, mailing list
microphone, record, recording: capture, record, recording, input
minimum, at least: minimum, at least, min
misbehave, misbehaves, naughty, buggy: quirk, broken, workaround, bug, error
missing pieces, missing parts: missing, fault, page fault, postcopy, demand
missing, absent: missing, absent, lack, not present
mobile, phone, modem: modem, mobile, gsm, wwan
monitor, supervise, keep an eye: monitor, watchdog, track
mouse, touchpad, pointer: mouse, touchpad, pointer, input
move, relocate, transfer: move, migrate, migration, transfer, relocate
moved while running, moving a running, live moved: live migration, migration, migrate, migrated
multiple, several, many: multiple, several, many
name, call: name, naming
narrow down, pin down, track down: bisect, isolate, locate, identify, find
nearly equal, alike, identical, same contents: identical, duplicate, same, merge, dedup, deduplication
neighbours, neighbors: neighbour, arp, adjacent, neighbor
nested, within: nested, nesting, hierarchy
network card, nic, network adapter: nic, ethernet, netdev, network interface, network device
never gives back, not given back, forgotten: leak, unreferenced, orphan
newcomer, beginner, novice, new to: newcomer, beginner, introduction, howto
newcomer, newbie, rookie, first time: beginner, howto, introduction, newcomer
nine-pin, nine pin, old port: serial, rs-232, uart, port
no longer responds, unresponsive, not responding, does not answer: hang, watchdog, lockup, timeout, hung
no screen, screenless, without a screen, headless, no monitor, without a monitor: console, serial, headless, netconsole
not recognised, not found, unknown device: new_id, device id, probe, detect
noticed, notice, spotted: detected, detect
number of processors: nr_cpus, cpus
old copy, outdated copy, outdated: stale, coherency, invalidate, revalidate
old hand-written rule, promise to users, never break: abi, stable, regression, backwards compatible
old hardware: legacy
one after another, one by one: serialize, sequential, ordered, order
one core, single core: one cpu, single cpu, cpu
open: open
operating system, os: kernel, linux, system
optimise, optimize, tune, tuning: tune, optimize, performance, tuning
option, setting, switch, knob: option, parameter, knob, setting, sysctl
order of locking, locking order: lock ordering, lockdep, nesting
ordinary program, running program, binary: user space, userspace, process, executable
original, first: original, first, initial
overload, overloaded, too much: overload, pressure, congestion, throttle
own key, my own key: key, keyring, signing, certificate
own view, separate view: namespace, view, private
own, belong: own, owner, ownership
packet, packets: packet, skb, frame
page: page
parallel, concurrent, concurrently, at the same time, simultaneously: concurrent, parallel, simultaneously, smp
parent: parent, ancestor
partition, partitions: partition
pass, hand over: pass, transfer, hand
passphrase, pass phrase, pin code: passphrase, key, keyring
pause, halt: suspend, pause, stop, halt, freeze
pen, stylus: stylus, pen, tablet
percentage, percent, share: percent, ratio, percentage
performance, slow, slower, slowdown: performance, slow, latency, overhead, throttle
persist, survive, permanent, remember: persistent, preserve, survive, permanent, nonvolatile
phone book, directory service: dns, lookup, resolver
physical: physical
picture tube, television, tv: video, tuner, dvb, tv, display
pin, pins: pin, gpio, pinctrl
plug in, plugging in, plugged in: hotplug, connect, attach, insert, probe
plugin, plug-in, add-on, addon, extension: module, plugin, extension
poison, canary: poison, canary, redzone, stack protector
poll, polling: poll, polling, interrupt
portion: fraction, part, ratio
post mortem, postmortem, autopsy, after the crash: crash dump, kdump, vmcore, core dump
post, posting: post, submit, send, patch
postpone, put off, later, defer: defer, deferred, delay, workqueue, lazy
power cut, blackout, pulled the plug: crash, power failure, power loss, unclean
power cut, power failure, power loss, outage: power failure, power loss, crash
power saving, save power, save energy, sleep: suspend, power management, idle, sleep, runtime pm
practice, dry run, rehearse, exercise: test, simulate, dry run
praise, credit, thank: credit, acked-by, reviewed-by, reported-by, tag
predict, guess, estimate: estimate, predict, heuristic
predictable addresses, hide addresses, layout: aslr, kaslr, randomization, kptr_restrict
pretend, pretends, impersonate, masquerade: emulate, simulate, fake, spoof, virtual
priority, precedence, important: priority, nice, weight, precedence
private address, overlapping addresses: overlapping, routing domain, namespace, address
private: private, confidential
process, program, application, app: process, task, application, program, thread
production, deployed: production, overhead, low overhead
profile, profiling: profile, perf, sampling
promise, promising, more than exists: overcommit, guarantee, commit, reserve
proof, prove: verify, proof
protect, shield, guard, safe, safely: protect, protection, safe, guard, secure
pulse, pulses: pulse, pps, signal, pwm
quarrel, dispute, argue: conflict, disagree, discussion, dispute
query: query, get, read
queue up, line up, waiting line: queue, queueing, wait
queue, line up: queue, scheduler
quick, fast, quickly: fast, quick, quickly, speed
race, races, unsynchronised: race, data race, kcsan, lockdep
radio, ham, amateur: radio, ax25, amateur, wireless
random input, throw random data: fuzz, fuzzer, fuzzing, syzkaller
random, randomness, dice: random, entropy, rng, randomize
rarely, seldom: rare, infrequent, unlikely, slow path
rate, how often, frequency: rate, frequency, interval, period
read aloud, speaks, voice: speech, synthesizer, speakup, audio
read someone's memory, peek into: ptrace, access, /proc/pid/mem, yama
read: read
readable after, survive a reboot, survives, outlive: persistent, preserve, survive, across reboot
readers, many readers: reader, rwlock, rcu, seqlock, rwsem
readonly, read only: read only, readonly, ro
real time, realtime: realtime, real time, rt, preempt
rebuild, rebuilt: rebuild, resync, recompile
rebuilding, resync, resyncing: resync, recovery, rebuild, sync, reconstruct
receive, arrive, incoming: receive, rx, incoming
reclaim: reclaim, free
recognised, identified, recognized: detect, probe, identify, enumerate
recompile, recompiling, rebuild: rebuild, recompile, runtime, dynamic
recover, restore, undo, revert, roll back: recover, restore, revert, rollback, recovery
redundancy, spare: redundant, backup, failover, active
redundant, mirror, mirrored: raid, mirror, redundancy, replica
refused, rejected, turned down: reject, admission, fail, ebusy, denied
register: register
reject, refuse, turn down: reject, refuse, deny, error
remember, remembered: record, store, keep, mark
remembered data, kept copy, local copy: cache, cached, fscache, copy
remote control, clicker: infrared, remote, rc, lirc
remote, far away: remote, network
remount: remount, mount
rename across, mechanical change, search and replace: coccinelle, semantic patch
report, complain: report
resend, repeat, try again, retry: retransmit, retry, resend
reserve, set aside: reserve, reserved, allocate
reset, restart, reboot: reset, restart, reboot
resource, resources: resource
responsive, snappy, sluggish: latency, responsiveness, interactive, performance
rest, remaining: remaining, rest
restart itself, restarts itself, reboots itself: watchdog, reboot, reset, timeout
return, answer, reply, respond: return, reply, response, answer
reuse, recycle: reuse, recycle
review, reviewer, inspect: review, reviewer
revoke, take away: revoke, remove, invalidate
rights, privileges, powers: privilege, permission, capability, credentials
ring, circle, round: ring buffer, circular, ring
robust, reliable: reliable, robust, reliability
room left, free room, how full: free, available, usage, statfs
router, gateway: router, gateway, forwarding
routine, routines: function, functions, call
rule, rules, guideline: rule, rules, guideline, policy, requirement
rumble, vibrate, vibration, shake: force feedback, rumble, vibrator, ff
safely remove, pull out, yank, unplug: remove, eject, disconnect, hotplug, unbind
sandbox, jail, confine: sandbox, seccomp, landlock, confine, restrict
satellite, gps, positioning: gps, pps, gnss
save, store, keep: store, save, write
saves electricity, low power, drain, drains: power saving, runtime pm, idle, consumption, power management
scan, barcode, fingerprint: scanner, hid, input
scan: scan
scattered pieces, broken into pieces, pieces: fragment, fragmentation, defragment, scatter, extent
scattered, spread out: scattered, fragmented, distributed, discontiguous
schedule, scheduling: schedule, scheduler
scrambled, secret, unreadable: encrypted, encryption, ciphertext
second-level: l2
secure start, trusted start, measured start: secure boot, measured boot, tpm, verified
secure, security: security, secure
self healing, heals: recovery, repair, scrub
send, transmit, outgoing: send, transmit, tx
sensor: sensor, hwmon, iio
serial, console: serial, uart, tty, console
setuid, sudo: setuid, suid, execve, privilege
shape, limit bandwidth, bandwidth: bandwidth, rate, qdisc, shaping, throughput
share a port, same port: reuseport, so_reuseport, port
shared by several, common to: shared, share, common
shelf, stash, cache: cache, store, pool
shipped, ship, forward: send, transmit, remote, forward
short range, contactless: nfc, bluetooth, 802.15.4
shot, slain, victim, sacrificed: kill, killed, oom, victim
shutdown, shut down, power off, turn off the machine: shutdown, poweroff, power off, halt
sign, signature, signed: sign, signature, signed
signal: signal
silence, mute, quiet: quiet, mute, suppress, silence
silence, no reply, ignored: no response, ping, resend, wait
size: size
slow down, hold back, brake: throttle, limit, slow
slowest: powersave, lowest, minimum
small, tiny, little: small, tiny, minimal
smooth, even out: smooth, average, interpolate
snapshot: snapshot, checkpoint
socket, sockets: socket, node, package
sort: sort, type, kind
source: source
space, room: space, free space, size
spare the drive, wear, wear out, wearing: wear, reduce, erase, writes, io
special: special
speed: speed, rate, frequency, throughput
spelling, misspelt, typo: typo, name, spelling
spoof, spoofed, forged, forge: spoof, source address, reverse path, rp_filter, fake
spread, scatter, distribute: distribute, steering, balance, scaling, spread
spy, eavesdrop, snoop: snoop, sniff, side channel, leak
squeeze out, push out, crowd out: reclaim, evict, protection, memory pressure
squeeze, squeezed, shrunk, compact, packed: compress, compressed, compression, compact, reclaim
stack: stack
stale, out of date: stale, invalid, expired
stamp, date: timestamp, date, time
standard: standard, specification
state, status: state, status
statistics, stats, numbers: statistics, stats, counter
stay on one core, fixed to a core, certain processors, particular cores: affinity, cpuset, isolcpus, cpumask, pinned
step through, single step, stepping, breakpoints: gdb, kgdb, breakpoint, debugger, single-step
stick, thumb drive, pen drive, usb stick, memory stick: usb, storage, flash
stop, halt, quit: stop, disable, terminate, end
stopwatch, measure time: timer, clock, timestamp, ktime
stored once, only once: shared, merge, deduplication, single
straddle, straddles, cross, crosses, span, spans: cross, span, boundary
strange hardware, odd hardware: quirk, quirks
strict, stricter: strict
structure, struct: structure, struct
stuck, hangs, hung: hung, blocked, stall, lockup, deadlock
stutter, stutters, jerky, choppy, hiccup: latency, jitter, responsiveness, delay, underrun
style, pretty, formatting, neat: style, checkpatch, clang-format, indentation
style: style, convention
submit, send in, contribute: submit, submitting, send, post, patch
sum, add up, total: sum, total, accumulate, aggregate
suspicious, weird, strange, odd: unexpected, anomaly, suspicious, odd
switch off part, take out of service, retire: offline, hot remove, disable, isolate
switch, switches: switch, bridge
synchronise, synchronize, sync: sync, synchronize, barrier
take over: takeover, failover
takes over, take over, takeover, stand in: failover, backup, active, redundant
tamper, tampered, tampering, manipulated: corrupt, corruption, integrity, verify, hash, measure
tap, finger, fingers, gesture: touch, multitouch, multi-touch, touchpad
tape: tape
task, job, work: task, work, job, workqueue
tenant, tenants, customers, customer, rented: guest, tenant, untrusted, isolation, namespace
terminal: tty, terminal, console
test, try, tests: test, kselftest, kunit, selftest
thermometer, how warm, how hot: temperature, sensor, thermal, hwmon
thief, steal, steals, stolen, theft: attacker, offline, compromise, adversary
thread: thread, task, sibling
throughput: throughput, bandwidth, performance
tick, ticks: tick, timer, jiffies, nohz
tidy up, defragment, defrag: defragment, compaction, cleanup, fragmentation
time slice, slice, time share: timeslice, quantum, runtime, quota
timetable, how often released, release date: release cycle, merge window, schedule
tiny tree, early root, before the real root, real root: initramfs, initrd, early userspace, rootfs
too big, does not fit, oversized: limit, overflow, size, large
too early, premature, before it is finished: use-after-free, race, early, premature
too late, missed, window closes: merge window, deadline, late, rc
tool, utility: tool, utility, script
touch: touch, touchscreen
trace, track, follow: trace, track, ftrace, tracing
tree, branches: tree, hierarchy, radix, rbtree
trick, workaround, work around: workaround, quirk
trust, trusted: trust, trusted
trusted, trustworthy: trusted, authorized, authenticated
tunnel, tunnelling, tunneling: tunnel, encapsulation
turn around, backwards, reversed: reverse, endian, byte order, swap
turn taking, takes turns, wait its turn: scheduling, lock, queue, fair, round robin
two networks, two cards, bundle, team: bonding, bond, team, aggregate, link aggregation, trunk
type, kind: type, kind
typed, typing, keystroke: key, keyboard, input
unaligned, misaligned, crooked: unaligned, alignment, misaligned, split
undefined, uninitialised, not set: uninitialized, undefined, ubsan, kmsan
undelete, bring back, get back: recover, recovery, restore
understand, learn: understand, learn, introduction
undo: undo, revert
uneven, imbalance: imbalance, balance, uneven
unfair, starve, starved, starving, hogs, hog, hogging: starvation, fairness, throttle, priority, limit
union, merged view, stacked, on top of: overlay, union, layer, upper, lower
unique number, numbers for objects, serial number: id, idr, ida, unique, serial number
unit: unit
unused, not used, spare: unused, free, idle, spare
update, upgrade: update, upgrade
upper case, lower case, capital letters, capitals: case, case-insensitive, casefold
upstream, mainline: upstream, mainline, merge
use up, consume, usage: usage, consume, consumption, utilization
user program, user space, userspace, user mode: userspace, user space, application
user, person, people: user
usually, normally, common case: fast path, normal, default, common
value: value
vector, wide registers: simd, vector, sve, avx
version: version, release
very important: critical
virtual card, virtual network, software network: tun, tap, veth, virtual, dummy
voltage, volts, current, amperes, amps: voltage, current, regulator, supply
wait forever, never ends, never returns: deadlock, hang, infinite, livelock
wake, wake up, resume: wakeup, wake, resume
wall clock, time of day: clock, time, realtime, gettimeofday
warn, warning: warn, warning
waste, wastes, wasteful: overhead, waste, unused, consumption
watch a variable, changed memory: watchpoint, hardware breakpoint, hw_breakpoint
watch: watch, monitor, notify
where is it stuck, what is it doing: stack trace, backtrace, sysrq, trace
which lines were run, test coverage, covered: coverage, gcov, kcov
white space, blanks, spaces: whitespace, tab, space
who calls, caller: caller, call graph, stack trace
who did what, paper trail, log of access: audit, accounting, log
whoever comes first, first come: fifo, race, first
window, sliding: window
wireless, wifi, wi-fi: wireless, wifi, wlan, 80211, cfg80211
withdraw: revoke, withdraw
word size, alignment, aligned: alignment, align, unaligned, packed
word: word
wrong, incorrect: invalid, wrong, incorrect, error
zero: zero
"""

#: Each is another name of the others: abbreviations and their expansions, spellings.
NAMES = """
ABI, binary interface
ACL, access control list
ADC, analog to digital, analog
addr, address
admin, administrator, root, superuser
ALSA, sound, audio
analyse, analyze, analysis
API, interface, programming interface
async, asynchronous
auth, authentication, authenticate, authorization
authorise, authorize, authorization, permit
back trace, backtrace, stack trace, stacktrace
behaviour, behavior
black list, blacklist, denylist, block list
boot loader, bootloader, grub
BPF, ebpf, packet filter
buf, buffer
cancelled, canceled
centre, center
check sum, checksum
CLI, command line
cmd, command
colour, color
config, configuration, settings
CPU, processor, central processing unit
CRC, checksum
ctx, context
dB, decibel, gain
dev, device
DHCP, address assignment, ip autoconfiguration
dir, directory, folder
DMA, direct memory access
DNS, name resolution, resolver, host name
docs, documentation
DRM, direct rendering, graphics
drv, driver
dst, dest, destination
dup, duplicate
ECC, error correction, error correcting
env, environment
FIFO, first in first out, queue
freq, frequency
FS, file system, filesystem
GC, garbage collection
GID, group id
GPIO, general purpose pin, pin
GPU, graphics processor, graphics processing unit, video card
grey, gray
half-open, syn, backlog
hand shake, handshake
hard ware, hardware
HDD, hard disk, hard drive, rotational
hot plug, hotplug, hot-plug, hot add, hot remove
I/O, io, input output
I2C, smbus
ID, identifier, identification
info, information
init, initialization, initialisation, initialize
initialise, initialize
IPC, interprocess communication, message queue
IRQ, interrupt, interrupt request
JIT, just in time compiler
labelled, labeled
LAN, local network, ethernet
LCD, display, panel
LED, light, indicator
len, length
lib, library
licence, license
lock up, lockup
LRU, least recently used
LSM, security module
LVM, logical volume
MAC address, hardware address, link address
MAC, mandatory access control
max, maximum, upper limit
MCE, machine check, hardware error
mem, memory
metre, meter
min, minimum, lower limit
MMU, memory management unit, page table
modelled, modeled
msg, message
MTU, packet size, frame size
name space, namespace
NAS, network storage, NFS
NAT, masquerade, address translation
NIC, network interface, network card, ethernet
NMI, non-maskable interrupt, nonmaskable
normalise, normalize
NTP, ptp, time synchronization
num, number
NUMA, non-uniform memory access, node
NVRAM, non-volatile memory, persistent memory
OOM, out of memory
optimise, optimize
organise, organize
OS, operating system
over commit, overcommit
page cache, file cache, cached data
param, parameter, argument
PCI, pcie, peripheral bus
perf, performance
PID, process id
pkt, packet
prio, priority
ptr, pointer
PWM, pulse width
QoS, quality of service, traffic control
RAID, mirror, striping, redundant array
RAM, memory, main memory
randomise, randomize, randomization
read ahead, readahead, prefetch
recognise, recognize
ref, reference
regex, regular expression, pattern
repo, repository
RNG, random number generator, entropy
RPC, remote procedure call
RTC, real time clock, hardware clock
RTT, round trip
run time, runtime
rx, receive, incoming
serialise, serialize
set up, setup
SEV, memory encryption, confidential computing
SHM, shared memory
signalling, signaling
SMP, multiprocessor, symmetric multiprocessing, multi-core
SMT, hyperthreading, hyper-threading, sibling thread
spec, specification
src, source
SSD, solid state, flash
start up, startup
stats, statistics, counters
sync, synchronization, synchronisation
synchronise, synchronize
TCP, transmission control protocol
temp sensor, thermometer, temperature
temp, temporary
time out, timeout
time stamp, timestamp
TLB, translation lookaside buffer
TLS, ssl, transport layer security
touch pad, touchpad
touch screen, touchscreen
TPM, trusted platform module
TTL, time to live, hop limit
TTY, terminal
tunnelling, tunneling
tx, transmit, send, outgoing
UART, serial port, com port, rs-232, rs232
UDP, datagram
UI, user interface, gui
UID, user id
USB, universal serial bus
user space, userspace, userland
virtualise, virtualize, virtualization
VLAN, virtual lan, 802.1q
VM, virtual machine, guest
VPN, tunnel, ipsec
wake up, wakeup
WDT, watchdog timer
white list, whitelist, allowlist
WLAN, wireless, wifi
work load, workload
write back, writeback, dirty
"""
