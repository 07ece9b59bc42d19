"""How to improve: what to ask (prompts), what to try (samplers), what it is worth (scorers), what to keep (filters,
selectors), composed into one Method by a recipe, and run by `explore`. Asyncio only: no ray, torch or vllm."""
