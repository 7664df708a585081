#!/usr/bin/env bash
# Makes .venv and installs the packages of requirements.txt there, and nothing else; once done, it only says so.
set -euo pipefail
. "$(dirname "$0")/setup_venv.sh" requirements.txt
echo "installed; enter it with: source .venv/bin/activate"
