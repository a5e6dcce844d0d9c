"""Components of a recurrence -> the same, those of which the same is told as one.

    p.lag1: taps, p.lag2: taps, .. p.lag19: taps   ->   p.lag1, .., p.lag19: of each, taps
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

FEW = 2  # so many are told one by one


def alike(components: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The components as `facts` has them; more than a few that differ in the name of their state alone are one."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for one in components:
        name = one["states"][0].partition("[")[0]
        words = (one["states"][0], one["class"], *one["transition"].values())
        key = "\n".join(_unnamed(text, name) for text in words)
        alone = len(one["states"]) == 1 and not one["claims"]
        runs.setdefault(key if alone else ", ".join(one["states"]), []).append(one)
    return [one for run in runs.values() for one in (run if len(run) <= FEW else [_one(run)])]


def _one(run: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    first, last = run[0]["states"][0], run[-1]["states"][0]
    name = first.partition("[")[0]
    told = [_unnamed(text, name) for text in run[0]["transition"].values()]
    kind = f"of each, {_unnamed(run[0]['class'], name)}"
    return {"states": [first, "..", last], "class": kind, "transition": {"each": told[0]} if told else {}, "claims": {}}


def _unnamed(text: str, name: str) -> str:
    """The text, of any state: with "it" for the state's name, which is no part of another word."""
    return re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", "it", text)
