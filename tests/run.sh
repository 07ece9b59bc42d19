#!/usr/bin/env bash
# ./run test [pytest arguments]: style; types beside the pure tests, which leave a core to them; then the real ones.
set -euo pipefail
[ $# -gt 0 ] && exec python -m pytest "$@"
ruff check .
ruff format --check .
pyright &
types=$!
trap 'kill $types 2>/dev/null || true' EXIT
python -m pytest tests/pure -q --durations=10
python tests/mutants.py --sample 40 --seed "$(date +%F)" --most 0.1   # does a wrong line fail a test? other lines each day
wait $types
exec python -m pytest tests/real -q --durations=10
