"""The defenses: one file each."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry

DEFENSES: dict[str, Entry] = {}
