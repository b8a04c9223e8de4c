"""The mathematics: numpy, scipy and scikit-learn only; no Redis, no RQ, no files.

Read in this order: codes, hyperplanes, model, validation, probing, ranking, evaluation.
"""
