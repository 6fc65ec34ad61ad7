"""Errors that a user can cause and cure."""

from __future__ import annotations


class EdgeqError(Exception):
    """Base of every error that names its cause and its cure."""


class GraphError(EdgeqError):
    """A graph breaks a rule of the intermediate representation."""


class ImportModelError(EdgeqError):
    """A model file or module cannot be read as a graph."""


class UnsupportedOperatorError(ImportModelError):
    """A model holds an operator that edgeq does not have."""


class DataError(EdgeqError):
    """A data set is missing, malformed or of the wrong shape."""


class QuantizationError(EdgeqError):
    """A scheme cannot be applied as asked."""


class FormatError(EdgeqError):
    """A .edgeq file is truncated, corrupted or of an unknown version."""


class BackendError(EdgeqError):
    """A runtime is missing or refuses a model."""


class DeviceError(EdgeqError):
    """A device cannot be reached, or cannot do what it is asked."""


class BuildError(EdgeqError):
    """A compiler or its tools are missing, or a cross build fails."""


class UsageError(EdgeqError):
    """Arguments that contradict each other or name nothing."""
