#!/bin/sh
# HAProxy as Ray starts it, with what Ray has no setting for: its statistics answer on this machine only; a request is
# read whole before it is passed on, else it cannot be passed on again, and has an id by which that is known; commands
# are never repeated; Serve need not watch for clients that leave: who answers them does, and feedback is taken in though
# they left; and while there is no replica, whoever asks is told to try again, in OpenAI's shape, not that there is no such
# path.
set -eu
config='' before=''
for argument; do
    [ "$before" = -f ] && config=$argument
    before=$argument
done
error='{"error": {"message": "no replica can answer at the moment; try again", "type": "unavailable_error", "param": null, "code": 503}}'
away="status 503 content-type application/json string '$error'"
if [ -n "$config" ] && ! grep -q http-buffer-request "$config"; then
    sed -i "s/bind \*:$RAY_SERVE_HAPROXY_STATS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_STATS_PORT/
            s/bind :$RAY_SERVE_HAPROXY_METRICS_PORT\$/bind 127.0.0.1:$RAY_SERVE_HAPROXY_METRICS_PORT/
            s/^    option redispatch 1\$/&\n    option http-buffer-request/
            s|^    errorfile 503 .*|    http-error $away|
            s|^    http-request return status 404 .*|    http-request return $away|
            s/^frontend http_frontend\$/&\n    http-request set-header x-ratchet-id %[uuid]\n    http-request disable-l7-retry if { path_beg \/admin\/ }\n    http-request set-header x-request-disconnect-disabled ?1 if { path_beg \/v1\/ }\n    http-after-response set-header Retry-After 1 if { status 503 }/" "$config"
    for wanted in "bind 127.0.0.1:$RAY_SERVE_HAPROXY_STATS_PORT" http-buffer-request x-ratchet-id disable-l7-retry \
        disconnect-disabled "http-error $away" "return $away" Retry-After; do
        grep -qF -- "$wanted" "$config" ||
            { echo "haproxy.sh: no place for '$wanted' in $config; Ray's template has changed" >&2; exit 1; }
    done
fi
exec "$RATCHET_HAPROXY" "$@"
