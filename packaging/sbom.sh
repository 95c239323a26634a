#!/bin/sh
# Writes what a locked install consists of into FOLDER: one CycloneDX file for each extra, with name, release and
# the hashes of every part. `sh packaging/sbom.sh FOLDER`; cyclonedx-py is in locks/dev.txt.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
for lock in locks/*.txt; do
    extra=$(basename "$lock" .txt)
    case $extra in dev | test) continue ;; esac
    "${CYCLONEDX_PY:-cyclonedx-py}" requirements --pyproject pyproject.toml --output-reproducible \
        --output-file "$1/dropscribe-$extra.cdx.json" "$lock"
done
