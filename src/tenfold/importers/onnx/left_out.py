"""Standard ops that Tenfold does not import, with the reason. Everything else of ai.onnx it
does.
"""

from __future__ import annotations

from collections.abc import Mapping

_SEQUENCE = "sequences of tensors have no place on an accelerator"
_OPTIONAL = "optional values are a matter of the host program"
_STRING = "strings are a matter of the host program"

LEFT_OUT: Mapping[str, str] = {
    "ConcatFromSequence": _SEQUENCE,
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
    "Optional": _OPTIONAL,
    "OptionalGetElement": _OPTIONAL,
    "OptionalHasElement": _OPTIONAL,
    "RegexFullMatch": _STRING,
    "StringConcat": _STRING,
    "StringNormalizer": _STRING,
    "StringSplit": _STRING,
}
