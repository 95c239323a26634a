#!/bin/sh
# From a fresh clone to a first transcript, with no key and nothing outside of try/ but pip's own cache.
# dashwood.flac is LibriVox's "Sense and Sensibility", chapter 1 (public domain).
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
began=$(date +%s)
seconds() { echo "$(($(date +%s) - began)) s"; }

works() { # PYTHON: new enough, and able to make a virtual environment
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if works "$python"; then break; fi
    python=
done
if [ -z "${python:-}" ]; then
    echo "dropscribe needs Python 3.11 or newer with its module venv (Debian, Ubuntu: apt install python3-venv)." >&2
    echo "Where it has another name: PYTHON=/path/to/python3.12 sh examples/quickstart.sh" >&2
    exit 1
fi

packages=$(grep '^[a-z].*==' locks/local.txt | grep -v 'win32\|emscripten' | sed 's/==.*//' | sort -u | wc -l)
say "1 of 4: dropscribe and its speech engine, into try/venv"
echo "about $packages packages; 200 MB to fetch, 560 MB on disk; one to three minutes the first time"
[ -x try/venv/bin/python ] || "$python" -m venv try/venv
rm -f try/failed
{
    try/venv/bin/pip install --disable-pip-version-check --progress-bar off -r locks/local.txt || touch try/failed
} | awk -v tty="$([ -t 1 ] && echo yes || echo no)" -v of="$packages" '
    function show(text) { if (tty == "yes") printf "\r\033[K  %s", text; else print "  " text; fflush() }
    $1 == "Downloading" || /^ *Using cached/ { sub(/^ *(Downloading|Using cached) /, ""); show(++n " of " of ": " $0) }
    /^Installing collected/ { show("unpacking") }
    END { if (tty == "yes") printf "\r\033[K" }'
[ ! -e try/failed ] || { rm try/failed; echo "pip could not install it: see above; nothing outside of try/ was changed" >&2; exit 1; }
try/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
echo "done after $(seconds)"

say "2 of 4: a config and its folders, in try/drop"
[ -e try/drop/dropscribe.yaml ] || try/venv/bin/dropscribe init try/drop >/dev/null
grep -v '^ *\(#\|$\)' try/drop/dropscribe.yaml | sed 's/  *#.*//'

say "3 of 4: a recording of a human voice, dropped into try/drop/inbox"
if [ -e try/drop/done/dashwood.txt ]; then
    echo "it was transcribed the last time that this ran; a recording is not transcribed twice"
else
    cp examples/dashwood.flac try/drop/inbox/
    echo "dashwood.flac, 7 seconds"
fi

say "4 of 4: dropscribe run --once: until nothing is left to do"
try/venv/bin/dropscribe run --once -c try/drop/dropscribe.yaml

say "What was said (try/drop/done/dashwood.txt)"
cat try/drop/done/dashwood.txt

say "What is there now ($(seconds) in all)"
find try/drop -not -path '*/.*' -not -path '*/state/*' | sort | sed 's|[^/]*/|  |g'

cat <<'END'

== Next
  try/venv/bin/dropscribe run -c try/drop/dropscribe.yaml    # until Ctrl-C; drop your own files into try/drop/inbox
  try/venv/bin/dropscribe transcribe FILE                    # one file, to the terminal
  rm -r try                                                  # removes all of it
END
