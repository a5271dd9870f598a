"""Chips of which hardly more than four figures are known: a roofline."""
