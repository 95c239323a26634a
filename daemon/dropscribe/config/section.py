"""What every section of the config file has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Keys(BaseModel):
    """A section of the file; unknown keys are errors."""

    # Sections are checked as parts of the whole file: of it alone a validator is ever needed.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)
