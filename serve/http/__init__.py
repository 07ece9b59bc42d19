"""The HTTP app of a replica: keys, limits, routes, serving modes, feedback and the status page (static/).

It imports neither ray nor vllm. Calls to the engine and to the run's actors are passed in.
"""
