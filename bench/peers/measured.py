"""Runs one command and says what it and everything that it started used, as Linux counts it."""

import ctypes
import dataclasses
import os
import resource
import signal
import subprocess
import time

SAMPLE_S = 0.1
LOOK_S = 0.25
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass
class Used:
    """CPU time is user and system time of all processes; memory is the largest sum of their resident sets."""

    code: int
    cpu_s: float
    wall_s: float
    rss_mib_peak: float


def run(command, log, environment=None, until=None, limit_s=3600):
    """Runs `command` to its end, or until `until()` is true: then it is told to stop, which counts as code 0."""
    # Whatever loses its parent becomes our child, so that the kernel's sum over awaited children misses nothing.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = _children_cpu_s(), time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    peak, next_look, stopped = 0.0, start + LOOK_S, False
    while child.poll() is None:
        peak = max(peak, _tree_rss_mib(child.pid))
        now = time.monotonic()
        if until and not stopped and now >= next_look:
            next_look = now + LOOK_S
            if until():
                stopped = True
                _signal(child.pid, signal.SIGTERM)
                start_of_stop = now
        if now - start > limit_s or (stopped and now - start_of_stop > 10):
            _signal(child.pid, signal.SIGKILL)
        time.sleep(SAMPLE_S)
    wall_s = time.monotonic() - start
    _signal(child.pid, signal.SIGKILL)
    _await_orphans()
    code = 0 if stopped else child.returncode
    return Used(code, _children_cpu_s() - before, wall_s, peak)


def _children_cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _signal(group, which):
    try:
        os.killpg(group, which)
    except ProcessLookupError:
        pass


def _await_orphans():
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return
    raise RuntimeError("a process that the command started goes on after it: its CPU time is not known")


def _tree_rss_mib(root):
    """Resident memory of a process and its descendants now. Pages that several share count in each."""
    parents, pages = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # The name, in brackets, may hold anything; the fields begin behind it.
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            continue
        parents[int(entry)] = int(fields[1])
        pages[int(entry)] = int(fields[21])
    tree, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in tree and pid not in tree}
        tree |= more
        grew = bool(more)
    return sum(pages.get(pid, 0) for pid in tree) * resource.getpagesize() / 2**20
