"""Errors that are the machine's fault, in plain words: a full disk, a quota, memory, open files."""

import errno

from edgestill.pipeline.errors import first_line

_WAYS_OUT = {
    errno.ENOSPC: "the disk is full{where}; free some space, then resume the run",
    errno.EDQUOT: "your share of the disk is used up{where}; free some space, then resume the run",
    errno.EROFS: "the file system is read-only{where}; mount it for writing, or name a folder elsewhere",
    errno.EMFILE: "this process may open no more files{where}; raise the limit (`ulimit -n 4096`), then resume the run",
    errno.ENFILE: "the system can open no more files{where}; end what holds them, then resume the run",
    errno.EIO: "the disk failed{where}: its device reports an error; copy the run to another disk, then resume it",
    errno.ENOMEM: "there is too little memory{where}; end what takes it, or set fewer workers or smaller batches",
}
_NO_MEMORY = ("can't allocate memory", "out of memory")  # PyTorch's messages, on a CPU and on a GPU


def environments_fault(error: BaseException) -> str | None:
    """Explain an error of the machine in one sentence with the way out; None for other errors, wrong paths included."""
    if isinstance(error, OSError) and error.errno in _WAYS_OUT:
        where = f" ({error.filename})" if error.filename else ""
        return _WAYS_OUT[error.errno].format(where=where)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _says_memory(error)):
        return _WAYS_OUT[errno.ENOMEM].format(where=f" ({first_line(error)[:200]})" if str(error) else "")
    return None


def _says_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in _NO_MEMORY)
