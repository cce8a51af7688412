"""The end of the embedded VMM: no signal is slept through, however close to the wait it comes."""

import subprocess
import sys

from tests.harness.checkout import ROOT

ENDINGS = 2000
SIGNALLED = f"""
import os, random, signal, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from supervisor.embedded.ending import Ending

turn = threading.Semaphore(0)

def send():
    while turn.acquire():
        until = time.perf_counter() + random.random() * 1e-4
        while time.perf_counter() < until:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=send, daemon=True).start()
ending = Ending()
for _ in range({ENDINGS}):
    turn.release()
    assert ending.wait()
ending.fail()
assert not ending.wait()
print("ended")
"""


def test_a_signal_just_before_the_wait_ends_it_too() -> None:
    ran = subprocess.run((sys.executable, "-c", SIGNALLED), capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("ended\n", "")
