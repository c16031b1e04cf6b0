"""The parts of `tools/attack.py`: surfaces, what damages their data, what watches their progress, and the judgement."""
