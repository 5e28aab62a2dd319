"""An environment for Flower's processes: `python -m edgestill.flows.federation.environment FOLDER` makes one.

Flower's requirements exclude this project's tested set (protobuf, fastapi, typer, rich, packaging, starlette, uvicorn,
certifi), and even what Prefect asks for (fastapi). So its environment has those packages in Flower's versions, and
takes all others, torch among them, from the environment that makes it.
"""

import subprocess
import sys
import sysconfig
import venv
from importlib import resources
from pathlib import Path

import edgestill
from edgestill.pipeline.child import environment, interpreter
from edgestill.pipeline.errors import FailedError

_DONE = "flower.txt"  # in the environment, once it is whole


def make_environment(folder: Path) -> Path:
    """Make the environment unless it is there, and return the folder of its commands.

    Raises:
        FailedError: pip cannot install it.
    """
    pins = resources.files("edgestill.flows.federation").joinpath("flower.txt").read_text(encoding="utf-8")
    done, commands = folder / _DONE, Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    if done.is_file() and done.read_text(encoding="utf-8") == pins:
        return commands
    venv.create(folder, with_pip=False, clear=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(pins, encoding="utf-8")
    pip = interpreter("-m", "pip", "--python", str(commands / "python"), "--disable-pip-version-check", "--quiet")
    install = [*pip, "install", "--no-deps", "-r", str(wanted)]
    found = subprocess.run(install, env=environment(), capture_output=True, text=True, check=False)
    if found.returncode:
        raise FailedError(f"pip could not install Flower into {folder}: {found.stderr.strip()[-400:]}")
    # only now: pip would leave out what it saw there
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    beside = [sysconfig.get_path("purelib"), str(Path(edgestill.__file__).resolve().parents[1])]
    (packages / "beside.pth").write_text("\n".join([*beside, ""]), encoding="utf-8")
    wanted.rename(done)
    return commands


if __name__ == "__main__":
    print(make_environment(Path(sys.argv[1])))
