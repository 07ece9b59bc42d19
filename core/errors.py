"""Every error that Ratchet raises on purpose.

    RatchetError
    ├── ConfigError (ValueError)        a setting that cannot work; nothing heavy has started
    ├── PromptError (ValueError)        a line that is no valid prompt
    ├── ArtifactError (ValueError)      a file or directory that is not what its manifest says
    ├── ProofError (ValueError)         weights in an engine are not the ones that were published
    ├── VersionError (LookupError)      a policy version that is not loaded, or not known
    ├── Missing (LookupError)           nothing has this id, or not for this caller
    ├── ObjectiveError (TypeError)      an example that the objective cannot eat
    ├── MismatchError (ArithmeticError) engine and trainer disagree on the same weights and tokens
    ├── StoreError (OSError)            the durable store refused a write or cannot be read
    │   └── StorageFull             no room on the disk: nothing was written; wait, and try again when there is
    ├── RunInUse (OSError)              a run directory that another process holds
    ├── Unavailable (RuntimeError)      a part is gone or stopping; the caller may try again
    └── Overdue (TimeoutError)          something did not happen by its deadline; the message names it

An error says the offending value, what was expected, and the remedy. Constructors take a message only, because an
exception that crosses Ray is rebuilt from its `args`.
"""


class RatchetError(Exception):
    """Root of the tree; catch it at an edge to print one readable line."""


class ConfigError(RatchetError, ValueError): ...


class PromptError(RatchetError, ValueError): ...


class ArtifactError(RatchetError, ValueError): ...


class ProofError(RatchetError, ValueError): ...


class VersionError(RatchetError, LookupError): ...


class Missing(RatchetError, LookupError): ...


class ObjectiveError(RatchetError, TypeError): ...


class MismatchError(RatchetError, ArithmeticError): ...


class StoreError(RatchetError, OSError): ...


class StorageFull(StoreError): ...


class RunInUse(RatchetError, OSError): ...


class Unavailable(RatchetError, RuntimeError): ...


class Overdue(RatchetError, TimeoutError): ...
