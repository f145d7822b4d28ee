"""Run folders, read for the tools that show runs: TensorBoard, MLflow and W&B. Nothing here needs torch."""
