"""Restores and forks whatever the size and the history, each beside a plain cold create in turn."""

import statistics
import time

ROUNDS = 15
SIZES = ((1, "1 MB"), (1000, "1 GB"), (10000, "10 GB"))
DEPTHS = (2, 64)


def timed(call):
    start = time.perf_counter()
    reply = call()
    return reply, (time.perf_counter() - start) * 1e6


def make(daemon, body):
    return daemon.call("POST", "/v1/sandboxes", body)["id"]


def end(daemon, sandbox):
    daemon.call("DELETE", f"/v1/sandboxes/{sandbox}")


def shell(daemon, sandbox, script):
    reply = daemon.call("POST", f"/v1/sandboxes/{sandbox}/exec", {"shell": script})
    if reply["exit_code"] != 0:
        raise SystemExit(f"bench: {script}: {reply['stderr']}")


def compare(daemon, sandbox, snapshot):
    """Medians of a cold create, a restore and a fork (the snapshot in it apart), by turns."""
    times = {"cold_us": [], "restored_us": [], "forked_us": []}
    for _ in range(ROUNDS):
        for key, body in (("cold_us", {"environment": "cold"}), ("restored_us", {"snapshot": snapshot})):
            made, took = timed(lambda body=body: make(daemon, body))
            times[key].append(took)
            end(daemon, made)
        reply = daemon.call("POST", f"/v1/sandboxes/{sandbox}/fork", {"count": 1})
        child = reply["children"][0]
        if "id" not in child:
            raise SystemExit(f"bench: fork: {child}")
        times["forked_us"].append(reply["took_us"])
        end(daemon, child["id"])
    return {key: statistics.median(took) for key, took in times.items()}


def layers_of(daemon, snapshot):
    return len(daemon.get(f"/v1/snapshots/{snapshot}").get("layers", []))


def measure_size(daemon, megabytes):
    """Files of a megabyte that take no room, and at most a hundred of them."""
    sandbox = make(daemon, {"environment": "cold"})
    count = min(megabytes, 100)
    shell(daemon, sandbox, f"mkdir -p /root/d && cd /root/d && for i in $(seq {count}); do "
                           f"truncate -s {megabytes // count * 1000000} f$i && echo $i >> f$i; done")
    taken = daemon.call("POST", f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
    found = compare(daemon, sandbox, taken)
    end(daemon, sandbox)
    return found


def measure_depth(daemon, depth):
    """A snapshot of a restore of a snapshot, and so on; hob flattens what gets deep by itself."""
    sandbox, taken = make(daemon, {"environment": "cold"}), None
    for number in range(depth):
        shell(daemon, sandbox, f"echo {number} > /root/step-{number}")
        taken = daemon.call("POST", f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
        end(daemon, sandbox)
        sandbox = make(daemon, {"snapshot": taken})
    shell(daemon, sandbox, f"test $(ls /root/step-* | wc -l) = {depth}")
    found = compare(daemon, sandbox, taken)
    found["layers"] = layers_of(daemon, taken)
    end(daemon, sandbox)
    return found


def measure(daemon):
    found = [(f"{name}, sparse", measure_size(daemon, megabytes)) for megabytes, name in SIZES]
    for depth in DEPTHS:
        result = measure_depth(daemon, depth)
        found.append((f"a history of {depth} ({result['layers']} layers)", result))
    return found


def print_found(found, row, us):
    for name, result in found:
        cold = result["cold_us"]
        for key, what in (("restored_us", "restore"), ("forked_us", "fork, its snapshot apart")):
            row(f"{what}: {name}: p50"[:60], us(result[key]), f"cold create in turn {us(cold)}",
                f"{(result[key] - cold) / 1000:+.2f} ms")
