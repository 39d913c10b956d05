"""A service that runs away, as a host may have it: raw `podman run`, restarted without end, secrets in every corner."""

from __future__ import annotations

import base64
import json

from tests.parts.booted_machine import BootedMachine
from tests.parts.service_commands import CANARY
from tests.parts.waiting import eventually_now

RUNAWAY = f"""[Unit]
Description=Node commander
StartLimitIntervalSec=0
[Service]
ExecStart=/nix/store/abcdefgh-node-commander/bin/run
Restart=always
RestartSec=20ms
Environment=API_TOKEN={CANARY} MODE=fast
EnvironmentFile=/etc/node-commander.env
KillMode=process
[Install]
WantedBy=multi-user.target
"""
IMAGE = "docker.io/library/node:20"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\\nMIIE{CANARY}\\n-----END RSA PRIVATE KEY-----"
SAYS = f"printf 'starting\\npassword: {CANARY}\\n{PEM}\\nbare {CANARY}-identity\\n'; exec sleep 1000"
SCRIPT = f"""#!/bin/sh
export DB_PASSWORD={CANARY}-in-script
echo "token={CANARY} Authorization: Bearer {CANARY}" >> /tmp/node-commander.log
echo "connected to https://admin:{CANARY}@example.com with {CANARY}"
exec podman run -d --name node-commander -e TOKEN={CANARY} -e PLAIN={CANARY}-env {IMAGE} \\
    sh -c "{SAYS}" node --password {CANARY}
"""
CONFIG = json.dumps({
    "auths": {"registry.example.com": {
        "auth": base64.b64encode(f"robot:{CANARY}-auth".encode()).decode(), "identitytoken": f"{CANARY}-identity",
        "registrytoken": f"{CANARY}-registry", "password": f"{CANARY}-password"}},
    "HttpHeaders": {"X-Meta": f"{CANARY}-header"}, "credHelpers": {"gcr.example.com": "gcloud"},
})  # fmt: skip


def plant_runaway(machine: BootedMachine) -> None:
    """A root-owned unit that runs raw podman from an opaque path, without end, logging into /tmp.

    Its first start leaves a container behind; every other one ends at once, for that has the name.
    """
    machine.run("mkdir", "-p", "/nix/store/abcdefgh-node-commander/bin", "/root/.docker")
    machine.write("/nix/store/abcdefgh-node-commander/bin/run", SCRIPT)
    machine.run("chmod", "755", "/nix/store/abcdefgh-node-commander/bin/run")
    machine.write("/etc/node-commander.env", f"SESSION_SECRET={CANARY}-file\nHARMLESS={CANARY}-harmless\n")
    machine.write("/root/.docker/config.json", CONFIG)
    machine.write("/etc/systemd/system/node-commander.service", RUNAWAY)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "node-commander")
    eventually_now(
        lambda: int(machine.show("node-commander.service", "NRestarts")) > 10, within_s=90, what="it runs away"
    )
    assert machine.podman.containers() == {"node-commander": "running"}
    for words in (("logs", "node-commander"), ("container", "inspect", "node-commander"), ("image", "inspect", IMAGE)):
        assert CANARY in machine.podman(*words), words
