"""Collected data: from the acting loop, through a bounded queue, into a buffer that trainers read.

Samples are collected by a :class:`DataCollector` in the inference thread and used by a :class:`DataUser` in
the training thread. What is kept of them is up to a :class:`DataBuffer`; the built-in ones are in
:mod:`statevault.data.impls`.
"""

from statevault.data.buffer import DataBuffer
from statevault.data.collector import DataCollector
from statevault.data.container import DataCollectorsDict, DataUsersDict
from statevault.data.errors import SampleFieldsError
from statevault.data.user import DataUser

__all__ = [
    "DataBuffer",
    "DataCollector",
    "DataCollectorsDict",
    "DataUser",
    "DataUsersDict",
    "SampleFieldsError",
]
