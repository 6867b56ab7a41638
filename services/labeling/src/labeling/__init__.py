"""Label projects, tasks, and the feedback inbox."""
