"""Single files that say of themselves what they are and whether they are whole, on any storage.

For what is kept beside states: checkpoints of batch experiments, policies that a training run saves as files.
"""

from statevault.sealed.files import SealedFile, SealedFiles
from statevault.sealed.records import from_sealed_json, sealed_json

__all__ = ["SealedFile", "SealedFiles", "from_sealed_json", "sealed_json"]
