"""What notebooks 04, 05 and 06 take: the suite's folder, and the benchmark that stands for the paper's."""

from pydantic import field_validator

from mule_lib.method_catalogue import nearest
from mule_lib.notebook_params import CollectingParams
from mule_lib.row_names import BENCHMARK_NAMES


class TableParams(CollectingParams):
    """Notebooks 04 and 05; `benchmark` stands for MUSE-Books."""

    benchmark: str = "books"

    @field_validator("benchmark")
    @classmethod
    def _benchmark(cls, value: str) -> str:
        if value not in BENCHMARK_NAMES:
            raise ValueError(nearest(value, BENCHMARK_NAMES))
        return value


class RadarParams(TableParams):
    """Notebook 06; `benchmark` stands for WMDP-Cyber."""

    benchmark: str = "cyber"
