# SPDX-License-Identifier: Apache-2.0
"""What the optional parts need, as a command that works wherever the package came from."""

TRAIN_EXTRA = "pip install scikit-learn scipy safetensors tqdm matplotlib pandas pyarrow"
STREAM_EXTRA = "pip install confluent-kafka redis orjson pandas pyarrow"
SERVE_EXTRA = (
    "pip install redis safetensors starlette uvicorn httptools uvloop orjson prometheus-client"
)
