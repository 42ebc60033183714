"""Every error a person can meet, one class an exit code (sysexits.h).

    MltrainError
    ├─ UsageError      64   the command line is wrong                     never restarted
    ├─ DataError       65   an input is damaged or of the wrong kind      never restarted
    ├─ MissingInput    66   an input is not there                         never restarted
    ├─ NodeUnfit       69   this machine cannot do it; another might      the node is excluded
    ├─ TaskError       70   the user's code failed, or the numbers did    not restarted if it comes back at the same step
    ├─ StorageError    74   a disk or store failed
    └─ ConfigError     78   the recipe is wrong                           never restarted

A message says what, where and what to do in one or two lines; `cli` prints it without a traceback.
"""
from __future__ import annotations

DONE, PREEMPTED, INTERRUPTED = 0, 75, 130     # exit codes that are no error: finished, stopped with state saved, stopped by the user


class MltrainError(Exception):
    """message: what is wrong and where. hint: what to do about it (a second line)."""

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(MltrainError):
    code = 64


class DataError(MltrainError):
    code = 65


class MissingInput(MltrainError):
    code = 66


class NodeUnfit(MltrainError):
    code = 69


class TaskError(MltrainError):
    code = 70


class StorageError(MltrainError):
    code = 74


class ConfigError(MltrainError):
    code = 78
