"""Time and memory of a call, so that ratios mean something on a shared machine."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, one after the other in turn, so that whatever else the machine does hits all of them.

    On a processor it is the time that this process got, of all threads together; on an accelerator time by the clock. Every
    call is made once before, uncounted.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_seconds(call))
    return seconds


def _seconds(call: Callable[[], object]) -> float:
    start = _now()
    call()
    return _now() - start


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that tensors made during a call take at one time: bytes beside what was there before.

    On an accelerator its allocator is asked; on a processor every allocation is recorded, which slows the call.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = [
            event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"
        ]
    level = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        level += event["args"]["Bytes"]
        peak = max(peak, level)
    return peak
