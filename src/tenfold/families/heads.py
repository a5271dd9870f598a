"""What a network ends in."""

from __future__ import annotations

from enum import StrEnum


class Head(StrEnum):
    """What is made of the states of the last layer."""

    VOCABULARY = "vocabulary"  # a score of each token: a language model
    CLASSES = "classes"  # a score of each class
    NONE = "none"  # the states themselves, as embeddings
