"""Imported once by the server that forks the measuring processes, where it is installed: starting one is fast then."""

import contextlib
import gc
import importlib

for name in ("numpy", "torch", "torch.distributed.checkpoint", "s3fs", "boto3", "safetensors.torch", "statevault"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
# What is imported need not be looked through before each measurement, and stays shared with the server.
gc.collect()
gc.freeze()
