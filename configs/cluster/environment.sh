# What every shell on a node needs: `. ~/ratchet/configs/cluster/environment.sh`; set-up has ~/.bashrc do so, which Ray
# reads before each of its commands, `ray stop` of `ray down` among them.
export PATH="${RATCHET_VENV:-$HOME/ratchet/.venv}/bin:$PATH" PYTHONPATH="$HOME/ratchet"
export RAY_AUTH_MODE=token   # the token is ~/.ray/auth_token, the same on all nodes
export RAY_USAGE_STATS_ENABLED=0 RAY_metrics_report_interval_ms=5000
[ ! -f ~/.ray/redis.env ] || . ~/.ray/redis.env   # on a head whose memory outlives it: configs/cluster/redis.sh
