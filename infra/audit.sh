#!/bin/sh
# What PyPI knows against the locked versions. Called by `make audit`, which fails by it, and by `make check`, which shows
# it: what is found overnight is no fault of a change. Where PyPI does not tell, or without pip-audit, it says so.
set -eu
cd "$(dirname "$0")/.."
service=https://pypi.org/pypi
if ! .venv/bin/python -c 'import pip_audit' 2>/dev/null; then
    echo "The locked versions were not audited: pip-audit is not installed (make setup)."
elif ! .venv/bin/python -c 'if True:
    import signal, sys, urllib.request
    signal.alarm(8)  # also if names are not resolved
    urllib.request.urlopen(sys.argv[1], timeout=5).read().index(b"vulnerabilities")' "$service/pip/24.0/json" >/dev/null 2>&1; then
    echo "The locked versions were not audited: $service does not say what is known of a version."
else
    .venv/bin/python -m pip_audit --requirement infra/constraints.txt --no-deps --disable-pip --progress-spinner off
fi
