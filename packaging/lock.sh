#!/bin/sh
# Renews locks/: the newest releases that pyproject.toml allows, each wheel and sdist by its hash, for every
# Python from 3.11 and for x86-64 and arm64 alike. All files come from one resolution, so that any of them
# can be installed together. Run it, run the tests, read the diff, commit.
set -eu
cd "$(dirname "$0")/.."
uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
"${PYTHON:-python3}" -m venv "$uv"
"$uv/bin/pip" install -q 'uv>=0.5'

extras="cluster lint local local-multilingual media notify socks test"
all=$(printf -- '--extra %s ' $extras)

compile() { # OUT ARGUMENT…
    out=$1
    shift
    "$uv/bin/uv" pip compile -q --universal --generate-hashes --python-version 3.11 --upgrade \
        --custom-compile-command "sh packaging/lock.sh" --group build -o "$out" pyproject.toml "$@" >/dev/null
}

compile "$uv/all.txt" $all
compile locks/base.txt -c "$uv/all.txt"
for extra in $extras; do
    case $extra in lint | test) continue ;; esac
    compile "locks/$extra.txt" -c "$uv/all.txt" --extra "$extra"
done
# What the tests of the whole need, but for the 300 MB of the multilingual model; and with that, the linters.
tests="--extra cluster --extra local --extra media --extra notify --extra socks --extra test"
compile locks/test.txt -c "$uv/all.txt" $tests
compile locks/dev.txt -c "$uv/all.txt" $tests --extra lint

# A wheel for each processor, so that nobody needs a compiler.
for processor in x86_64 aarch64; do
    for version in 3.11 3.12 3.13; do
        for lock in locks/*.txt; do
            "$uv/bin/uv" pip install -q --dry-run --only-binary :all: \
                --python-platform "$processor-manylinux_2_28" --python-version "$version" --target "$uv/target" \
                -r "$lock"
        done
    done
done
