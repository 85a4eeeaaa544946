import pickle

from segbatch.errors import InputError, SegbatchError, root_message

REMOTE = """ray::MapBatches(write_block)() (pid=1, ip=127.0.0.1)
Traceback (most recent call last):
  File "stages.py", line 10, in write
segbatch.errors.SegbatchError: masks/a.zarr/0 cannot be written: No space left on device.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
ray.data.exceptions.UserCodeException: UDF failed"""


def test_the_message_of_a_worker_is_dug_out_of_its_traceback() -> None:
    assert root_message(RuntimeError(REMOTE)) == "masks/a.zarr/0 cannot be written: No space left on device."


def test_a_foreign_error_of_a_worker_gives_its_last_line() -> None:
    text = 'ray::f()\nTraceback (most recent call last):\n  File "f.py"\nMemoryError: 3 GB'
    assert root_message(RuntimeError(text)) == "MemoryError: 3 GB"


def test_a_local_error_names_its_type() -> None:
    assert root_message(KeyError("a")) == "KeyError: 'a'"
    assert root_message(MemoryError()) == "MemoryError"


def test_exit_codes_tell_bad_input_from_failure() -> None:
    assert SegbatchError("x").exit_code == 1
    assert InputError("x").exit_code == 2


def test_errors_keep_no_secrets_wherever_they_are_shown() -> None:
    error = pickle.loads(pickle.dumps(InputError("http://me:geheim@h/a.tif?sig=geheim is damaged")))
    assert "geheim" not in repr(error) + str(error) + str(error.args)
    assert str(error) == "http://***@h/a.tif?*** is damaged"
    assert str(SegbatchError()) == ""
