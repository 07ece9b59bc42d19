#!/usr/bin/env bash
# ./run test [pytest arguments]: style, types, pure tests, then the real ones.
set -euo pipefail
[ $# -gt 0 ] && exec python -m pytest "$@"
ruff check .
ruff format --check .
pyright
exec python -m pytest tests -q --durations=10
