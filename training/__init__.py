"""How to learn: what is held and drawn (replay, throttle), the step and its objectives, publishing, and the gate.

throttle, replay, gate, gate_simulation and evaluate are pure: they import neither torch nor ray.
"""
