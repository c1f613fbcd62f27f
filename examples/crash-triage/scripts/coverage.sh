#!/bin/sh
# Runs the program on the whole corpus and shows which of its lines were reached. A step of `coverage`. It leaves the annotated source
# in the shared volume for the other sandboxes.
set -eu
build=/shared/build/coverage report=/shared/coverage
rm -f "$build"/*.gcda
mkdir -p "$report"
for input in /shared/corpus/*; do
  "$build/outline" "$input" >/dev/null 2>&1 || true   # the corpus also has invalid inputs, which the program refuses
done
cd "$report"
gcov -f -o "$build" outline.c >summary.txt
awk -F "'" '
  BEGIN { printf "%-14s %6s %9s\n", "FUNCTION", "LINES", "COVERED" }
  /^Function / { name = $2 }
  /^File / { name = "total" }
  /^Lines executed:/ && name { split($0, part, /[:% ]+/); printf "%-14s %6d %8.1f%%\n", name, part[5], part[3]; name = "" }
' summary.txt
echo "never reached:"
grep '#####' outline.c.gcov | sed 's/^ *#####:/ /'
