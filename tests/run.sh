#!/usr/bin/env bash
# ./run test [pytest arguments]: style; types beside the pure tests, which leave a core to them; then the real ones.
set -euo pipefail
[ $# -gt 0 ] && exec python -m pytest "$@"
ruff check .
ruff format --check .
pyright &
types=$!
trap 'kill $types 2>/dev/null || true' EXIT
python -m pytest tests/pure -q -rs --durations=10
wait $types
exec python -m pytest tests/real -q -rs --durations=10
