#!/usr/bin/env python3
"""Compares snapshots of an agent in a container with snapshots of an agent outside of it, metric by metric.

Arguments: a snapshot of the host, one of the container, and a later one of the host (`perfwatch once --json`). Both
must have the same metrics and instances. A quantity of the container must be between those of the host before and
after it, with a tolerance. Rates of different seconds are not comparable; they must exist in both.
"""

import json
import sys

# Parts that describe the collecting process or single processes.
OWN_PARTS = ("agent", "processes.top", "timestamp", "host", "host_id", "sequence", "boot", "interval")
# Quantities that change slowly; all other numbers are rates or shares of the last second.
QUANTITIES = ("total", "used", "available", "free", "cached", "buffers", "size", "inodes", "max", "speed", "boot_time", "uptime", "limit")
# Tolerance: a share of the value, and an absolute minimum in its unit.
MAX_DEVIATION = 0.05
MIN_TOLERANCE = 64 << 20
# Sockets that the container engine opens while it runs a container.
ENGINE_SOCKETS = 32
# Metrics of short-lived kernel objects: an instance may exist in one snapshot only.
TRANSIENT = ("processes.", "tcp.", "sockets.")


def flatten(value, path=""):
    """Numbers and texts by their dotted path."""
    if isinstance(value, dict):
        result = {}
        for key, child in value.items():
            result |= flatten(child, f"{path}.{key}" if path else key)
        return result
    return {path: value}


def is_compared(path):
    return not any(path == part or path.startswith(f"{part}.") for part in OWN_PARTS)


def is_quantity(path):
    return path.rsplit(".", 1)[-1] in QUANTITIES


def main():
    before, container, after = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:4])
    problems = []
    if container.get("errors"):
        problems.append(f"errors of collectors in the container: {container['errors']}")
    values = [{path: value for path, value in flatten(item).items() if is_compared(path)} for item in (before, container, after)]
    first, inside, last = values
    for path in sorted(set(first) & set(last)):
        if path not in inside and not path.startswith(TRANSIENT):
            problems.append(f"{path}: missing in the container")
    for path in sorted(set(inside) - set(first) - set(last)):
        if not path.startswith(TRANSIENT):
            problems.append(f"{path}: only in the container")
    common = [path for path in sorted(set(first) & set(inside) & set(last))]
    equal = quantities = 0
    for path in common:
        low, high = sorted((first[path], last[path])) if isinstance(first[path], (int, float)) else (first[path], last[path])
        value = inside[path]
        if not isinstance(value, (int, float)):
            if value not in (first[path], last[path]):
                problems.append(f"{path}: {value!r} in the container, {first[path]!r} outside")
            continue
        equal += low <= value <= high
        if is_quantity(path):
            quantities += 1
            tolerance = max(abs(high) * MAX_DEVIATION, MIN_TOLERANCE if abs(high) > MIN_TOLERANCE else abs(high) * MAX_DEVIATION + 2)
            if path.startswith("sockets."):
                tolerance += ENGINE_SOCKETS
            if not low - tolerance <= value <= high + tolerance:
                problems.append(f"{path}: {value} in the container, {low} to {high} outside")
    print(f"{len(common)} values in both, {equal} between those outside, {quantities} quantities within the tolerance or reported")
    for problem in problems:
        print(problem)
    # A comparison of nothing is no success.
    return 1 if problems or quantities < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
