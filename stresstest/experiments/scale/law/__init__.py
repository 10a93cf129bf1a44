"""The law `lr ~ size^b` of a stability boundary: its fit to brackets, its prediction, and its own check.

Learning rates and sizes are in log2 (octaves) inside, in the user's units outside. Only numpy is imported.
"""
