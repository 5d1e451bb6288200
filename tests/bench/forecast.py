"""The forecast's part of `make bench`: traces of arrivals replayed by `hob simulate`. The traces are not in
the repository: HOB_TRACES names a folder of them (*.csv, *.csv.gz), and without it nothing is measured."""

import glob
import json
import math
import os
import subprocess

START_TIMES = ("5s", "30s")
HIT_RATE = "0.95"


def measure(build):
    """For each trace and start time: the idle cost at the hit rate, as a multiple of the clairvoyant's and of
    the best fixed sizes'. None where the policy does not reach it."""
    found = []
    for path in sorted(glob.glob(os.path.join(os.environ.get("HOB_TRACES", ""), "*.csv*"))
                       if os.environ.get("HOB_TRACES") else []):
        for start in START_TIMES:
            done = subprocess.run([os.path.join(build, "hob-simulate"), "--json", "--hit-rate", HIT_RATE,
                                   "--start-time", start, path], stdout=subprocess.PIPE, check=True)
            policies = json.loads(done.stdout)["policies"]
            ready = {name: policy["ready_at_hit_rate"] for name, policy in policies.items()}
            forecast = ready["forecast"]
            found.append({"trace": os.path.basename(path), "start": start, "ready": ready,
                          "hits": policies["forecast"]["hit_rate"],
                          "times_clairvoyant": forecast and forecast / ready["clairvoyant"],
                          "times_fixed": forecast and forecast / ready["fixed"]})
    return found


def mean(found, key):
    """The geometric mean of those that are known."""
    known = [math.log(one[key]) for one in found if one[key]]
    return math.exp(sum(known) / len(known)) if known else None


def print_found(found):
    for one in found:
        ratios = [f"{one[key]:.2f}x" if one[key] else "-" for key in ("times_clairvoyant", "times_fixed")]
        print(f"  {one['trace'][:44]:44} {one['start']:>4}  hits {one['hits']:.3f}  of the clairvoyant's cost "
              f"{ratios[0]:>6}  of the best fixed {ratios[1]:>6}")
    if found:
        print(f"  geometric mean: {mean(found, 'times_clairvoyant'):.2f}x and {mean(found, 'times_fixed'):.2f}x")
