"""Evaluations: a profile, predictions for operators, agreement of numbers, advice."""
