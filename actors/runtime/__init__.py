"""How actors run and call each other: ports, RPC, placement, priority, supervision, a local Ray cluster.

Nothing here knows what a particular actor does. Private names of Ray are allowed in `local_cluster`
and `forked_worker` only.
"""
