#!/usr/bin/env bash
# patiently.sh ray start ...   Up to four times: on a machine under load Ray's 15 s for its agents are not enough, and an
# autoscaler does not come back to a worker of one's own whose first start failed (Ray 2.60).
for _ in 1 2 3; do
    "$@" && exit 0
    ray stop --force >/dev/null 2>&1
    sleep 5
done
exec "$@"
