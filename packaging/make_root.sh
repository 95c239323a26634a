#!/bin/sh
# A bare Debian 13 as a tar, to install the .deb into and to build the image from: make_root.sh OUT.tar [PACKAGE…]
# Wants root (or user namespaces), mmdebstrap and a Debian mirror: $MIRROR, else the one apt uses here.
set -eu
out=$1
shift
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -m 1 '/debian/\?$' || true)}
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed"; exit 1; }
exec timeout 300 mmdebstrap --quiet --variant=apt --include="ca-certificates $*" \
    trixie "$out" "${mirror:-http://deb.debian.org/debian}"
