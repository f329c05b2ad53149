#!/bin/sh
# Installs a package into a copy of this system (an overlay of its root, gone at the end), and looks at what is there
# after the installation, an upgrade, the removal and the purge. Run as root, in a mount namespace of its own:
#   unshare --mount --propagation private sh packaging/debian/test.sh simplon_0.1.0_amd64.deb
set -eu
package=$1
base=/mnt
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
mount --rbind /proc "$base/root/proc"
mount --rbind /dev "$base/root/dev"
mount -t tmpfs tmpfs "$base/root/run"
mount -t tmpfs tmpfs "$base/root/tmp"
cp "$package" "$base/root/tmp/simplon.deb"
failed=0

within() { chroot "$base/root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
check() {
    what=$1
    shift
    if "$@" >"$base/out" 2>&1; then
        echo "ok      $what"
    else
        echo "FAILED  $what"
        sed 's/^/        /' "$base/out"
        failed=1
    fi
}
is() { [ "$(within stat -c '%a %U:%G' "$2")" = "$1" ]; }
same() { [ "$(within sh -c "$1")" = "$2" ]; }
no() { ! "$@"; }

cp "$base/root/etc/passwd" "$base/passwd"
cp "$base/root/etc/group" "$base/group"

check "it installs" within dpkg --install /tmp/simplon.deb
check "the program runs" within simplon --version
check "the configuration is the gateway's alone" is '600 simplon:simplon' /etc/simplon/simplon.toml
check "keys are in a private directory" is '750 root:simplon' /etc/simplon/keys
check "the user has no shell and no home" within sh -c 'getent passwd simplon | grep -q ":/nonexistent:/usr/sbin/nologin$"'
check "the shipped configuration is read" within simplon check /etc/simplon/simplon.toml
check "the user reads the configuration" within setpriv --reuid simplon --regid simplon --clear-groups \
    simplon check /etc/simplon/simplon.toml
check "nobody else does" no within setpriv --reuid nobody --regid nogroup --clear-groups cat /etc/simplon/simplon.toml
check "it is enabled" within test -e /etc/systemd/system/multi-user.target.wants/simplon.service
check "it was not started" no within sh -c 'ls /run/simplon/gateway.sock'
if within sh -c 'command -v systemd-analyze' >/dev/null; then
    check "the unit is sound" within sh -c 'out=$(systemd-analyze verify /usr/lib/systemd/system/simplon.service 2>&1) \
        && [ -z "$(echo "$out" | grep -i simplon)" ] || { echo "$out"; false; }'
    check "the unit is sandboxed (exposure at most 3.0)" within systemd-analyze security --offline=true --threshold=30 \
        /usr/lib/systemd/system/simplon.service
fi
if within sh -c 'command -v man' >/dev/null; then
    for page in simplon.1 simplon-gateway.1 simplon-show-ipsec-sa.1 simplon.toml.5; do
        section=${page##*.}
        check "the page $page is sound" within sh -c \
            "out=\$(zcat /usr/share/man/man$section/$page.gz | man --warnings -Tutf8 -Z -l - 2>&1 >/dev/null); \
             echo \"\$out\"; [ -z \"\$out\" ]"
    done
fi
check "bash understands its completions" within bash -n /usr/share/bash-completion/completions/simplon
check "its files are as they were packed" same 'dpkg --verify simplon | grep -v "etc/simplon"' ''

within sh -c 'echo "# mine" >> /etc/simplon/simplon.toml'
check "it is installed again" within dpkg --force-confold --install /tmp/simplon.deb
check "what the administrator wrote stays" within grep -q '^# mine$' /etc/simplon/simplon.toml
check "and so do owner and mode" is '600 simplon:simplon' /etc/simplon/simplon.toml

within sh -c 'echo secret > /etc/simplon/keys/office.psk; mkdir -p /var/log/simplon; touch /var/log/simplon/a.log'
check "it is removed" within dpkg --remove simplon
check "the configuration stays" within test -e /etc/simplon/simplon.toml
check "it is purged" within dpkg --purge simplon
left=$(cd "$base/upper" && find . \( -name '*simplon*' -o -path '*simplon*' \) ! -type c | grep -v -e '^./tmp' -e '^./var/cache/man' || true)
check "nothing of it is left" [ -z "$left" ]
[ -z "$left" ] || echo "$left"
check "no user is left" cmp "$base/passwd" "$base/root/etc/passwd"
check "no group is left" cmp "$base/group" "$base/root/etc/group"

exit $failed
