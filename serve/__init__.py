"""Serves the policy: the vLLM engine (engine/), the HTTP app (http/), Ray Serve replicas (replica/), and transfer of
version files to other nodes (weights/).

May import `core` only: no training, no learning methods, no actors. Other parts of a run reach it through ports.
"""
