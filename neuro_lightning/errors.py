"""The errors a user can mend: each names the file or the config key, what is wrong, and how to put it right."""


class NeuroError(Exception):
    """Base of all errors that are shown as one message, without a traceback."""


class DataError(NeuroError):
    """A data file is missing, damaged, or is not what the config says it is."""


class ConfigError(NeuroError):
    """A config key is unknown, contradicts another, or names something that does not exist."""


class CheckpointError(NeuroError):
    """A checkpoint is missing, damaged, or belongs to other data."""


class FolderError(NeuroError):
    """A folder cannot be written, is in use, or holds another run."""


class Interrupted(NeuroError):
    """The user stopped a run."""


class SubmissionError(NeuroError):
    """A submission or target file does not hold what the benchmark expects."""
