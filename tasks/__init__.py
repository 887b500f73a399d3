"""What runs: one stage a file. How it is computed stands in `tasks.core`."""
