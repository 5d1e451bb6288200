"""Services of warm sandboxes with real servers: when a sandbox counts as ready, what happens when one
dies, floods, is slow or never comes up, and what a restarted or killed hobd makes of them."""

import os
import signal
import time

import pytest

from hobtest import Failure, wait_for

WEB = {"name": "web", "run": "exec python3 -m http.server 8000 --bind 127.0.0.1",
       "ready": {"http": "http://127.0.0.1:8000/hello.txt"}}
FETCH = ("python3 -c 'import urllib.request as u; "
         "print(u.urlopen(\"http://127.0.0.1:8000/hello.txt\").read().decode(), end=\"\")'")


def start(machine, services, least=1, most=8, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": most},
                        services=services, **keys)
    machine.build("app")
    machine.start()
    return repository


def services_of(machine, made):
    return {service["name"]: service
            for service in machine.client.get(f"/v1/sandboxes/{made['id']}")["services"]}


def log_of(machine, made, name):
    reply = machine.client.raw("GET", f"/v1/sandboxes/{made['id']}/services/{name}/log")
    assert reply.status == 200, reply.body
    return reply.body.decode()


def test_a_warm_sandbox_has_its_servers(machine):
    start(machine, [WEB], least=2)
    machine.wait_ready("app", 2)
    made = machine.client.create("app")
    assert made["source"] == "warm" and made["services_us"] == 0
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    service = services_of(machine, made)["web"]
    assert service["state"] == "ready" and service["pid"] and service["restarts"] == 0
    assert "GET /hello.txt" in log_of(machine, made, "web")
    # They are hob's own: no command of the user's, and no activity.
    assert machine.client.get(f"/v1/sandboxes/{made['id']}")["execs"] == []
    shown = machine.hob("info", made["id"])
    assert "web ready" in shown.stdout, shown.stdout
    assert "GET /hello.txt" in machine.hob("logs", made["id"]).stdout


def test_a_cold_claim_waits_for_the_servers(machine):
    start(machine, [WEB], least=0)
    made = machine.client.create("app")
    assert made["source"] == "cold" and 0 < made["services_us"] <= made["took_us"]
    assert machine.client.output(made["id"], FETCH) == "hello\n"
