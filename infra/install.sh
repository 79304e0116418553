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

echo "Installing into .venv (about 2 GB; the first time takes some minutes)"
status=$(mktemp)
trap 'rm -f "$status"' EXIT
{
    code=0
    PYTHONUNBUFFERED=1 .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        -e '.[dev]' -c infra/constraints.txt 2>&1 || code=$?
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
