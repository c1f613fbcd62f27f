#!/bin/sh
# Runs the program on an input and shows where it crashed, and what the caller had in its hands. A step of `gdb_mcp`.
set -eu
# A container may not switch address randomization off, so gdb is told not to try.
gdb -nx -batch -iex 'set disable-randomization off' -iex 'set print repeats 100' \
  -ex run -ex bt -ex 'frame 1' -ex 'print *record' \
  --args /shared/build/outline "${1:-/shared/poc/crash.txt}" 2>&1 | grep -v libthread_db
