"""The training loop, and what it takes to run one."""
