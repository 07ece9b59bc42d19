"""The vLLM engine of one replica: start and stop, answers, versions, and seats for users and background work.

Only this package imports vllm, and it does not import ray. Ratchet's own HTTP app belongs in serve/http.
"""
