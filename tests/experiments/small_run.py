"""The values of a small run config."""

SMALL = {
    "name": "small",
    "data": {"format": "synthetic", "train": 60, "dev": 6, "test": 12},
    "tasks": ["mner", "mre", "med", "meae"],
    "fusion": {"name": "gated", "dropout": 0.1},
    "training": {"max_steps": 6, "batch_size": 4},
    "checkpoints": {"save_steps": 2, "report_to": []},
    "evaluation": {"generation": {"max_new_tokens": 8}},
}
