"""Learning methods: prompts to sample from (data), samplers, scorers, filters and selectors. A recipe composes them
into one Method, and `explore` runs it. Asyncio only: imports nothing but core, and no Ray, torch or vLLM.
"""
