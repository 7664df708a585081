# Sourced by quickstart.sh and test.sh with requirements.txt or requirements-dev.txt as argument: enters the project's
# root, makes .venv and installs the packages of requirements.txt there, and those of the other file, once per content.
# Sets PYTHON. Environment:
#   ALRP_PYTHON        the interpreter that .venv is made with, instead of python3
#   ALRP_REQUIREMENTS  the file to install from, instead of requirements.txt
cd "$(dirname "${BASH_SOURCE[0]}")/.."
base_python="${ALRP_PYTHON:-python3}"
version='import sys; print("%d.%d" % sys.version_info[:2])'
PYTHON=.venv/bin/python
if [ ! -x "$PYTHON" ]; then
    "$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $base_python is missing or older than 3.10; install a newer one (and its venv module)" >&2
        exit 2
    }
    "$base_python" -m venv .venv || {
        rm -rf .venv
        echo "error: $base_python cannot make a virtual environment; install its venv module (python3-venv)" >&2
        exit 2
    }
elif [ -n "${ALRP_PYTHON:-}" ] && [ "$("$base_python" -c "$version")" != "$("$PYTHON" -c "$version")" ]; then
    echo "error: .venv is of another Python than ALRP_PYTHON=$ALRP_PYTHON; remove .venv, and it is made anew" >&2
    exit 2
fi
files=("${ALRP_REQUIREMENTS:-requirements.txt}")
[ "$1" = requirements.txt ] || files+=("$1")
stamp=.venv/installed-$1
if ! cat "${files[@]}" | cmp -s - "$stamp"; then
    echo "installing ${files[*]} into .venv (several GB the first time)"
    "$PYTHON" -m pip install --disable-pip-version-check "${files[@]/#/--requirement=}"
    cat "${files[@]}" >"$stamp"
fi
