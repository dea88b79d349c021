"""How many processor cores this process may use."""

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path('/sys/fs/cgroup')
QUOTAS = (['cpu.max'], ['cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us'])  # of version 2 and of version 1


def usable_cores():
    """The cores that a scheduler left to this process, or fewer if its container has a quota (docker run --cpus=2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    for files in QUOTAS:
        with suppress(OSError, ValueError):  # without a quota version 2 says 'max' and version 1 says -1
            quota, period = map(int, ' '.join((CGROUPS / name).read_text(encoding='utf-8') for name in files).split())
            cores = min(cores, max(1, quota // period)) if quota > 0 else cores
    return cores
