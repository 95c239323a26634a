"""Request parameters, as the config has them and the providers send them."""

from __future__ import annotations

ParamValue = bool | int | float | str | list[str]
"""A request parameter's value. A boolean is sent as ``true``/``false``, a list as a repeated parameter."""
