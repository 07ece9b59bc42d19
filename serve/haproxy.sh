#!/bin/sh
# HAProxy as Ray starts it, with what Ray has no setting for: its statistics answer on this machine only; a request is
# read whole before it is passed on, else it cannot be passed on again; commands are never repeated.
config=$RAY_SERVE_HAPROXY_CONFIG_FILE_LOC
sed -i "s/bind \*:$RAY_SERVE_HAPROXY_STATS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_STATS_PORT/
        s/bind :$RAY_SERVE_HAPROXY_METRICS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_METRICS_PORT/
        s/^    option redispatch 1\$/&\n    option http-buffer-request/
        s/^frontend http_frontend\$/&\n    http-request disable-l7-retry if { path_beg \/admin\/ }/" "$config"
exec "$RATCHET_HAPROXY" "$@"
