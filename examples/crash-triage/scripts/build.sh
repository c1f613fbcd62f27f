#!/bin/sh
# Compiles the program twice, for the debugger and for coverage, into the shared volume. A step of `main`.
set -eu
# One line for each error, because the message of the session shows the last line when this step fails.
gcc() { command gcc -fno-diagnostics-show-caret "$@"; }
mkdir -p /shared/build/coverage
gcc -Wall -Wextra -O0 -g -o /shared/build/outline /shared/src/outline.c
# The path of the object file matters: the program writes its coverage data next to it, wherever the program runs.
gcc -O0 -g --coverage -c -o /shared/build/coverage/outline.o /shared/src/outline.c
gcc --coverage -o /shared/build/coverage/outline /shared/build/coverage/outline.o
ls -l /shared/build/outline /shared/build/coverage/outline
