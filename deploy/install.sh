#!/bin/sh
# Installs a release of PerfWatch on this machine:
#   sh install.sh [--from URL_OR_DIRECTORY] [--prefix DIRECTORY] [perfwatch | perfwatch-agent]
# On Debian and its relatives the package is installed, with user, configuration and service. Elsewhere, or with
# --prefix, the program is copied to DIRECTORY/bin (default: /usr/local/bin). Every download is compared with the
# SHA-256 in this script, which `make dist` writes.
set -eu

from='@RELEASE_URL@'
version='@VERSION@'

fail() {
    printf 'perfwatch: %s\n' "$1" >&2
    exit 1
}

# SHA-256 of the files of the release.
checksum() {
    case "$1" in
@CHECKSUMS@
    *) fail "release $version has no $1" ;;
    esac
}

# Downloads a file of the release, or copies it from a directory.
fetch() {
    case "$from" in
    '')
        # A release that was downloaded as a whole.
        beside="$(dirname "$0")/$1"
        [ -e "$beside" ] || fail "the address of the release is required: --from URL_OR_DIRECTORY"
        cp "$beside" "$2"
        ;;
    https://* | http://127.0.0.1:* | http://localhost:*)
        if command -v curl >/dev/null 2>&1; then
            curl -fsSL --proto-redir =https -o "$2" "$from/$1"
        elif command -v wget >/dev/null 2>&1; then
            wget -q -O "$2" "$from/$1"
        else
            fail "curl or wget is required"
        fi
        ;;
    http://*) fail "$from: only https:// is accepted" ;;
    *) cp "$from/$1" "$2" ;;
    esac
}

# Fetches a file and verifies it.
fetch_verified() {
    expected="$(checksum "$1")"
    fetch "$1" "$dir/$1" || fail "failed to download $1 from $from"
    actual="$(sha256sum <"$dir/$1")"
    [ "${actual%% *}" = "$expected" ] ||
        fail "$1 is not the file of the release $version (SHA-256 mismatch); nothing was installed"
}

main() {
    prefix=
    program=perfwatch
    while [ $# -gt 0 ]; do
        case "$1" in
        --from) from="${2:?--from requires an address}" && shift 2 ;;
        --prefix) prefix="${2:?--prefix requires a directory}" && shift 2 ;;
        perfwatch | perfwatch-agent) program="$1" && shift ;;
        *) fail "unknown argument $1; expected perfwatch or perfwatch-agent" ;;
        esac
    done
    [ "$(uname -s)" = Linux ] || fail "PerfWatch requires Linux"
    command -v sha256sum >/dev/null 2>&1 || fail "sha256sum is required"
    dir="$(mktemp -d)"
    trap 'rm -rf "$dir"' EXIT
    if [ -z "$prefix" ] && command -v dpkg >/dev/null 2>&1; then
        install_package
    else
        install_program
    fi
}

install_package() {
    [ "$(id -u)" = 0 ] || fail "root is required to install the package: run sh with sudo, or use --prefix"
    file="${program}_${version}_$(dpkg --print-architecture).deb"
    fetch_verified "$file"
    if command -v apt-get >/dev/null 2>&1; then
        # Readable by the user of apt.
        chmod 755 "$dir"
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$dir/$file"
    else
        dpkg -i "$dir/$file"
    fi
}

install_program() {
    name="$program-$version-$(uname -m)-linux"
    fetch_verified "$name.tar.gz"
    tar -xzf "$dir/$name.tar.gz" -C "$dir"
    bin="${prefix:-/usr/local}/bin"
    mkdir -p "$bin"
    # The hub offers perfwatch-agent to other machines, if it is beside its own program.
    for file in "$program" perfwatch-agent; do
        [ -e "$dir/$name/$file" ] || continue
        # By rename: a running program is not overwritten.
        cp "$dir/$name/$file" "$bin/.$file.new"
        chmod 755 "$bin/.$file.new"
        mv -f "$bin/.$file.new" "$bin/$file"
    done
    printf '%s is installed as %s\n' "$("$bin/$program" --version)" "$bin/$program"
    if [ "$program" = perfwatch ]; then
        printf 'Start it: %s\n' "$bin/$program"
    else
        printf 'Install its service: sudo %s install --hub URL --token file:PATH\n' "$bin/$program"
    fi
}

main "$@"
