"""The documents of ``--json``: records by verb, and their JSON schema.

``VERSION`` is the first key of every document: it grows when a key goes or changes its meaning, not
when one comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

import tenfold
from tenfold.report.documents.chips import (
    ChipDocument,
    ChipsDocument,
    ModelDocument,
    ModelsDocument,
)
from tenfold.report.documents.part import Part
from tenfold.report.documents.plan import PlanDocument, PricesDocument
from tenfold.report.documents.profile import CompileDocument, ProfileDocument, StepsDocument
from tenfold.report.documents.serving import LoadtestDocument, ScenariosDocument, SimulateDocument
from tenfold.report.documents.training import TrainDocument
from tenfold.report.documents.trust import (
    CalibrateDocument,
    EstimateDocument,
    LessonsDocument,
    PredictDocument,
    ScaleSimDocument,
    ValidateDocument,
)

VERSION = 1

VERBS: Mapping[str, tuple[type[Part], ...]] = {
    "calibrate": (CalibrateDocument,),
    "chips": (ChipsDocument, ChipDocument),
    "compile": (CompileDocument, StepsDocument),
    "estimate": (EstimateDocument,),
    "lessons": (LessonsDocument,),
    "loadtest": (LoadtestDocument,),
    "models": (ModelsDocument, ModelDocument),
    "plan": (PlanDocument,),
    "predict": (PredictDocument,),
    "prices": (PricesDocument,),
    "profile": (ProfileDocument,),
    "scalesim": (ScaleSimDocument,),
    "simulate": (SimulateDocument, ScenariosDocument),
    "train": (TrainDocument,),
    "validate": (ValidateDocument,),
}


def plain(document: Part) -> dict[str, Any]:
    """The document as dictionaries and lists, its version first. Raises TypeError for one that no
    verb has.
    """
    if type(document) not in {d for documents in VERBS.values() for d in documents}:
        raise TypeError(f"{type(document).__name__} is a part of a document")
    head = {"version": VERSION, "tenfold": tenfold.__version__}
    return head | dict(msgspec.to_builtins(document))


def schema() -> dict[str, Any]:
    """The JSON schema of all documents, which `docs/schema.json` publishes: any of them, by name
    under ``$defs``.
    """
    documents = [d for found in VERBS.values() for d in found]
    refs, components = msgspec.json.schema_components(documents, ref_template="#/$defs/{name}")
    for document in documents:
        own = components[document.__name__]
        head = {"version": {"const": VERSION}, "tenfold": {"type": "string"}}
        own["properties"] = head | own["properties"]
        own["required"] = [*head, *own["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What tenfold says with --json",
        "anyOf": list(refs),
        "$defs": dict(sorted(components.items())),
    }
