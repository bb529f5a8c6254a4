"""Language-model back ends behind one interface: any OpenAI-compatible endpoint, a local model, recorded replies."""

from mule_lib.generators.requests import BudgetError, Generator, GeneratorError, Reply, Request

__all__ = ["BudgetError", "Generator", "GeneratorError", "Reply", "Request"]
