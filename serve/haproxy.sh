#!/bin/sh
# HAProxy as Ray starts it, but its statistics answer on this machine only: Ray has no setting for that.
config=$RAY_SERVE_HAPROXY_CONFIG_FILE_LOC
sed -i "s/bind \*:$RAY_SERVE_HAPROXY_STATS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_STATS_PORT/
        s/bind :$RAY_SERVE_HAPROXY_METRICS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_METRICS_PORT/" "$config"
exec "$RATCHET_HAPROXY" "$@"
