#!/bin/sh
# summarize-crash.sh PROGRAM INPUT: summarizes a crash in five lines. Exit code 1 if the program does not crash.
set -eu
program=$1 input=$2
log=$(gdb -nx -batch -iex 'set disable-randomization off' -ex run -ex bt --args "$program" "$input" 2>&1) || true

signal=$(printf '%s\n' "$log" | sed -n 's/^Program received signal \([^.]*\)\.$/\1/p')
if [ -z "$signal" ]; then
  echo "no crash: $program $input"
  exit 1
fi
# One line per frame: #0  0x0000aaaa in print_path (record=0x41) at /shared/src/outline.c:91
frames=$(printf '%s\n' "$log" | sed -n 's/^\(#[0-9]*\) *\(0x[0-9a-f]* in \)\{0,1\}/\1 /p')
way=$(printf '%s\n' "$frames" | sed 's/^#[0-9]* \([^ ]*\) (.*) at .*:\([0-9]*\)$/\1:\2/; s/^#[0-9]* \([^ ]*\).*/\1/' | paste -s -d ' ' | sed 's/ / <- /g')
top=$(printf '%s\n' "$frames" | sed -n '1s/^#0 //p')

# from_input 0x4242424242424242: prints the bytes of a pointer, lowest first, if all of them are text and occur in the input.
from_input() {
  digits=${1#0x} text=
  while [ -n "$digits" ]; do
    rest=${digits#??} byte=${digits%"$rest"} digits=$rest
    case $byte in
      [2-6][0-9a-f] | 7[0-9a-e]) text=$(printf '%b' "\\0$(printf '%o' "0x$byte")")$text ;;
      *) return 1 ;;
    esac
  done
  grep -qaF -- "$text" "$input" && printf '%s' "$text"
}

steered="no sign of it"
for pointer in $(printf '%s\n' "$top" | grep -o '[a-z_]*=0x[0-9a-f]\{16\}' || true); do
  if text=$(from_input "${pointer#*=}"); then steered="yes: ${pointer%%=*} is \"$text\", bytes of the input"; fi
done

printf '%-9s %s\n' input "$input" signal "$signal" at "$top" way "$way" steered "$steered"
