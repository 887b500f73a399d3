"""A trained head as an MLflow model. MLflow copies this file into the model and runs it there: nothing is pickled.

It is no module to import: MLflow's "models from code" wants a script that names its model. It needs Headstart
installed where the model is loaded, and neither torch nor Prefect.
"""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from tasks.core.estimators import open_head


class HeadModel(PythonModel):  # type: ignore[misc]  # mypy does not look into MLflow
    """Rows of raw features, (N, D) -> a table of probabilities, (N, C), with a column for each class."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the head, which lies beside this file as it lies among Headstart's own."""
        self.head = open_head(context.artifacts["head"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return probabilities; rows may also be an array or a list, as a server hands them on."""
        proba = self.head.predict_proba(np.asarray(model_input))
        return pd.DataFrame(proba, columns=self.head.classes_.tolist())


mlflow.models.set_model(HeadModel())
