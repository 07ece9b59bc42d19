"""Reads prompts and questions from files, deals prompts out by place, and keeps held-out questions out of training.

No model is called here, and no answer gets into a Prompt.
"""
