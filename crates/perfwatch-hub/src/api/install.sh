#!/bin/sh
# Installs the PerfWatch agent of this hub on this machine:
#   curl -fsSL @SITE@/install.sh | sudo sh -s -- TOKEN
# The token is made on the hub's page "Agents". What follows it goes to `agent install`.
set -eu

hub='@SITE@'

fail() {
    printf 'perfwatch: %s\n' "$1" >&2
    exit 1
}

# From here on the token goes by standard input: other users see command lines.
fetch() {
    if command -v curl >/dev/null 2>&1; then
        printf 'header = "Authorization: Bearer %s"\n' "$token" | curl -fsSL --proto-redir =https,http -K - -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        printf 'header = Authorization: Bearer %s\n' "$token" >"$folder/wgetrc"
        WGETRC="$folder/wgetrc" wget -q -O "$2" "$1"
    else
        fail "neither curl nor wget is here"
    fi
}

main() {
    token="${1:-}"
    case "$token" in
    pwe_*) shift ;;
    *) fail "give an enrolment token: … | sudo sh -s -- pwe_…" ;;
    esac
    [ "$(uname -s)" = Linux ] || fail "the agent runs on Linux"
    [ "$(id -u)" = 0 ] || fail "this needs root: put sudo before sh"
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    umask 077
    arch="$(uname -m)"
    fetch "$hub/download/agent-linux-$arch" "$folder/perfwatch-agent" ||
        fail "can't get a program for $arch from $hub; is the token still good?"
    chmod 755 "$folder/perfwatch-agent"
    version="$("$folder/perfwatch-agent" --version)" ||
        fail "the hub's program does not run here (an older libc?): put one that does into the hub's folder downloads, as perfwatch-agent-$arch"
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
    said="$(printf '%s\n' "$token" | "$folder/perfwatch-agent" "$@")"
    printf '%s\n' "${said%% Its agent*}"
    start "$run"
}

start() {
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl enable perfwatch-agent
        systemctl restart perfwatch-agent
        printf 'It runs as the service perfwatch-agent.\n'
        return
    fi
    # No systemd: as nobody, until the next start of this machine.
    command -v setpriv >/dev/null 2>&1 ||
        fail "installed, but not started: no systemd and no setpriv here. Run $1 with PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml"
    chown -R 65534:65534 /var/lib/perfwatch
    # shellcheck disable=SC2086 # two words
    PERFWATCH_CONFIG=/etc/perfwatch/agent.yaml setsid setpriv --reuid=65534 --regid=65534 --clear-groups \
        --no-new-privs --bounding-set=-all -- $1 </dev/null >/dev/null 2>>/var/log/perfwatch-agent.log &
    printf 'It runs until this machine is started anew: there is no systemd here. Its log: /var/log/perfwatch-agent.log\n'
}

main "$@"
