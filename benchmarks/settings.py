"""Every choice of every setting, alone, in a tiny run: is it computed, or refused before anything is trained?

    python benchmarks/settings.py [--only distill search.strategy] [--every 1] [--out settings.csv]

The choices are those of the typed configuration: each name of a plug-in, each word of a list of words, both values of
a switch, none where none is allowed, and the lowest value of each number. Settings of data and teachers that need
files are left out. Each run is a process of its own, on the digits. The table says how each ended: `ran`, `refused`
(before the search), `late` (refused after the teacher was trained), `mistake` (an error that is ours), `slow` (ended
after --seconds). Exit code 1: a mistake or a late refusal.
"""

import argparse
import csv
import io
import multiprocessing
import sys
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt
from nights import SETTINGS
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgestill.export.formats import FORMATS
from edgestill.flows.config import RunConfig
from edgestill.flows.runner import compress
from edgestill.pipeline.errors import UserError, first_line

LEFT_OUT = ("data", "teacher.weights", "device.studies", "device.accelerator", "targets", "trackers", "smoke")
NAMES = "name"  # of a plug-in in a table


class Try(NamedTuple):
    """A setting, and how a run with it ended."""

    setting: str
    ended: str
    said: str


def main() -> int:
    given = _arguments()
    settings = list(dict.fromkeys(choices()))
    chosen = [one for one in settings if not given.only or one.startswith(tuple(given.only))][:: given.every]
    print(f"{len(chosen)} of {len(settings)} settings", flush=True)
    tries = []
    for setting in chosen:
        tries.append(tried(setting, given.seconds))
        if tries[-1].ended != "ran":
            print(f"{tries[-1].ended:8} {setting}: {tries[-1].said}", flush=True)
    print(", ".join(f"{name} {count}" for name, count in Counter(one.ended for one in tries).most_common()))
    if given.out:
        with given.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([Try._fields, *tries])
    return int(any(one.ended in ("mistake", "late") for one in tries))


def choices() -> Iterator[str]:
    """Settings as the command line takes them."""
    for key, field in RunConfig.model_fields.items():
        for setting in _of(key, field.annotation, field):
            if not setting.startswith(LEFT_OUT):
                yield setting
    yield from (f"export.formats=[fp32, {name}]" for name in FORMATS if name != "fp32")


def _of(key: str, annotation: Any, field: FieldInfo) -> Iterator[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _of(key, parts[0], field)
    elif origin is Literal:
        yield from (f"{key}={_written(value)}" for value in parts)
    elif origin in (Union, types.UnionType):
        for part in parts:
            yield from _of(key, part, field)
    elif origin in (tuple, list) and parts:
        yield from (f"{start}=[{value}]" for start, _, value in _split(_of(key, parts[0], field)))
    elif annotation is type(None):
        yield f"{key}=null"
    elif annotation is bool:
        yield from (f"{key}=true", f"{key}=false")
    elif annotation in (int, float):
        lowest = next((m.ge for m in field.metadata if isinstance(m, Ge)), None)
        above = next((m.gt for m in field.metadata if isinstance(m, Gt)), None)
        if lowest is not None:
            yield f"{key}={lowest}"
        elif above == 0:
            yield f"{key}={1 if annotation is int else 1e-3}"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(key, annotation)


def _of_model(key: str, model: type[BaseModel]) -> Iterator[str]:
    """Settings of a part; those of a plug-in come with its name."""
    name = model.model_fields.get(NAMES)
    names = get_args(name.annotation) if name is not None and get_origin(name.annotation) is Literal else ()
    if not names:
        for inner, field in model.model_fields.items():
            yield from _of(f"{key}.{inner}", field.annotation, field)
        return
    yield f"{key}={{{NAMES}: {_written(names[0])}}}"
    for inner, field in model.model_fields.items():
        if inner != NAMES and not isinstance(field.annotation, type(BaseModel)):
            for start, _, value in _split(_of(inner, field.annotation, field)):
                if "." not in start:
                    yield f"{key}={{{NAMES}: {_written(names[0])}, {start}: {value}}}"


def _split(settings: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    yield from (setting.partition("=") for setting in settings)


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def tried(setting: str, seconds: float) -> Try:
    """Make a run with a setting in a process that is forked, so that nothing is imported anew."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(setting, theirs))
    process.start()
    theirs.close()
    try:
        found = Try(setting, *ours.recv()) if ours.poll(seconds) else Try(setting, "slow", f"over {seconds:g} s")
    except EOFError:
        process.join()
        found = Try(setting, "mistake", f"its process ended with exit code {process.exitcode}")
    process.kill()
    process.join()
    return found


def _run(setting: str, link: Any) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            part = setting.partition("=")[0] + "."
            others = [one for one in SETTINGS if not one.startswith(part)]  # those of a part that is replaced
            compress(preset="digits", settings=[*others, setting], out=folder)
            link.send(("ran", ""))
        except UserError as error:
            is_late = any(Path(folder).glob("*/teacher/result.json"))
            link.send(("late" if is_late else "refused", first_line(error)))
        except BaseException as error:
            link.send(("mistake", f"{type(error).__name__}: {first_line(error)}"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="KEY", help="what the settings begin with")
    parser.add_argument("--every", type=int, default=1, help="try one setting of so many")
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of a run")
    parser.add_argument("--out", type=Path, help="CSV file of all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
