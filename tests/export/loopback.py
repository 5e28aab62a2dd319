"""Devices of tests: a real SSH server on loopback, and an adb double.

The server is asyncssh's own: it needs no sshd and no rights. Both run the shell of this machine, with a home folder and
a PATH of their own. `python3` there is a stand-in that writes a valid profile at once, of constant latencies by format,
or this Python itself.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import asyncssh

from edgestill.export.targets.config import TargetConfig
from edgestill.pipeline.timing.latency_statistics import describe_samples

STAND_IN = """
import hashlib, json, os, subprocess, sys, time
arguments, here = sys.argv[1:], os.path.dirname(os.path.abspath(__file__))
state = json.load(open(os.path.join(here, "state.json")))
if arguments[0] == "-c":
    if "onnxruntime" in arguments[1]:
        for key in ("python", "numpy", "onnxruntime"):
            if state[key]:
                print(key + "=" + state[key])
            elif key != "python":
                print(key + "_error=No module named " + key)
        for name, version in state["others"].items():
            print("runtime_" + name + "=" + version)
    else:
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1])
    sys.exit()
time.sleep(state["seconds"])
if state["error"]:
    print("error: " + state["error"], file=sys.stderr)
    sys.exit(1)
given = dict(zip(arguments[2::2], arguments[3::2]))
threads, repeats = [int(n) for n in given["--threads"].split(",")], int(given["--repeats"])
card, document = json.load(open("bundle.json")), state["document"]
document["method"] = {"duration_s": float(given["--duration"]), "repeats": repeats, "examples": "random"}
document["architecture"] = card["architecture"]
for name, model in card["models"].items():
    data, ms = open(model["file"], "rb").read(), state["ms"].get(model["format"], 1.0)
    document["models"][name] = {"file": model["file"], "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data), "format": model["format"], "precision": model["precision"], "inputs": [], "cold": []}
    n, shape = 70, state["summary"]
    for count in threads:
        document["results"].append({"model": name, "batch": 1, "threads": count, "throughput_per_s": 1e3 / ms,
            "p50_spread": 0.0, "p90_spread": 0.0, "energy_mj": None,
            "summary": {"n": n, "mean_ms": ms, "min_ms": ms, "max_ms": ms, "cv": 0.0,
                "percentiles": {key: ms for key in shape["percentiles"]},
                "bounds": {key: [ms, ms] for key in shape["bounds"]}},
            "processes": [{"p50_ms": ms, "p90_ms": ms, "drift": None, "samples_ms": [ms] * n}]})
json.dump(document, open(given["--out"], "w"))
"""
_DEVICE = {"name": "Board 5", "cpu": "Cortex-A76", "architecture": "aarch64", "cores": 4}
_LOAD = {"average_before": 0.1, "core_p10_ms": 1.0, "core_p90_ms": 1.0}
_RUNTIME = {"name": "onnxruntime 1.20.0", "provider": "CPUExecutionProvider", "graph_optimization": "all",
            "inter_op_threads": 1, "spinning": True, "numpy": "2.0"}  # fmt: skip


def profile_of(ms: dict[str, float]) -> dict[str, Any]:
    """A profile of models whose every call takes these milliseconds, as JSON data; a model's content is its name."""
    made = {"models": {}, "results": []}
    for name, value in ms.items():
        samples = [value] * 70
        made["models"][name] = {
            "file": f"{name}.onnx", "sha256": hashlib.sha256(name.encode()).hexdigest(), "size_bytes": len(name),
            "format": name, "inputs": [], "cold": [],
        }  # fmt: skip
        made["results"].append({
            "model": name, "batch": 1, "threads": 1, "summary": describe_samples(samples), "throughput_per_s": 1e3,
            "p50_spread": 0.0, "p90_spread": 0.0, "energy_mj": None,
            "processes": [{"p50_ms": value, "p90_ms": value, "drift": None, "samples_ms": samples}],
        })  # fmt: skip
    method = {"duration_s": 1.0, "repeats": 1}
    return {**_EMPTY, "device": _DEVICE, "runtime": _RUNTIME, "loads": [_LOAD], "method": method, **made}


_EMPTY = {"schema": "edgestill.profile/1", "created": "now", "remeasure": "again", "architecture": None,
          "comparisons": [], "energy": "not measured", "warnings": []}  # fmt: skip


class Home:
    """The device's own side: its home folder, its commands, and its stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin = folder / "home", folder / "bin"
        for path in (self.home, self.bin):
            path.mkdir(parents=True)
        self.state = {
            "python": "3.11.2", "numpy": "2.0.0", "onnxruntime": "1.20.0", "seconds": 0.0, "error": "",
            "others": {}, "ms": {}, "summary": describe_samples([1.0] * 70),
            "document": profile_of({}),
        }  # fmt: skip
        (self.bin / "stand_in.py").write_text(STAND_IN)
        self.be()
        self.command("python3", f'exec {sys.executable} -S -E {self.bin}/stand_in.py "$@"')

    def be(self, **changes) -> None:
        """Change the stand-in's state."""
        self.state |= changes
        (self.bin / "state.json").write_text(json.dumps(self.state))

    def command(self, name: str, script: str) -> None:
        """Give the device a command of its own."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin"}

    @property
    def root(self) -> Path:
        return self.home / ".edgestill-target"

    def left(self) -> list[str]:
        """Everything in our folder there, the store of whole files left out."""
        found = [str(path.relative_to(self.root)) for path in self.root.rglob("*")]
        whole = {f"files/{path.name}" for path in self.root.glob("files/*") if path.suffix != ".part"}
        return sorted(set(found) - whole - {"files", ".edgestill"})


class Loopback(Home):
    """A device by SSH. Its link breaks once at each `cut`: a piece of a command -> moment, and which such command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commands: list[str] = []
        self.cut: dict[str, str] = {}
        self.is_gone = False
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        client = asyncssh.generate_private_key("ssh-ed25519")
        self.identity, self.known_hosts = folder / "id", folder / "known_hosts"
        client.write_private_key(self.identity)
        client.write_public_key(folder / "authorized")
        self._authorized = str(folder / "authorized")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        self.port = self._server.get_port()
        self.accept(self._key)

    def accept(self, key: asyncssh.SSHKey) -> None:
        """Let the client know a host key as this device's."""
        public = key.export_public_key().decode().strip()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")

    def target(self, **changes) -> TargetConfig:
        where = f"ssh://tester@127.0.0.1:{self.port}"
        given = {
            "name": "pi5",
            "where": where,
            "identity": self.identity,
            "known_hosts": self.known_hosts,
            "repeats": 1,
        }
        return TargetConfig(**given | changes)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        time.sleep(0.02)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _listen(self):
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self._key], authorized_client_keys=self._authorized,
            process_factory=self._process, encoding=None,
        )  # fmt: skip

    async def _process(self, process) -> None:
        command = process.command
        self.commands.append(command)
        moment = "before" if self.is_gone else self._cut_at(command)
        if moment == "before":
            process.get_extra_info("connection").abort()
            return
        given = await process.stdin.read()
        if moment == "middle":  # a file arrives in part
            given = given[: len(given) // 2]
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, env=self.environment(), cwd=self.home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await child.communicate(given)
        if moment:
            process.get_extra_info("connection").abort()
            return
        process.stdout.write(out)
        process.stderr.write(err)
        process.exit(child.returncode)

    def _cut_at(self, command: str) -> str:
        for piece in [piece for piece in self.cut if piece in command]:
            moment, _, which = self.cut[piece].partition(" ")
            if sum(piece in one for one in self.commands) == int(which or 1):
                del self.cut[piece]
                return moment
        return ""


ADB = """
state={state}
[ "$1" = -s ] || {{ echo "adb: more than one device/emulator" >&2; exit 1; }}
serial=$2; shift 2
if [ "$1" = devices ]; then echo "List of devices attached"; cat "$state/devices"; echo; exit 0; fi
echo "$*" >> "$state/calls"
if [ -s "$state/cut" ] && echo "$*" | grep -qF "$(cat "$state/cut")"; then
  rm "$state/cut"; echo "adb: device '$serial' not found" >&2; exit 1; fi
grep -q "^$serial .*device product" "$state/devices" || {{ echo "adb: device '$serial' not found" >&2; exit 1; }}
case "$1" in
shell) shift; HOME={home} PATH={bin}:/usr/bin:/bin exec /bin/sh -c "$*" ;;
push) if cp "$2" "$3" 2>/dev/null; then echo "$2: 1 file pushed, 0 skipped. 1.0 MB/s"; else
  echo "adb: error: failed to copy '$2' to '$3': remote couldn't create file: No space left" >&2; exit 1; fi ;;
pull) if cp "$2" "$3" 2>/dev/null; then echo "$2: 1 file pulled, 0 skipped. 1.0 MB/s"; else
  echo "adb: error: failed to stat remote object '$2': No such file or directory" >&2; exit 1; fi ;;
*) exit 1 ;;
esac
"""


class AdbDouble(Home):
    """`adb` as the platform tools have it: `devices -l`, `shell`, `push`, `pull`, their words and exit codes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._state = folder / "adb"
        self._state.mkdir()
        self.client = folder / "client"
        self.client.mkdir()
        (self.client / "adb").write_text("#!/bin/sh\n" + ADB.format(state=self._state, home=self.home, bin=self.bin))
        (self.client / "adb").chmod(0o755)
        self.shows("R58M12ABC              device product:beyond model:SM_G973F device:beyond1 transport_id:1")

    def shows(self, line: str) -> None:
        (self._state / "devices").write_text(f"{line}\n")

    def cut(self, piece: str) -> None:
        (self._state / "cut").write_text(piece)

    def path(self) -> str:
        return f"{self.client}{os.pathsep}{os.environ['PATH']}"

    def target(self, **changes) -> TargetConfig:
        return TargetConfig(**{"name": "phone", "where": "adb:R58M12ABC", "folder": str(self.home)} | changes)
