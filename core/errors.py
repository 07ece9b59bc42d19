"""All errors that Ratchet raises deliberately.

    RatchetError
    ├── ConfigError (ValueError)        a setting that cannot work; nothing heavy has started
    ├── PromptError (ValueError)        a line that is not a valid prompt
    ├── ArtifactError (ValueError)      a file or directory that is not what its manifest says
    ├── ProofError (ValueError)         an engine does not hold the published weights
    ├── VersionError (LookupError)      a policy version that is not loaded, or not known
    ├── Missing (LookupError)           no object has this id, or the caller may not see it
    ├── ObjectiveError (TypeError)      an example that the objective does not accept
    ├── MismatchError (ArithmeticError) engine and trainer disagree on the same weights and tokens
    ├── ParentFell (RuntimeError)       the parent of the version in training was rejected or rolled back
    ├── StoreError (OSError)            the durable store refused a write or cannot be read
    │   └── StorageFull             the disk is full: nothing was written; free some room and try again
    ├── RunInUse (OSError)              a run directory that another process holds
    ├── Unavailable (RuntimeError)      a part is gone or stopping; the caller may retry
    ├── BudgetSpent (RuntimeError)      a request's next call would pass its budget of calls or tokens
    └── Overdue (TimeoutError)          something did not happen by its deadline; the message names it

A message names the offending value, the expected one and the remedy. Constructors take only a message, because Ray
rebuilds an exception from its `args`.
"""


class RatchetError(Exception):
    """Root of the tree. An entry point catches it and prints one readable line."""


class ConfigError(RatchetError, ValueError): ...


class PromptError(RatchetError, ValueError): ...


class ArtifactError(RatchetError, ValueError): ...


class ProofError(RatchetError, ValueError): ...


class VersionError(RatchetError, LookupError): ...


class Missing(RatchetError, LookupError): ...


class ObjectiveError(RatchetError, TypeError): ...


class MismatchError(RatchetError, ArithmeticError): ...


class ParentFell(RatchetError, RuntimeError): ...


class StoreError(RatchetError, OSError): ...


class StorageFull(StoreError): ...


class RunInUse(RatchetError, OSError): ...


class Unavailable(RatchetError, RuntimeError): ...


class BudgetSpent(RatchetError, RuntimeError): ...


class Overdue(RatchetError, TimeoutError): ...
