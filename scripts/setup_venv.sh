# Sourced by quickstart.sh and test.sh with a requirements file as argument: enters the project's root, makes .venv
# and installs the file's packages there, once per content of the file. Sets PYTHON.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
if [ ! -x "$PYTHON" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: python3 is missing or older than 3.10; install a newer one (and its venv module)" >&2
        exit 2
    }
    python3 -m venv .venv || {
        rm -rf .venv
        echo "error: python3 cannot make a virtual environment; install its venv module (python3-venv)" >&2
        exit 2
    }
fi
stamp=.venv/installed-$1
if ! cat requirements.txt "$1" | cmp -s - "$stamp"; then
    echo "installing $1 into .venv (several GB the first time)"
    "$PYTHON" -m pip install --disable-pip-version-check -r "$1"
    cat requirements.txt "$1" >"$stamp"
fi
