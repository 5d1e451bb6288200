"""For tests/bench/run: claims of sandboxes that have a server, and the first command after them with and
without a prime. Claims of the two environments take turns, so that both see the same machine."""

import subprocess
import time

ROUNDS = 20
# A Python program of many files, not compiled yet: what a first test run finds.
APP = """mkdir -p /srv/app && cd /srv/app && for i in $(seq 200); do
  printf 'import json, re\\n' > m$i.py
  for k in $(seq 20); do
    printf 'def f%d(x):\\n    return [re.sub("a", "b", str(y)) for y in range(x)]\\n' $k
  done >> m$i.py
  echo "import m$i" >> all.py
done"""
COMMAND = "cd /srv/app && python3 -c 'import all'"
KINDS = {"plain": "", "primed": f"prime: {{run: \"{COMMAND}\"}}\n"}


def environment(name, extra):
    return (f"name: {name}\nbase: host\npool: {{min: 3, max: 40}}\nschedule: {{every: 0}}\n"
            "steps:\n  - name: app\n    run: |\n" + "".join(f"      {line}\n" for line in APP.splitlines()) +
            "services:\n  - name: web\n    run: exec python3 -m http.server 8000 --bind 127.0.0.1\n"
            "    ready: {http: \"http://127.0.0.1:8000/\"}\n" + extra)


def measure(daemon, wait_until, median):
    for name, extra in KINDS.items():
        daemon.write(f"{daemon.environments}/{name}.yaml", environment(name, extra))
        subprocess.run([f"{daemon.build}/hob-build", "--config", daemon.config, name], check=True,
                       stdout=subprocess.DEVNULL)
    times = {name: {"claim": [], "command": [], "total": []} for name in KINDS}
    for _ in range(ROUNDS):
        for name in KINDS:
            wait_until(f"ready sandboxes of {name}", lambda name=name: daemon.ready(name) >= 3)
            start = time.perf_counter()
            made = daemon.call("POST", "/v1/sandboxes", {"environment": name})
            claimed = time.perf_counter()
            done = daemon.call("POST", f"/v1/sandboxes/{made['id']}/exec", {"shell": COMMAND})
            end = time.perf_counter()
            if made["source"] != "warm" or done["exit_code"] != 0:
                raise SystemExit(f"bench: {name}: {made['source']}, {done}")
            times[name]["claim"].append((claimed - start) * 1e6)
            times[name]["command"].append((end - claimed) * 1e6)
            times[name]["total"].append((end - start) * 1e6)
            daemon.call("DELETE", f"/v1/sandboxes/{made['id']}")
    cold = []
    for name in KINDS:
        text = environment(name, KINDS[name]).replace("min: 3", "min: 0")
        daemon.write(f"{daemon.environments}/{name}.yaml", text)
        wait_until(f"no ready sandboxes of {name}", lambda name=name: daemon.ready(name) == 0)
    for _ in range(ROUNDS // 2):
        made = daemon.call("POST", "/v1/sandboxes", {"environment": "plain"})
        cold.append((made["took_us"], made["services_us"]))
        daemon.call("DELETE", f"/v1/sandboxes/{made['id']}")
    result = {name: {f"{key}_us": median(values) for key, values in kinds.items()}
              for name, kinds in times.items()}
    result["cold"] = {"took_us": median([took for took, _ in cold]),
                      "services_us": median([services for _, services in cold])}
    return result


def rows(result, row, us):
    plain, primed, cold = result["plain"], result["primed"], result["cold"]
    row("claim with a server: p50", us(primed["claim_us"]))
    row("claim to end of first command, primed: p50", us(primed["total_us"]),
        f"not primed {us(plain['total_us'])}", f"{plain['total_us'] / primed['total_us']:.2f}x")
    row("cold claim with a server: p50", us(cold["took_us"]), f"its services {us(cold['services_us'])}")
