#!/bin/sh
# Runs HAProxy with changes to the configuration that Ray writes, for which Ray has no settings:
# - its statistics listen on this machine only;
# - it reads a request whole before it passes it on, because it can retry only such a request;
# - each request gets an id, the same on every try, and commands (/admin/) are never retried;
# - Serve does not watch for clients that disconnect: the replica does, and it stores feedback even so;
# - without replicas clients get a 503 in OpenAI's shape with Retry-After, not the 404 (plain text) of HAProxy or of
#   Serve's own proxy, which answers while the service stops.
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
            s|^frontend http_frontend\$|&\n    http-request set-header x-ratchet-id %[uuid]\n    http-request disable-l7-retry if { path_beg /admin/ }\n    http-request set-header x-request-disconnect-disabled ?1 if { path_beg /v1/ }\n    http-response return $away if { status 404 } { res.hdr(content-type) -m beg text/plain }\n    http-after-response set-header Retry-After 1 if { status 503 }|" "$config"
    for wanted in "bind 127.0.0.1:$RAY_SERVE_HAPROXY_STATS_PORT" http-buffer-request x-ratchet-id disable-l7-retry \
        disconnect-disabled "http-error $away" "request return $away" "response return $away" Retry-After; do
        grep -qF -- "$wanted" "$config" ||
            { echo "haproxy.sh: no place for '$wanted' in $config; Ray's template has changed" >&2; exit 1; }
    done
fi
exec "$RATCHET_HAPROXY" "$@"
