"""Writes docs/schema.json: the JSON schema of what `tenfold VERB --json` says.

python docs/schema.py docs/schema.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tenfold.report.documents import schema

if __name__ == "__main__":
    text = json.dumps(schema(), indent=1) + "\n"
    Path(sys.argv[1]).write_text(text, encoding="utf-8")
