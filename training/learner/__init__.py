"""The learner: one model, its batches and its optimizer steps, in one process or sharded over several.

Objectives live in training/objectives, files of versions in training/versions. Nothing here imports Ray or vLLM.
"""
