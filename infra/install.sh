#!/bin/sh
# Makes .venv and installs MatchLoop into it, from the locked versions. Called by `make setup`; safe to repeat.
set -eu
cd "$(dirname "$0")/.."
log=.venv/install.log

modern() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if ! modern .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    found=
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if modern "$name"; then found=$name; break; fi
    done
    if [ -z "$found" ]; then
        echo "MatchLoop needs Python 3.11 or newer; found $(python3 --version 2>&1 || true)." >&2
        echo "Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    if ! problem=$("$found" -m venv --clear .venv 2>&1); then
        echo "$found cannot make a virtual environment in .venv:" >&2
        echo "$problem" >&2
        exit 1
    fi
fi

# On Linux PyPI has PyTorch with CUDA only: 5 GB more, of no use here. PyTorch's own index has the build without. It is
# asked where no index of yours is configured and it answers at once; without it everything comes from the usual place.
cpu_index=https://download.pytorch.org/whl/cpu
pip() { PYTHONUNBUFFERED=1 .venv/bin/python -m pip "$@" --disable-pip-version-check --no-input; }
cpu_torch() {
    [ "$(uname -s)" = Linux ] || return 0
    if pip config list 2>/dev/null | grep -qE '(^|\.)(index-url|no-index)='; then return 0; fi
    .venv/bin/python -c 'if True:
        import signal, sys, urllib.request
        signal.alarm(8)  # also if names are not resolved
        urllib.request.urlopen(sys.argv[1], timeout=5)' "$cpu_index/torch/" >/dev/null 2>&1 || return 0
    torch=$(sed -n 's/^torch==//p' infra/constraints.txt)
    pip install --no-deps --index-url "$cpu_index" "torch==$torch" 2>&1 || echo "Going on without $cpu_index"
}

echo "Installing into .venv (3 GB; with PyTorch's CUDA build 8 GB; the first time takes some minutes)"
status=$(mktemp)
trap 'rm -f "$status"' EXIT
{
    code=0
    cpu_torch
    pip install -e '.[all,dev]' -c infra/constraints.txt 2>&1 || code=$?
    echo "$code" >"$status"
} | tee "$log" | awk -v bar="$([ -t 1 ] && echo 1 || true)" '
    /^(Collecting|Requirement already satisfied:?|Building|Installing)/ && bar {
        step += 1; printf "\r\033[K  %d  %s", step, substr($0, 1, 60); fflush()
    }
    END { if (bar) printf "\r\033[K" }'
if [ "$(cat "$status")" != 0 ]; then
    grep -iE '^ *(error|fatal)|no space left' "$log" >&2 || tail -n 20 "$log" >&2
    echo "The installation failed. Everything pip said is in $log; \`make setup\` tries again." >&2
    exit 1
fi
echo "Installed: $(.venv/bin/python --version) in .venv"
