#!/bin/sh
# Installs the PerfWatch agent of this hub on this host:
#   curl -fsSL @SITE@/install.sh | sudo sh -s -- TOKEN
# It requires curl or wget, sha256sum, and root.
# TOKEN is an enrollment token of the page Settings > Agents; with `-` it is read from standard input. Further
# arguments are passed to `agent install`.
set -eu

hub='@SITE@'

fail() {
    printf 'perfwatch: %s\n' "$1" >&2
    exit 1
}

# SHA-256 of the agent by architecture.
checksum() {
    case "$1" in
@CHECKSUMS@
    esac
}

# The token is passed by standard input or file, because other users can read command lines.
fetch() {
    if command -v curl >/dev/null 2>&1; then
        printf 'header = "Authorization: Bearer %s"\n' "$token" | curl -fsSL --proto-redir =https,http -K - -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        printf 'header = Authorization: Bearer %s\n' "$token" >"$dir/wgetrc"
        WGETRC="$dir/wgetrc" wget -q -O "$2" "$1"
    else
        fail "curl or wget is required"
    fi
}

main() {
    token="${1:-}"
    if [ "$token" = - ]; then
        IFS= read -r token || true
    fi
    case "$token" in
    pwe_*) shift ;;
    *) fail "an enrollment token is required: … | sudo sh -s -- pwe_…" ;;
    esac
    [ "$(uname -s)" = Linux ] || fail "the agent requires Linux"
    [ "$(id -u)" = 0 ] || fail "root is required: run sh with sudo"
    dir="$(mktemp -d)"
    trap 'rm -rf "$dir"' EXIT
    umask 077
    arch="$(uname -m)"
    fetch "$hub/download/agent-linux-$arch" "$dir/perfwatch-agent" ||
        fail "failed to download the agent for $arch from $hub; check that the token is valid"
    command -v sha256sum >/dev/null 2>&1 || fail "sha256sum is required"
    actual="$(sha256sum <"$dir/perfwatch-agent")"
    [ "${actual%% *}" = "$(checksum "$arch")" ] ||
        fail "the downloaded agent is not that of the hub (SHA-256 mismatch); run the install command of a new token"
    chmod 755 "$dir/perfwatch-agent"
    version="$("$dir/perfwatch-agent" --version)" ||
        fail "the agent binary of the hub does not run on this host (older libc?); place a compatible one in the downloads directory of the hub as perfwatch-agent-$arch"
    case "$version" in
    perfwatch-agent*)
        run=/usr/local/bin/perfwatch-agent
        set -- install --hub "$hub" --token-stdin "$@"
        ;;
    *)
        run="/usr/local/bin/perfwatch agent"
        set -- agent install --hub "$hub" --token-stdin "$@"
        ;;
    esac
    output="$(printf '%s\n' "$token" | "$dir/perfwatch-agent" "$@")"
    printf '%s\n' "${output%% Start the agent*}"
    start "$run"
}

start() {
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl enable perfwatch-agent
        systemctl restart perfwatch-agent
        printf 'The agent runs as the service perfwatch-agent.\n'
        return
    fi
    # Without systemd: runs as the user nobody until the next reboot.
    command -v setpriv >/dev/null 2>&1 ||
        fail "installed, but not started: systemd and setpriv are missing. Run $1 with PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml"
    # Links stay as they are: an earlier agent may have made them.
    chown -hR 65534:65534 /var/lib/perfwatch
    # shellcheck disable=SC2086 # $1 may be two words
    PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml setsid setpriv --reuid=65534 --regid=65534 --clear-groups \
        --no-new-privs --bounding-set=-all -- $1 </dev/null >/dev/null 2>>/var/log/perfwatch-agent.log &
    printf 'The agent runs until the next reboot (no systemd). Log file: /var/log/perfwatch-agent.log\n'
}

main "$@"
