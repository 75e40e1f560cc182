#!/bin/sh
# Ends a program with the process that started it, where the kernel cannot (no PR_SET_PDEATHSIG): standard input is a pipe whose
# other end only that process holds, so its end of file is the sign, however the process died.
# usage: supervise.sh SIGNAL program [argument...]
signal=$1; shift
"$@" </dev/null &
child=$!
for name in TERM INT QUIT; do trap "kill -$name $child 2>/dev/null" "$name"; done
exec 3<&0
{ while read -r _; do :; done <&3; kill "-$signal" "$child" 2>/dev/null; } &
watcher=$!
exec 3<&- 0</dev/null
while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
kill "$watcher" 2>/dev/null
exit "${code:-0}"
