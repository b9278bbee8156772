"""What a run says about itself: settings as flat parameters, with nothing secret in them, and data sets by content."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from iy.storage import file_sha256

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

LONGEST_KEY, LONGEST_VALUE = 250, 6000  # MLflow's limits
DIGEST = 36  # longest data-set digest that MLflow takes
SECRET_NAME = re.compile(r"(^|[._-])(password|passwd|secret|token|key|credentials?)$", re.IGNORECASE)
LOGIN_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
SECRET_IN_QUERY = re.compile(r"(?i)([?&][^=&\s]*(?:token|key|secret|signature|password)[^=&\s]*=)[^&\s]+")


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as `section.key: text`, secrets masked, keys and values cut to what MLflow takes."""
    if isinstance(value, dict) and value:
        parts = [flatten(item, f"{prefix}.{key}".lstrip(".")) for key, item in value.items()]
        return {name: text for part in parts for name, text in part.items()}
    name = re.sub(r"[^\w\-. :/]", "_", prefix)[:LONGEST_KEY]
    text = value if isinstance(value, str) else json.dumps(value)
    return {name: "***" if SECRET_NAME.search(prefix) and value else mask(text)[:LONGEST_VALUE]}


def mask(text: str) -> str:
    """`text` without logins and keys in URLs, and without the values of secret environment variables."""
    text = SECRET_IN_QUERY.sub(r"\1***", LOGIN_IN_URL.sub("***@", text))
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    return text


def dataset_input(name: str, path: Path | str) -> "DatasetInput":
    """A file as an MLflow data-set input: content digest, where it lies (relative to the project), rows and columns."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest, schema, profile = file_sha256(path), None, {"bytes": Path(path).stat().st_size}
    if Path(path).suffix == ".parquet":
        table = pq.ParquetFile(path)
        profile["num_rows"] = table.metadata.num_rows
        schema = json.dumps({"columns": {field.name: str(field.type) for field in table.schema_arrow}})
    source = json.dumps({"uri": mask(str(path))})
    dataset = Dataset(name, digest[:DIGEST], "local", source, schema, json.dumps(profile))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training"), InputTag("iy.sha256", digest)])
