#!/usr/bin/env bash
# Checks form and types and runs the test suite in .venv, which it makes first if need be, in two processes of one
# thread each. --slow adds the tests marked slow; everything else goes to pytest, as in:
#     bash scripts/test.sh tests/losses -k ties
# With other versions of Python and the packages (setup_venv.sh):
#     ALRP_PYTHON=python3.10 ALRP_REQUIREMENTS=requirements-lowest.txt bash scripts/test.sh
set -euo pipefail
. "$(dirname "$0")/setup_venv.sh" requirements-dev.txt
marker="not slow"
if [ "${1:-}" = "--slow" ]; then
    marker="slow or not slow"
    shift
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
[ -n "${ALRP_REQUIREMENTS:-}" ] || "$PYTHON" -m mypy # other versions of the packages have other types
export OMP_NUM_THREADS=1
exec "$PYTHON" -m pytest -m "$marker" -n 2 --dist loadfile "$@"
