"""Preparation of recordings for their provider, as the rule asks; loaded only if a rule asks for it."""
