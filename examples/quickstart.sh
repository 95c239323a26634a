#!/bin/sh
# From a fresh clone to a first transcript, with no key: about two minutes, 500 MB below try/.
# The recording is LibriVox's "Sense and Sensibility" (public domain), as the package pocketsphinx ships it.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "dropscribe needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 and try again" >&2
    exit 1
}
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    echo "Python's venv is missing; on Debian or Ubuntu: apt install python3-venv" >&2
    exit 1
}
say() { printf '\n== %s\n' "$*"; }

say "A virtual environment with dropscribe and the embedded engine, in try/venv"
[ -x try/venv/bin/python ] || "$python" -m venv try/venv
try/venv/bin/pip install --quiet --disable-pip-version-check '.[local]'

say "A config and its folders, in try/drop"
[ -e try/drop/dropscribe.yaml ] || try/venv/bin/dropscribe init try/drop

say "A recording of a human voice"
try/venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary pocketsphinx \
    --dest try/speech pocketsphinx==5.1.1
tar -xzf try/speech/pocketsphinx-5.1.1.tar.gz -C try/speech
cp try/speech/pocketsphinx-5.1.1/test/data/librivox/*-0870.wav try/drop/inbox/dashwood.wav
echo try/drop/inbox/dashwood.wav

say "dropscribe run --once"
try/venv/bin/dropscribe run --once -c try/drop/dropscribe.yaml

say "What is there now, and what was said"
find try/drop -type f -not -path '*/state/*' | sort
cat try/drop/done/dashwood*.txt
