"""The collector: explores leased prompts with the policy, and delivers the outcomes to the buffer.

How a prompt is sampled, scored and selected belongs in `methods`.
"""
