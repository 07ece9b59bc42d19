"""`python -m actors.cli.forget_cluster`: deletes the cluster's state from Ray's Redis (address from the environment).

It is a separate process because Ray 2.60 aborts the process on a wrong password."""

import os
import sys

from ray._private.gcs_utils import cleanup_redis_storage
from ray._private.services import get_address

if __name__ == "__main__":
    host, port, tls = get_address(os.environ["RAY_REDIS_ADDRESS"])
    namespace = os.environ.get("RAY_external_storage_namespace", "default")  # noqa: SIM112  Ray's own spelling
    done = cleanup_redis_storage(host, int(port), os.environ.get("RAY_REDIS_PASSWORD", ""), tls, namespace)
    sys.exit(not done)
