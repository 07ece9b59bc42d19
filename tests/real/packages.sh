#!/usr/bin/env bash
# What hosts in namespaces need of Debian: sshd, rsync, ip, Redis. Installed without starting any service.
set -euo pipefail
need=()
for pair in sshd:openssh-server ssh:openssh-client rsync:rsync redis-server:redis-server ip:iproute2 pgrep:procps; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || need+=("${pair#*:}")
done
[ ${#need[@]} = 0 ] && exit 0
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${need[@]}"; } >&2
