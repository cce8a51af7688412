"""A wall clock that a test sets: for one supervisor and what it starts, and never for the machine.

A time namespace has no CLOCK_REALTIME (time_namespaces(7)), so the C library's functions are put before by LD_PRELOAD.
"""

import shutil
import struct
import subprocess

import pytest

from tests.harness.supervisor_process import Home

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long long *ahead;

__attribute__((constructor)) static void begin(void)
{
    int fd = open(getenv("WALL_CLOCK_AHEAD"), O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED)
        ahead = page;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = syscall(SYS_clock_gettime, clock, time);
    if (!result && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """How far the clock of a home's supervisors is ahead of the machine's; it may be set while they run."""

    def __init__(self, home: Home) -> None:
        """Skips the test where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("a C compiler")
        source, library = home.root / "wall_clock.c", home.root / "wall_clock.so"
        self._ahead = home.root / "wall_clock"
        self.set(0)
        source.write_text(SHIM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
        home.environment |= {"LD_PRELOAD": str(library), "WALL_CLOCK_AHEAD": str(self._ahead)}

    def set(self, hours: float) -> None:
        """Set it so many hours ahead of the machine's, or behind it."""
        mode = "r+b" if self._ahead.exists() else "wb"
        with self._ahead.open(mode) as file:
            file.write(struct.pack("q", round(hours * 3600)))
