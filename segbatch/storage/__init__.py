"""Where a run's files are: a folder, or a place in an object store.

`place` makes of either what has the methods of `pathlib.Path`, so that what reads and writes need not know which it is.
Where it must (what is appended to, renamed or locked), it asks `is_remote`.
"""

from segbatch.storage.ahead import ask_ahead
from segbatch.storage.client import ChangedError, NoCredentialsError
from segbatch.storage.fetch import local_copy, local_file
from segbatch.storage.objects import ImagePath, ObjectPath, QuickPath
from segbatch.storage.place import is_remote, is_store_url, is_url, place
from segbatch.storage.scratch import PARTIAL, scratch_folder
from segbatch.storage.staging import (
    append,
    move,
    move_over,
    read_range,
    remove_folder,
    remove_tree,
    staging_folder,
    write_whole,
)

__all__ = [
    "PARTIAL",
    "ChangedError",
    "ImagePath",
    "NoCredentialsError",
    "ObjectPath",
    "QuickPath",
    "append",
    "ask_ahead",
    "is_remote",
    "is_store_url",
    "is_url",
    "local_copy",
    "local_file",
    "move",
    "move_over",
    "place",
    "read_range",
    "remove_folder",
    "remove_tree",
    "scratch_folder",
    "staging_folder",
    "write_whole",
]
