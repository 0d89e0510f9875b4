"""Data: histories of interactions, item content, prompts and MLLM batches. Nothing here imports the model."""
