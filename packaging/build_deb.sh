#!/bin/sh
# Builds dropscribe_VERSION_all.deb on Debian's own Python packages: build_deb.sh [OUTDIR]
# Needs only dpkg-deb. Debian 13 is the oldest release that has all dependencies in these versions.
set -eu
cd "$(dirname "$0")/.."
out=${1:-dist}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' daemon/dropscribe/__init__.py)
[ -n "$version" ] || { echo "no __version__ in daemon/dropscribe/__init__.py" >&2; exit 1; }
# A tilde sorts below: 0.2~rc1 is older than 0.2.
debian_version=$(printf '%s' "$version" | sed -E 's/\.?(a|b|rc|dev)([0-9]+)/~\1\2/')
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
umask 022
root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT

put() { install -D -m "$1" "$2" "$root/$3"; }
# The shipped units are for a virtual environment in /opt or in the user's home.
put_unit() {
    install -d "$root/${2%/*}"
    sed -e 's#/opt/dropscribe/bin/#/usr/bin/#; s#%h/.local/bin/#/usr/bin/#' "$1" >"$root/$2"
}

install -d "$root/usr/lib/python3/dist-packages"
(cd daemon && find dropscribe -type f ! -path '*/__pycache__/*' ! -name '*.pyc' ! -name 'ruff.toml' ! -path '*/.*' -print0 |
    xargs -0 cp --parents -t "$root/usr/lib/python3/dist-packages")
put 755 packaging/debian/dropscribe usr/bin/dropscribe
put_unit systemd/dropscribe.service usr/lib/systemd/system/dropscribe.service
put_unit systemd/user/dropscribe.service usr/lib/systemd/user/dropscribe.service
put 644 systemd/sysusers.d/dropscribe.conf usr/lib/sysusers.d/dropscribe.conf
put 644 systemd/tmpfiles.d/dropscribe.conf usr/lib/tmpfiles.d/dropscribe.conf
put 640 packaging/debian/config.yaml etc/dropscribe/config.yaml

documents=usr/share/doc/dropscribe
put 644 packaging/debian/copyright $documents/copyright
put 644 config.example.yaml $documents/examples/config.yaml
for file in systemd/dropscribe.service.d/*.example; do
    put 644 "$file" "$documents/examples/dropscribe.service.d/$(basename "$file")"
done
put 644 systemd/dropscribe.container $documents/examples/dropscribe.container
for file in examples/*.py examples/*.service examples/*.timer; do # of the recipes in docs/
    put 644 "$file" "$documents/$file"
done
for file in README.md SECURITY.md $(find docs -name '*.md' -o -name '*.png'); do
    put 644 "$file" "$documents/$file"
done
gzip -9n <CHANGELOG.md >"$root/$documents/changelog.gz"

if "${PYTHON:-python3}" packaging/make_docs.py "$root/usr/share" >/dev/null 2>&1; then
    rm -r "$root/usr/share/zsh/site-functions" # Debian's zsh looks in vendor-completions
    find "$root/usr/share/man" -type f -exec gzip -9n {} +
else
    echo "no man pages, no completion: ${PYTHON:-python3} cannot load dropscribe" >&2
fi
find "$root/usr" -type d -exec chmod 755 {} + -o -type f ! -perm 755 -exec chmod 644 {} +

install -d "$root/DEBIAN"
sed -e "s/@VERSION@/$debian_version/" -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f 1)/" \
    packaging/debian/control >"$root/DEBIAN/control"
echo /etc/dropscribe/config.yaml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

install -d "$out"
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/dropscribe_${debian_version}_all.deb" >/dev/null
echo "$out/dropscribe_${debian_version}_all.deb"
