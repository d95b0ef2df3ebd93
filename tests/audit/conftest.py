"""Where the helpers of these tests lie."""

from __future__ import annotations

import sys
from pathlib import Path

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "search"))
