#!/usr/bin/env bash
# ./run test [pytest arguments]: style; types and the pure tests, on all cores; then the real ones, each alone.
set -euo pipefail
[ $# -gt 0 ] && exec python -m pytest "$@"
ruff check .
ruff format --check .
pyright &
types=$!
trap 'kill $types 2>/dev/null || true' EXIT
python -m pytest tests/pure -q -rs --durations=10 -n logical --maxprocesses 4
wait $types
exec python -m pytest tests/real -q -rs --durations=10
