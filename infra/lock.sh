#!/bin/sh
# Resolves pyproject.toml afresh in an environment of its own and writes infra/constraints.txt. Called by `make lock`.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
trap 'exit 1' INT TERM

echo "Resolving the newest versions in a fresh environment (about 2 GB, some minutes)"
.venv/bin/python -m venv "$fresh"
"$fresh/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[all,dev,bench,docs]'
"$fresh/bin/python" -m pip check --disable-pip-version-check
{
    echo '# The exact versions MatchLoop is tested with. Refreshed by `make lock`; do not edit by hand.'
    # A local suffix (2.13.0+cpu) exists on some indexes only: the bare version fits them all.
    "$fresh/bin/python" -m pip freeze --exclude matchloop | sed -E 's/\+[A-Za-z0-9.]+$//'
} >"$fresh/constraints.txt"
if grep -nE '@|://' "$fresh/constraints.txt" >&2; then
    echo "These came from a path, not from an index: nothing was written." >&2
    exit 1
fi
cp "$fresh/constraints.txt" infra/constraints.txt
git --no-pager diff --stat -- infra/constraints.txt 2>/dev/null || true
