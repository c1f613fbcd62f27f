#!/bin/sh
# Runs the program on an input, and shows where it crashed and a variable of the caller. A step of `gdb_mcp`.
set -eu
# A container may not disable address randomization, so gdb must not try.
gdb -nx -batch -iex 'set disable-randomization off' -iex 'set print repeats 100' \
  -ex run -ex bt -ex 'frame 1' -ex 'print *record' \
  --args /shared/build/outline "${1:-/shared/poc/crash.txt}" 2>&1 | grep -v libthread_db
