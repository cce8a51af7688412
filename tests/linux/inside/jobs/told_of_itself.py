import sys
sys.path.insert(0, __file__.rpartition("/")[0])
from api import *
images("told")
run = supervisor()
call("POST", "/instances", {"name": "src", "image": "told", "metadata": {"role": "source"}})
say(call("GET", "/instances/src/wait?state=Running&ready=true&timeout=50s"))
say(call("GET", "/instances/src/wait?state=Running&ready=true&timeout=50s"))
print(console("src")[-600:])
call("POST", "/instances/src/standby", {})
say(call("POST", "/instances/src/fan-out", {"count": 8, "concurrency": 2, "name_prefix": "web", "readiness": "console:^tick .* flushed web", "metadata": {"role": "worker", "n": [1, 2]}}, quiet=True)[0])
for n in range(1, 9):
    _, told = call("GET", f"/instances/web-{n}/wait?state=Running&ready=true&timeout=50s", quiet=True)
    one = get(f"web-{n}")
    lines = [line for line in console(f"web-{n}").splitlines() if "tick" in line]
    print(f"web-{n} number {one['number']} ready {told.get('ready')} {one['ready_ms']:.0f} ms metadata {one['metadata']}:", *lines[:2], sep="\n   ", flush=True)
for name in ["src"]:
    call("DELETE", f"/instances/{name}?cascade=true")
