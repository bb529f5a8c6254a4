"""The suite: run folders and their identity, notebooks under papermill, the graph of steps, and the `mule` command."""

from mule_lib.suite.runs import Run, RunFolderError, open_folder, open_run, provenance

__all__ = ["Run", "RunFolderError", "open_folder", "open_run", "provenance"]
