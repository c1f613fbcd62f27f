#!/bin/sh
# Leaves its work wherever a step can: objects in the root file system, an index in an emptyDir, a tool in /bash_tools, and a report in
# /shared. It takes a minute or more, as steps do that build a target.
set -eu
mkdir -p /tmp/objects
cd /tmp/objects
for part in $(seq 1 "${PARTS:-20}"); do
  python3 - "$part" >"part$part.c" <<'PYTHON'
import sys
part = sys.argv[1]
print("#include <string.h>")
for number in range(400):
    print(f"""
int check_{part}_{number}(const char *text, int length) {{
    int state = {number};
    for (int at = 0; at < length; at++) {{
        switch ((text[at] + state) % 7) {{
        case 0: state = state * 31 + at; break;
        case 1: state ^= text[at] << (at % 5); break;
        case 2: if (length > at + 4 && !memcmp(text + at, "ab{number % 10}d", 4)) return at; break;
        default: state += {number};
        }}
    }}
    return state;
}}""")
print(f"int check_{part}(const char *text, int length) {{ int sum = 0;")
for number in range(400):
    print(f"    sum += check_{part}_{number}(text, length);")
print("    return sum;\n}")
PYTHON
  gcc -O2 -g -c "part$part.c"
done
{
  echo '#include <stdio.h>'
  echo '#include <string.h>'
  for part in $(seq 1 "${PARTS:-20}"); do echo "int check_$part(const char *, int);"; done
  echo 'int main(int count, char **words) { int sum = 0; for (int at = 1; at < count; at++) {'
  for part in $(seq 1 "${PARTS:-20}"); do echo "sum += check_$part(words[at], strlen(words[at]));"; done
  echo '} return printf("%d", sum) < 0; }'
} >main.c
mkdir -p /bash_tools/bin
gcc -O1 -o /bash_tools/bin/check main.c part*.o
nm --defined-only part*.o >/scratch/index
{ echo "built at $(date -u +%FT%TZ)"; wc -l </scratch/index; du -sm /tmp/objects; } >/shared/report
