#!/usr/bin/env bash
# A Redis for Ray's head on this machine, so that the cluster outlives the death of the head's processes: on the loopback
# address only, with a password that is made here, every write on disk within a second. Doing it again changes nothing.
set -euo pipefail
umask 077
folder=~/.ray/redis told=~/.ray/redis.env port=${RATCHET_REDIS_PORT:-6380}
command -v redis-server >/dev/null || { sudo apt-get update -q && sudo apt-get install -y -q --no-install-recommends redis-server; }
mkdir -p "$folder"
[ -s "$told" ] || {
    password=$(head -c 32 /dev/urandom | sha256sum | cut -c1-48)
    echo "export RAY_REDIS_ADDRESS=127.0.0.1:$port RAY_REDIS_PASSWORD=$password" >"$told"
}
. "$told"
cat >"$folder/redis.conf" <<EOF
bind 127.0.0.1
port $port
protected-mode yes
requirepass $RAY_REDIS_PASSWORD
dir $folder
appendonly yes
appendfsync everysec
daemonize yes
pidfile $folder/redis.pid
logfile $folder/redis.log
EOF
says() { REDISCLI_AUTH=$RAY_REDIS_PASSWORD redis-cli -p "$port" ping 2>/dev/null || true; }
[ "$(says)" = PONG ] && exit 0
redis-server "$folder/redis.conf"
for _ in $(seq 100); do
    [ "$(says)" = PONG ] && exit 0
    sleep 0.1
done
echo "redis.sh: no answer on port $port; see $folder/redis.log" >&2
exit 1
