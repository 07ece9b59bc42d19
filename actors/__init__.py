"""The parts of a run as actors: classes that serve, collect, train, evaluate and store, and the code that starts them.

Only this package may import all others. `actors.system` puts the parts together on Ray, `actors.in_process` without it.
Algorithms belong in `methods` and `training`, HTTP and vLLM in `serve`.
"""
